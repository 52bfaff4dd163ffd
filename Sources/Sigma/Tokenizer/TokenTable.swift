/// The bytes of every token id, one after the other in one buffer: 200,000 small arrays would cost more time than the rest of
/// building a tokenizer.
package struct TokenTable: Sendable, Equatable, ExpressibleByArrayLiteral {
    package private(set) var bytes: [UInt8] = []
    /// Token `id` is `bytes[offsets[id]..<offsets[id + 1]]`; as many as ids, and one.
    package private(set) var offsets: [Int] = [0]

    package init() {}

    package init(_ tokens: [[UInt8]]) {
        reserveCapacity(tokens: tokens.count, bytes: tokens.reduce(0) { $0 + $1.count })
        for token in tokens { append(token) }
    }

    package init(arrayLiteral tokens: [UInt8]...) { self.init(tokens) }

    /// Number of ids.
    package var count: Int { offsets.count - 1 }

    package subscript(id: Int) -> ArraySlice<UInt8> { bytes[offsets[id]..<offsets[id + 1]] }

    package mutating func reserveCapacity(tokens: Int, bytes byteCount: Int) {
        bytes.reserveCapacity(byteCount)
        offsets.reserveCapacity(tokens + 1)
    }

    /// Gives the next id to a token; an empty one is an id without a token.
    package mutating func append(_ token: [UInt8]) {
        bytes.append(contentsOf: token)
        offsets.append(bytes.count)
    }

    package mutating func append(_ token: UnsafeBufferPointer<UInt8>) {
        bytes.append(contentsOf: token)
        offsets.append(bytes.count)
    }

    /// Gives the next id to a token written in the printable byte alphabet of GPT-2, as `tokenizer.json` and GGUF files have it.
    ///
    /// - Returns: false, with nothing appended, if the text is not in that alphabet.
    package mutating func append(inByteAlphabet text: UnsafeBufferPointer<UInt8>) -> Bool {
        guard ByteAlphabet.appendBytes(of: text, to: &bytes) else { return false }
        offsets.append(bytes.count)
        return true
    }
}
