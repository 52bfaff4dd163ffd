/// What a person does at the keyboard.
public enum Key: Equatable, Sendable {
    /// A character, or a part of one: a mark that combines with what is before it comes alone.
    case text(Unicode.Scalar)
    /// Text that was pasted, lines and all.
    case paste(String)
    /// A letter with Ctrl, in lower case: `.control("c")`.
    case control(Character)
    /// A letter with Alt, or Escape before it.
    case alt(Character)
    case enter
    /// Alt-Enter: a line end in the text.
    case lineEnd
    case tab
    case backspace
    /// Alt-Backspace.
    case backspaceWord
    case delete
    case escape
    case up, down, left, right, home, end
    case wordLeft, wordRight
    /// A sequence that means nothing to us.
    case unknown
}

/// Bytes of a terminal to keys: UTF-8, the escape sequences of xterm and its relatives, bracketed paste.
///
/// Bytes may arrive in any pieces. An Escape that nothing follows is only known by waiting: `isWaitingForMore` says so, and `timeOut` decides.
public struct KeyDecoder: Sendable {
    private var bytes: [UInt8] = []
    private var pasted: [UInt8]?
    private static let pasteEnd = Array("\u{1b}[201~".utf8)
    /// An escape sequence that is longer is none.
    private static let sequenceLimit = 32

    public init() {}

    /// Whether what came last could be the key Escape as well as the beginning of a sequence.
    public var isWaitingForMore: Bool { pasted == nil && bytes.first == 0x1b }

    public mutating func append(_ more: some Sequence<UInt8>) -> [Key] {
        bytes += more
        var keys: [Key] = []
        while let key = next() { keys.append(key) }
        return keys
    }

    /// Nothing more has come for a while.
    public mutating func timeOut() -> [Key] {
        guard isWaitingForMore else { return [] }
        bytes.removeFirst()
        return [.escape] + append([])
    }

    private mutating func next() -> Key? {
        if pasted != nil { return nextPasted() }
        guard let first = bytes.first else { return nil }
        switch first {
        case 0x1b: return nextEscaped()
        case 0x0d: return take(1, .enter)
        case 0x09: return take(1, .tab)
        case 0x7f, 0x08: return take(1, .backspace)
        case 0..<0x20: return take(1, .control(Character(UnicodeScalar(first == 0 ? 0x20 : first | 0x60))))
        default: return nextScalar().map { .text($0) }
        }
    }

    private mutating func take(_ count: Int, _ key: Key) -> Key {
        bytes.removeFirst(count)
        return key
    }

    /// A scalar from the beginning; U+FFFD for bytes that are none; nil while it is incomplete.
    private mutating func nextScalar() -> Unicode.Scalar? {
        let first = bytes[0]
        let length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0
        guard length > 0 else {
            bytes.removeFirst()
            return "\u{fffd}"
        }
        let following = bytes.dropFirst().prefix(length - 1).prefix { $0 & 0xc0 == 0x80 }.count
        if following < length - 1, following == bytes.count - 1 { return nil }
        let text = String(decoding: bytes[..<(1 + following)], as: UTF8.self)
        bytes.removeFirst(1 + following)
        return text.unicodeScalars.count == 1 ? text.unicodeScalars.first : "\u{fffd}"
    }

    private mutating func nextEscaped() -> Key? {
        guard bytes.count > 1 else { return nil }
        switch bytes[1] {
        case UInt8(ascii: "["): return nextSequence()
        case UInt8(ascii: "O"):
            // Keys of the application mode: one more byte.
            guard bytes.count > 2 else { return nil }
            return take(3, Self.keyOfLetter(bytes[2], modified: false))
        case 0x0d, 0x0a: return take(2, .lineEnd)
        case 0x7f, 0x08: return take(2, .backspaceWord)
        case 0x1b:
            // Escape, and then perhaps a sequence.
            return take(1, .escape)
        case 0x20..<0x7f: return take(2, .alt(Character(UnicodeScalar(bytes[1]))))
        default: return take(1, .escape)
        }
    }

    /// `ESC [ parameters letter`.
    private mutating func nextSequence() -> Key? {
        guard let end = bytes.dropFirst(2).firstIndex(where: { (0x40...0x7e).contains($0) }) else {
            return bytes.count > Self.sequenceLimit ? take(bytes.count, .unknown) : nil
        }
        // A control byte inside ends it.
        if let bad = bytes[2..<end].firstIndex(where: { $0 < 0x20 || $0 > 0x7e }) { return take(bad, .unknown) }
        let parameters = bytes[2..<end].split(separator: UInt8(ascii: ";"), omittingEmptySubsequences: false).map {
            Int(UInt16(String(decoding: $0, as: UTF8.self)) ?? 0)
        }
        let letter = bytes[end]
        bytes.removeFirst(end + 1)
        // The second parameter less one is a set of bits: Shift 1, Alt 2, Ctrl 4.
        let modified = parameters.count > 1 && (parameters[1] - 1) & 6 != 0
        guard letter == UInt8(ascii: "~") else { return Self.keyOfLetter(letter, modified: modified) }
        switch parameters.first {
        case 1, 7: return .home
        case 4, 8: return .end
        case 3: return .delete
        case 200:
            pasted = []
            return next()
        default: return .unknown
        }
    }

    private static func keyOfLetter(_ letter: UInt8, modified: Bool) -> Key {
        switch letter {
        case UInt8(ascii: "A"): .up
        case UInt8(ascii: "B"): .down
        case UInt8(ascii: "C"): modified ? .wordRight : .right
        case UInt8(ascii: "D"): modified ? .wordLeft : .left
        case UInt8(ascii: "H"): .home
        case UInt8(ascii: "F"): .end
        case UInt8(ascii: "M"): .enter
        default: .unknown
        }
    }

    /// Everything up to the end mark. Terminals send a line end as Return.
    private mutating func nextPasted() -> Key? {
        pasted! += bytes
        bytes = []
        guard let place = Self.place(of: Self.pasteEnd, in: pasted!) else { return nil }
        bytes = Array(pasted![(place + Self.pasteEnd.count)...])
        let text = String(decoding: pasted![..<place], as: UTF8.self)
        pasted = nil
        var lines = String.UnicodeScalarView()
        var wasReturn = false
        for scalar in text.unicodeScalars {
            if !(wasReturn && scalar == "\n") { lines.append(scalar == "\r" ? "\n" : scalar) }
            wasReturn = scalar == "\r"
        }
        return .paste(String(lines))
    }

    private static func place(of pattern: [UInt8], in bytes: [UInt8]) -> Int? {
        guard bytes.count >= pattern.count else { return nil }
        return (0...(bytes.count - pattern.count)).first { bytes[$0] == 0x1b && bytes[$0...].starts(with: pattern) }
    }
}
