/// A tokenizer's tokens, prepared for masks. Immutable and shared by all constraints.
///
/// Most tokens are plain text without quotation marks, backslashes and control characters: inside a string all of them
/// go, or all of them up to a length. Their masks are made once, and a walk visits the other tokens only.
package final class Vocabulary: Sendable {
    /// Tokens that any string takes as long as it takes `characters` characters.
    struct Slice: Sendable {
        var characters: Int
        var mask: [UInt64]
        /// All other tokens.
        var others: TokenTrie
    }

    package let count: Int
    package var wordCount: Int { (count + 63) / 64 }
    let trie: TokenTrie
    /// The one for the most characters first.
    let slices: [Slice]
    /// Tokens with the same bytes as an earlier one: the earlier, the later.
    let twins: [(Int, Int)]

    /// Characters of the tokens that a string with an upper bound takes together.
    private static let shortSlice = 16

    /// - Parameter tokens: each token's bytes; nil where it is never part of an answer (special tokens, gaps).
    package init(tokens: [[UInt8]?]) {
        count = tokens.count
        var entries: [(bytes: [UInt8], id: Int)] = []
        entries.reserveCapacity(tokens.count)
        for (id, bytes) in tokens.enumerated() {
            if let bytes, !bytes.isEmpty && bytes.count <= TokenTrie.longestToken { entries.append((bytes, id)) }
        }
        entries.sort { $0.bytes == $1.bytes ? $0.id < $1.id : $0.bytes.lexicographicallyPrecedes($1.bytes) }
        var distinct: [(bytes: [UInt8], id: Int)] = []
        distinct.reserveCapacity(entries.count)
        var twins: [(Int, Int)] = []
        for entry in entries {
            if let last = distinct.last, last.bytes == entry.bytes {
                twins.append((last.id, entry.id))
            } else {
                distinct.append(entry)
            }
        }
        self.twins = twins
        trie = TokenTrie(sorted: distinct)
        let lengths = distinct.map { Self.plainLength($0.bytes) }
        var slices: [Slice] = []
        for limit in [Int.max, Self.shortSlice] {
            var mask = [UInt64](repeating: 0, count: (tokens.count + 63) / 64)
            var others: [(bytes: [UInt8], id: Int)] = []
            var longest = 0
            for (entry, length) in zip(distinct, lengths) {
                if let length, length <= limit {
                    mask[entry.id >> 6] |= 1 << UInt64(entry.id & 63)
                    longest = max(longest, length)
                } else {
                    others.append(entry)
                }
            }
            slices.append(Slice(characters: longest, mask: mask, others: TokenTrie(sorted: others)))
        }
        self.slices = slices
    }

    /// Characters of a token that is whole UTF-8 without `"`, `\` and control characters; nil for others.
    private static func plainLength(_ bytes: [UInt8]) -> Int? {
        for byte in bytes where byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { return nil }
        return String(validating: bytes, as: UTF8.self)?.unicodeScalars.count
    }
}
