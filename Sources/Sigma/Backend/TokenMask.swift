/// Which tokens of a vocabulary may be chosen: a bit each, known before the output head is computed. Shared by reference, and immutable but for
/// its only owner.
package final class TokenMask: @unchecked Sendable {
    package let vocabularySize: Int
    /// [wordCount]: bit id % 64 of word id / 64. Bits behind the vocabulary are zero.
    package let words: UnsafePointer<UInt64>
    /// Tokens that may be chosen.
    package private(set) var count: Int

    package static func wordCount(_ vocabularySize: Int) -> Int { (vocabularySize + 63) / 64 }

    /// - Parameter fill: writes the words, which begin as zeros.
    package init(vocabularySize: Int, _ fill: (UnsafeMutableBufferPointer<UInt64>) -> Void) {
        self.vocabularySize = vocabularySize
        let buffer = UnsafeMutableBufferPointer<UInt64>.allocate(capacity: max(1, Self.wordCount(vocabularySize)))
        buffer.initialize(repeating: 0)
        words = UnsafePointer(buffer.baseAddress!)
        count = 0
        refill(fill)
    }

    /// Writes it anew. Only for who holds the one reference to it: nobody else may see a mask change.
    /// - Parameter fill: writes all words, which are as they were.
    package func refill(_ fill: (UnsafeMutableBufferPointer<UInt64>) -> Void) {
        let buffer = UnsafeMutableBufferPointer(
            start: UnsafeMutablePointer(mutating: words), count: max(1, Self.wordCount(vocabularySize)))
        fill(buffer)
        if vocabularySize % 64 != 0 { buffer[vocabularySize / 64] &= (1 << UInt64(vocabularySize % 64)) - 1 }
        var count = 0
        for word in buffer { count += word.nonzeroBitCount }
        self.count = count
    }

    deinit { UnsafeMutablePointer(mutating: words).deallocate() }

    /// All tokens.
    package convenience init(all vocabularySize: Int) {
        self.init(vocabularySize: vocabularySize) { $0.update(repeating: .max) }
    }

    /// The tokens for which `isAllowed` is true.
    package convenience init(vocabularySize: Int, where isAllowed: (Int32) -> Bool) {
        self.init(vocabularySize: vocabularySize) { words in
            for id in 0..<vocabularySize where isAllowed(Int32(id)) { words[id / 64] |= 1 << UInt64(id % 64) }
        }
    }

    /// The tokens that both allow.
    package convenience init(_ a: TokenMask, and b: TokenMask) {
        precondition(a.vocabularySize == b.vocabularySize)
        self.init(vocabularySize: a.vocabularySize) { words in
            for index in 0..<Self.wordCount(a.vocabularySize) { words[index] = a.words[index] & b.words[index] }
        }
    }

    package var allowsAll: Bool { count == vocabularySize }

    @inline(__always)
    package func allows(_ id: Int) -> Bool { words[id / 64] >> UInt64(id % 64) & 1 != 0 }
}
