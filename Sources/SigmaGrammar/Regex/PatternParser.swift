/// Parses the regular expressions of ECMA-262 (the `u` flavour, with the leniency that schemas rely on).
///
/// Not taken: back references, look-behind, word boundaries, inline flags, script properties.
struct PatternParser {
    private let scalars: [UInt32]
    private var position = 0
    private var depth = 0

    /// Groups inside each other.
    private static let depthLimit = 100
    private static let lengthLimit = 20_000

    init(_ expression: String) { scalars = expression.unicodeScalars.map(\.value) }

    mutating func parse() throws(PatternError) -> Pattern {
        guard scalars.count <= Self.lengthLimit else { throw error("an expression of over 20,000 characters") }
        let pattern = try alternatives()
        guard position == scalars.count else { throw error("')' without '('") }
        return pattern
    }

    private func error(_ message: String) -> PatternError { PatternError(message: message, offset: position) }

    private func peek(_ ahead: Int = 0) -> UInt32? {
        position + ahead < scalars.count ? scalars[position + ahead] : nil
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard peek() == character.value else { return false }
        position += 1
        return true
    }

    private mutating func take(_ text: String) -> Bool {
        let wanted = text.unicodeScalars.map(\.value)
        guard scalars.dropFirst(position).starts(with: wanted) else { return false }
        position += wanted.count
        return true
    }

    // MARK: Structure

    private mutating func alternatives() throws(PatternError) -> Pattern {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthLimit else { throw error("groups nested over \(Self.depthLimit) deep") }
        var choices = [try sequence()]
        while take("|") { choices.append(try sequence()) }
        return choices.count == 1 ? choices[0] : .alternatives(choices)
    }

    private mutating func sequence() throws(PatternError) -> Pattern {
        var parts: [Pattern] = []
        while let next = peek(), next != Unicode.Scalar("|").value, next != Unicode.Scalar(")").value {
            parts.append(try quantified())
        }
        return parts.count == 1 ? parts[0] : .sequence(parts)
    }

    private mutating func quantified() throws(PatternError) -> Pattern {
        let start = position
        let body = try atom()
        var result = body
        if let (least, most) = try quantifier() {
            if case .start = body { throw error("nothing to repeat") }
            if case .end = body { throw error("nothing to repeat") }
            result = .repeat(body, min: least, max: most)
            _ = take("?")
            if peek() == Unicode.Scalar("+").value || peek() == Unicode.Scalar("*").value {
                throw error("nothing to repeat")
            }
        }
        guard position > start else { throw error("unexpected character") }
        return result
    }

    private mutating func quantifier() throws(PatternError) -> (Int32, Int32)? {
        if take("*") { return (0, RegexArena.unbounded) }
        if take("+") { return (1, RegexArena.unbounded) }
        if take("?") { return (0, 1) }
        let start = position
        guard take("{"), let least = number() else {
            position = start
            return nil
        }
        var most = least
        if take(",") { most = number() ?? RegexArena.unbounded }
        guard take("}") else {
            position = start
            return nil
        }
        guard least <= most else { throw error("a repetition's bounds are in the wrong order") }
        return (least, most)
    }

    private mutating func number() -> Int32? {
        var value: Int32?
        while let digit = peek(), 0x30...0x39 ~= digit {
            value = min((value ?? 0) * 10 + Int32(digit - 0x30), 100_000_000)
            position += 1
        }
        return value
    }

    private mutating func atom() throws(PatternError) -> Pattern {
        guard let character = peek() else { throw error("the expression ends too early") }
        position += 1
        switch Unicode.Scalar(character) {
        case "^": return .start
        case "$": return .end
        case ".": return .set(CodePointSet("\n\r\u{2028}\u{2029}").complement)
        case "(": return try group()
        case "[": return .set(try characterClass())
        case "\\": return try escape()
        case "*", "+", "?":
            position -= 1
            throw error("nothing to repeat")
        default: return .set(CodePointSet(character))
        }
    }

    private mutating func group() throws(PatternError) -> Pattern {
        var negative: Bool?
        if take("?=") {
            negative = false
        } else if take("?!") {
            negative = true
        } else if peek() == Unicode.Scalar("?").value && !take("?:") {
            guard take("?<"), let first = peek(), first != Unicode.Scalar("=").value, first != Unicode.Scalar("!").value
            else { throw error("this kind of group is not supported") }
            while let next = peek(), next != Unicode.Scalar(">").value { position += 1 }
            guard take(">") else { throw error("'(?<' without '>'") }
        }
        let body = try alternatives()
        guard take(")") else { throw error("'(' without ')'") }
        return negative.map { .lookahead(body, isNegative: $0) } ?? body
    }

    // MARK: Escapes and classes

