/// A tokenizer's tokens, prepared for masks. Immutable and shared by all constraints.
///
/// Most tokens are plain text without quotation marks, backslashes and control characters: inside a string all of them
/// go, or all that consist of letters and digits, or all of them up to a length. The masks of such slices are made once,
/// and a walk visits the other tokens only.
package final class Vocabulary: Sendable {
    /// Tokens that any string takes between two characters, as long as it takes `characters` more.
    struct Slice: Sendable {
        var characters: Int
        var kind: CharacterKind
        var mask: [UInt64]
        /// All other tokens that a string may take.
        var others: TokenTrie
    }

    package let count: Int
    package var wordCount: Int { (count + 63) / 64 }
    let trie: TokenTrie
    /// The ones with the most tokens first.
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
        let contents = distinct.map { Self.content($0.bytes) }
        var slices: [Slice] = []
        for (kind, limit) in [(CharacterKind.plain, Int.max)] + CharacterKind.allCases.map({ ($0, Self.shortSlice) }) {
            var mask = [UInt64](repeating: 0, count: (tokens.count + 63) / 64)
            var others: [(bytes: [UInt8], id: Int)] = []
            var longest = 0
            for (entry, content) in zip(distinct, contents) {
                switch content {
                case .plain(let characters, let actual) where characters <= limit && actual.rawValue >= kind.rawValue:
                    mask[entry.id >> 6] |= 1 << UInt64(entry.id & 63)
                    longest = max(longest, characters)
                case .impossible: break
                case .plain, .other: others.append(entry)
                }
            }
            slices.append(Slice(characters: longest, kind: kind, mask: mask, others: TokenTrie(sorted: others)))
        }
        self.slices = slices
    }

    /// What a token is to a string that stands between two characters.
    private enum Content {
        /// Without `"`, `\` and control characters; the last character may lack bytes.
        case plain(characters: Int, kind: CharacterKind)
        /// No string goes on with it.
        case impossible
        case other
    }

    private static func content(_ bytes: [UInt8]) -> Content {
        var characters = 0
        var kind = CharacterKind.lowercase
        var left = 0
        var low: UInt8 = 0x80
        var high: UInt8 = 0xBF
        for byte in bytes {
            if left > 0 {
                guard low...high ~= byte else { return .impossible }
                (left, low, high) = (left - 1, 0x80, 0xBF)
                continue
            }
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): return .other
            case 0x20..<0x80: kind = min(kind, CharacterKind(ascii: byte))
            case 0xC2...0xDF: left = 1
            case 0xE0...0xEF:
                left = 2
                if byte == 0xE0 { low = 0xA0 }
                if byte == 0xED { high = 0x9F }
            case 0xF0...0xF4:
                left = 3
                if byte == 0xF0 { low = 0x90 }
                if byte == 0xF4 { high = 0x8F }
            default: return .impossible
            }
            characters += 1
        }
        if let text = String(validating: bytes, as: UTF8.self) {
            for scalar in text.unicodeScalars where scalar.value >= 0x80 {
                kind = min(kind, CharacterClasses.space.contains(scalar.value) ? .plain : .unspaced)
            }
        } else {
            // What an incomplete character becomes isn't known.
            kind = .plain
        }
        return .plain(characters: characters, kind: kind)
    }
}
