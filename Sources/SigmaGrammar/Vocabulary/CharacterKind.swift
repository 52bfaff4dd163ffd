/// Sets of characters that schemas' expressions are often closed over, each inside the one before.
enum CharacterKind: Int, CaseIterable, Comparable {
    /// Everything but `"`, `\` and control characters.
    case plain
    /// Without spaces of any kind.
    case unspaced
    /// `A-Z a-z 0-9 _ -`
    case identifier
    /// `A-Z a-z 0-9`
    case alphanumeric
    /// `a-z 0-9`
    case lowercase

    /// The smallest set with the character, one of U+0020 to U+007F without `"` and `\`.
    init(ascii byte: UInt8) {
        switch byte {
        case 0x20: self = .plain
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): self = .lowercase
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): self = .alphanumeric
        case UInt8(ascii: "_"), UInt8(ascii: "-"): self = .identifier
        default: self = .unspaced
        }
    }

    static func < (a: CharacterKind, b: CharacterKind) -> Bool { a.rawValue < b.rawValue }

    var ranges: [(low: UInt32, high: UInt32)] {
        switch self {
        case .plain: [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, 0x10FFFF)]
        case .unspaced: Self.unspacedRanges
        case .identifier: [(0x2D, 0x2D), (0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
        case .alphanumeric: [(0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)]
        case .lowercase: [(0x30, 0x39), (0x61, 0x7A)]
        }
    }

    private static let unspacedRanges: [(low: UInt32, high: UInt32)] = {
        let excluded = CharacterClasses.space.union(
            CodePointSet([(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0xD800, 0xDFFF)]))
        return excluded.complement.ranges.map { ($0.low, $0.high) }
    }()
}