    private mutating func escape() throws(PatternError) -> Pattern {
        guard let next = peek() else { throw error("the expression ends behind '\\'") }
        switch Unicode.Scalar(next) {
        case "b", "B": throw error("word boundaries are not supported")
        case "1", "2", "3", "4", "5", "6", "7", "8", "9", "k": throw error("back references are not supported")
        default: return .set(try escapedSet(inClass: false))
        }
    }

    /// Behind a backslash: a class, or one scalar.
    private mutating func escapedSet(inClass: Bool) throws(PatternError) -> CodePointSet {
        guard let next = peek() else { throw error("the expression ends behind '\\'") }
        position += 1
        switch Unicode.Scalar(next) {
        case "d": return CharacterClasses.digits
        case "D": return CharacterClasses.digits.complement
        case "w": return CharacterClasses.word
        case "W": return CharacterClasses.word.complement
        case "s": return CharacterClasses.space
        case "S": return CharacterClasses.space.complement
        case "p", "P":
            let set = try property()
            return next == Unicode.Scalar("p").value ? set : set.complement
        case "n": return CodePointSet(0x0A)
        case "r": return CodePointSet(0x0D)
        case "t": return CodePointSet(0x09)
        case "v": return CodePointSet(0x0B)
        case "f": return CodePointSet(0x0C)
        case "b" where inClass: return CodePointSet(0x08)
        case "0":
            if let digit = peek(), 0x30...0x39 ~= digit { throw error("octal escapes are not supported") }
            return CodePointSet(0)
        case "c":
            guard let letter = peek(), 0x41...0x5A ~= letter & ~0x20 else { throw error("'\\c' needs a letter") }
            position += 1
            return CodePointSet(letter & 0x1F)
        case "x": return CodePointSet(try hexadecimal(digits: 2))
        case "u": return CodePointSet(try unicodeEscape())
        default:
            let isAlphanumeric = 0x30...0x39 ~= next || 0x41...0x5A ~= next & ~0x20
            guard !isAlphanumeric else { throw error("unknown escape") }
            return CodePointSet(next)
        }
    }

    private mutating func hexadecimal(digits: Int) throws(PatternError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<digits {
            guard let character = peek(), let scalar = Unicode.Scalar(character),
                let digit = Character(scalar).hexDigitValue
            else { throw error("\(digits) hexadecimal digits expected") }
            value = value * 16 + UInt32(digit)
            position += 1
        }
        return value
    }

    private mutating func unicodeEscape() throws(PatternError) -> UInt32 {
        if take("{") {
            var value: UInt32 = 0
            while !take("}") {
                value = value * 16 + (try hexadecimal(digits: 1))
                guard value <= CodePointSet.last else { throw error("not a code point") }
            }
            return value
        }
        let unit = try hexadecimal(digits: 4)
        if 0xD800...0xDBFF ~= unit, take("\\u") {
            let low = try hexadecimal(digits: 4)
            guard 0xDC00...0xDFFF ~= low else { throw error("half of a surrogate pair") }
            return 0x10000 + (unit - 0xD800) << 10 + (low - 0xDC00)
        }
        guard !(0xD800...0xDFFF ~= unit) else { throw error("half of a surrogate pair") }
        return unit
    }

    private mutating func property() throws(PatternError) -> CodePointSet {
        guard take("{") else { throw error("'\\p' needs a name in braces") }
        var name = ""
        while let next = peek(), next != Unicode.Scalar("}").value {
            if let scalar = Unicode.Scalar(next) { name.unicodeScalars.append(scalar) }
            position += 1
        }
        guard take("}"), let set = CharacterClasses.property(name) else {
            throw error("unknown character property '\(name)'")
        }
        return set
    }

    private mutating func characterClass() throws(PatternError) -> CodePointSet {
        let isNegated = take("^")
        var set = CodePointSet.empty
        var pieces: [(UInt32, UInt32)] = []
        while !take("]") {
            let (low, lowSet) = try classMember()
            guard peek() == Unicode.Scalar("-").value, let next = peek(1), next != Unicode.Scalar("]").value else {
                if let low { pieces.append((low, low)) } else { set = set.union(lowSet) }
                continue
            }
            position += 1
            let (high, highSet) = try classMember()
            if let low, let high {
                guard low <= high else { throw error("a range's ends are in the wrong order") }
                pieces.append((low, high))
            } else {
                // A class beside '-' is no range: all three stand for themselves.
                set = set.union(lowSet).union(highSet).union(CodePointSet(0x2D))
            }
        }
        set = set.union(CodePointSet(pieces))
        return isNegated ? set.complement : set
    }

    /// One scalar, or nil and a set of several.
    private mutating func classMember() throws(PatternError) -> (UInt32?, CodePointSet) {
        guard let character = peek() else { throw error("'[' without ']'") }
        position += 1
        guard character == Unicode.Scalar("\\").value else { return (character, CodePointSet(character)) }
        let set = try escapedSet(inClass: true)
        if set.ranges.count == 1, set.ranges[0].low == set.ranges[0].high { return (set.ranges[0].low, set) }
        return (nil, set)
    }
}
