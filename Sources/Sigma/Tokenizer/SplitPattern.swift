/// Cuts text into the pieces that are merged by themselves, as the published regular expressions do.
///
/// The expressions (alternatives are tried in order, each greedy and backtracking) cover every text without gaps:
///
///     gpt2   's|'t|'re|'ve|'m|'ll|'d | ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
///     qwen2  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
///     llama3 as qwen2, but \p{N}{1,3}
///     smollm each \p{N} by itself, then gpt2 on what is between them
///     o200k  [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
///            |[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
///            |\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
struct PieceScanner {
    typealias Position = UnsafePointer<UInt8>

    private let pattern: TokenizerDefinition.SplitPattern
    private let classes = ScalarClasses.shared
    private let end: Position

    init(_ pattern: TokenizerDefinition.SplitPattern, end: Position) {
        self.pattern = pattern
        self.end = end
    }

    /// The end of the piece that begins at `start`, which is before `end`.
    @inline(__always)
    func endOfPiece(at start: Position) -> Position {
        switch pattern {
        case .gpt2: endOfGPT2Piece(start)
        case .smollm: endOfSmolLMPiece(start)
        case .qwen2: endOfQwen2Piece(start, digits: 1)
        case .llama3: endOfQwen2Piece(start, digits: 3)
        case .o200k: endOfO200kPiece(start)
        }
    }

    // MARK: The patterns

    private func endOfGPT2Piece(_ start: Position) -> Position {
        if start[0] == Self.apostrophe, let piece = endOfContraction(start, ignoringCase: false) { return piece }
        // Optional space, then a run of one kind.
        let (first, length) = classes.classify(start, before: end)
        var body = start
        var kind = first
        var bodyStart = start + length
        if start[0] == Self.blank, bodyStart < end {
            let (second, secondLength) = classes.classify(bodyStart, before: end)
            if !second.has(.space) {
                body = bodyStart
                kind = second
                bodyStart += secondLength
            }
        }
        if kind.has(.letter) { return endOfRun(bodyStart) { $0.has(.letter) } }
        if kind.has(.number) { return endOfRun(bodyStart) { $0.has(.number) } }
        if !kind.has(.space) { return endOfRun(bodyStart, while: Self.isOther) }
        return endOfSpaces(body)
    }

    /// What stands between two numbers ends there for every alternative of GPT-2's.
    private func endOfSmolLMPiece(_ start: Position) -> Position {
        let (first, length) = classes.classify(start, before: end)
        if first.has(.number) { return start + length }
        if first.has(.space) {
            // White space before a number is one piece: nothing follows it.
            let spaces = endOfRun(start) { $0.has(.space) }
            if spaces < end, classes.classify(spaces, before: end).0.has(.number) { return spaces }
        }
        return endOfGPT2Piece(start)
    }

    /// - Parameter digits: how many make a piece at most.
    @inline(__always)
    private func endOfQwen2Piece(_ start: Position, digits: Int) -> Position {
        if start[0] == Self.apostrophe, let piece = endOfContraction(start, ignoringCase: true) { return piece }
        let (first, length) = classes.classify(start, before: end)
        let next = start + length
        if first.has(.letter) { return endOfRun(next) { $0.has(.letter) } }
        if first.has(.number) { return endOfNumber(next, digits: digits) }
        if !first.has(.newline), next < end {
            let (second, secondLength) = classes.classify(next, before: end)
            if second.has(.letter) { return endOfRun(next + secondLength) { $0.has(.letter) } }
        }
        if let piece = endOfOthers(start, first, next) {
            return endOfBytes(piece) { $0 == Self.lineFeed || $0 == Self.carriageReturn }
        }
        return endOfLines(start) ?? endOfSpaces(start)
    }

    private func endOfO200kPiece(_ start: Position) -> Position {
        let (first, length) = classes.classify(start, before: end)
        let next = start + length
        if first.has(.number) { return endOfNumber(next, digits: 3) }
        if let word = endOfO200kWord(start, first, next) {
            guard word < end, word[0] == Self.apostrophe else { return word }
            return endOfContraction(word, ignoringCase: true) ?? word
        }
        if let piece = endOfOthers(start, first, next) {
            return endOfBytes(piece) { $0 == Self.lineFeed || $0 == Self.carriageReturn || $0 == Self.slash }
        }
        return endOfLines(start) ?? endOfSpaces(start)
    }

