/// Turns tokens into text as they come: a character appears when its last byte has.
package struct StreamingDecoder: Sendable {
    private let tokenizer: Tokenizer
    /// The beginning of a character, at most three bytes.
    private var pending: [UInt8] = []

    package init(_ tokenizer: Tokenizer) {
        self.tokenizer = tokenizer
        pending.reserveCapacity(4)
    }

    /// The characters that the token completes. Bytes that can't become a character any more are U+FFFD, one for each maximal
    /// part, as in `String(decoding:as:)`. Control tokens are no text.
    package mutating func append(_ id: Int32) -> String {
        tokenizer.isControl(id) ? "" : append(tokenizer.bytes(of: id))
    }

    /// What is left: U+FFFD if the text ends inside a character.
    package mutating func finish() -> String {
        defer { pending.removeAll(keepingCapacity: true) }
        return pending.isEmpty ? "" : "\u{fffd}"
    }

    mutating func append(_ bytes: UnsafeBufferPointer<UInt8>) -> String {
        if pending.isEmpty { return complete(bytes) }
        let all = pending + bytes
        return all.withUnsafeBufferPointer { complete($0) }
    }

    /// Keeps an unfinished end of `bytes` as pending, and decodes the rest.
    private mutating func complete(_ bytes: UnsafeBufferPointer<UInt8>) -> String {
        let end = bytes.count - Self.unfinishedLength(bytes)
        pending.replaceSubrange(0..., with: bytes[end...])
        return String(decoding: bytes[..<end], as: UTF8.self)
    }

    private static func unfinishedLength(_ bytes: UnsafeBufferPointer<UInt8>) -> Int {
        guard let base = bytes.baseAddress else { return 0 }
        for length in 1...3 where length <= bytes.count {
            let start = base + (bytes.count - length)
            if start[0] & 0xc0 == 0x80 { continue }
            if case .incomplete = UTF8Sequence(start, before: base + bytes.count) { return length }
            return 0
        }
        return 0
    }
}
