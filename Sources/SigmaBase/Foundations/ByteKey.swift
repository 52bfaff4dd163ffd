/// A string that is hashed and compared by its UTF-8 bytes: exact, and much faster than by canonical equivalence.
package struct ByteKey: Hashable, Sendable {
    package let text: String
    package init(text: String) {
        var text = text
        text.makeContiguousUTF8()
        self.text = text
    }

    package static func == (a: ByteKey, b: ByteKey) -> Bool {
        a.text.utf8.count == b.text.utf8.count && a.text.utf8.elementsEqual(b.text.utf8)
    }
    package func hash(into hasher: inout Hasher) {
        var copy = text
        copy.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    }
}