    /// The first two alternatives of o200k without their contraction.
    private func endOfO200kWord(_ start: Position, _ first: ScalarClass, _ next: Position) -> Position? {
        let mayPrefix = !first.has([.letter, .number, .newline])
        let body = mayPrefix ? next : start
        if let word = endOfCapitalizedWord(body) { return word }
        // A mark is both a prefix and a word of its own.
        if mayPrefix, first.has(.beginning) { return next }
        // Only capitals: the second alternative.
        let capitals = endOfRun(body) { $0.has(.beginning) }
        return capitals > body ? capitals : nil
    }

    /// `beginning* ending+`: the run of beginnings gives back as little as it must.
    @inline(__always)
    private func endOfCapitalizedWord(_ body: Position) -> Position? {
        var position = body
        var endOfLastBoth: Position?
        while position < end {
            let (kind, length) = classes.classify(position, before: end)
            if !kind.has(.beginning) {
                if kind.has(.ending) { return endOfRun(position + length) { $0.has(.ending) } }
                break
            }
            position += length
            if kind.has(.ending) { endOfLastBoth = position }
        }
        return endOfLastBoth
    }

    // MARK: Alternatives that patterns share

    /// `\p{N}{1,digits}` behind its first.
    @inline(__always)
    private func endOfNumber(_ next: Position, digits: Int) -> Position {
        var piece = next
        for _ in 1..<digits where piece < end {
            let (digit, length) = classes.classify(piece, before: end)
            if !digit.has(.number) { break }
            piece += length
        }
        return piece
    }

    /// `(?:'s|'t|'re|'ve|'m|'ll|'d)` at an apostrophe. Ignoring case, U+017F (long s) is an s too, by Unicode's case folding.
    private func endOfContraction(_ start: Position, ignoringCase: Bool) -> Position? {
        guard end - start >= 2 else { return nil }
        let fold: UInt8 = ignoringCase ? 0x20 : 0
        let first = start[1] | fold
        switch first {
        case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return start + 2
        case UInt8(ascii: "r"), UInt8(ascii: "v"), UInt8(ascii: "l"):
            let second = first == UInt8(ascii: "l") ? first : UInt8(ascii: "e")
            return end - start >= 3 && start[2] | fold == second ? start + 3 : nil
        default:
            let isLongS = ignoringCase && end - start >= 3 && start[1] == 0xc5 && start[2] == 0xbf
            return isLongS ? start + 3 : nil
        }
    }

    /// ` ?[^\s\p{L}\p{N}]+`
    @inline(__always)
    private func endOfOthers(_ start: Position, _ first: ScalarClass, _ next: Position) -> Position? {
        if Self.isOther(first) { return endOfRun(next, while: Self.isOther) }
        guard start[0] == Self.blank, next < end else { return nil }
        let (second, length) = classes.classify(next, before: end)
        return Self.isOther(second) ? endOfRun(next + length, while: Self.isOther) : nil
    }

    /// `\s*[\r\n]+`: white space up to the last line end in it.
    private func endOfLines(_ start: Position) -> Position? {
        var position = start
        var line: Position?
        while position < end {
            let (kind, length) = classes.classify(position, before: end)
            if !kind.has(.space) { break }
            position += length
            if kind.has(.newline) { line = position }
        }
        return line
    }

    /// `\s+(?!\S)|\s+`: white space without its last character, which belongs to what follows, unless there is only one or the
    /// text ends.
    private func endOfSpaces(_ start: Position) -> Position {
        var position = start
        var last = start
        while position < end {
            let (kind, length) = classes.classify(position, before: end)
            if !kind.has(.space) { return last > start ? last : position }
            last = position
            position += length
        }
        return position
    }

    // MARK: Runs

    @inline(__always)
    private func endOfRun(_ start: Position, while belongs: (ScalarClass) -> Bool) -> Position {
        var position = start
        while position < end {
            let (kind, length) = classes.classify(position, before: end)
            if !belongs(kind) { break }
            position += length
        }
        return position
    }

    @inline(__always)
    private func endOfBytes(_ start: Position, while belongs: (UInt8) -> Bool) -> Position {
        var position = start
        while position < end, belongs(position[0]) { position += 1 }
        return position
    }

    /// `[^\s\p{L}\p{N}]`
    @inline(__always)
    private static func isOther(_ kind: ScalarClass) -> Bool { !kind.has([.letter, .number, .space]) }

    private static let apostrophe = UInt8(ascii: "'")
    private static let blank = UInt8(ascii: " ")
    private static let slash = UInt8(ascii: "/")
    private static let lineFeed = UInt8(ascii: "\n")
    private static let carriageReturn = UInt8(ascii: "\r")
}
