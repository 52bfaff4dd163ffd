/// A model's tokens as constraints see them: their bytes, which of them end an answer, and which complete a tag. Immutable, and shared by all
/// constraints on the model's answers.
package final class AnswerVocabulary: Sendable {
    /// Begins and ends thinking.
    static let openTag = Array("<think>".utf8)
    static let closeTag = Array("</think>".utf8)
    /// Begins a call of a function, in all forms that have tags.
    static let callTag = Array("<tool_call>".utf8)

    let tokenizer: Tokenizer
    package let vocabulary: Vocabulary
    /// Tokens that end an answer, ascending.
    let stopTokens: [Int32]
    /// What may be chosen where nothing is constrained.
    let choosable: TokenMask
    /// What may be chosen in thinking: all but the end of the answer.
    let thinking: TokenMask
    /// [8]: by so many bytes of `</think>` that are there already, the tokens that complete it.
    let tagEnds: [[Int32]]
    /// [11]: by so many bytes of `<tool_call>` that are there already, the tokens that complete it.
    let callTagEnds: [[Int32]]
    /// [7]: by so many bytes of `<think>` that are there already, the tokens that are its next bytes, or begin with all that are missing.
    let tagBeginnings: [[Int32]]
    /// Tokens that begin with a line end.
    let lineEndTokens: [Int32]

    /// - Parameters:
    ///   - choosable: tokens that may be chosen where nothing constrains them.
    ///   - stopTokens: tokens that end an answer.
    package init(_ tokenizer: Tokenizer, choosable: TokenMask, stopTokens: Set<Int32>) {
        self.tokenizer = tokenizer
        let size = choosable.vocabularySize
        let stops = stopTokens.filter { (0..<Int32(size)).contains($0) && choosable.allows(Int($0)) }.sorted()
        self.stopTokens = stops
        self.choosable = choosable
        thinking = TokenMask(vocabularySize: size) { words in
            for index in words.indices { words[index] = choosable.words[index] }
            for id in stops { words.clear(id) }
        }
        var tokens = [[UInt8]?](repeating: nil, count: size)
        var tagEnds = [[Int32]](repeating: [], count: Self.closeTag.count)
        var callTagEnds = [[Int32]](repeating: [], count: Self.callTag.count)
        var tagBeginnings = [[Int32]](repeating: [], count: Self.openTag.count)
        var lineEndTokens: [Int32] = []
        // Control tokens are no text, and stop tokens are none of the answer's.
        for id in 0..<Int32(size) where !stopTokens.contains(id) && !tokenizer.isControl(id) {
            let bytes = tokenizer.bytes(of: id)
            guard let first = bytes.first else { continue }
            tokens[Int(id)] = Array(bytes)
            if first.isLineEnd { lineEndTokens.append(id) }
            for start in Self.openTag.indices where first == Self.openTag[start] {
                let missing = Self.openTag[start...]
                if missing.starts(with: bytes) || bytes.starts(with: missing) { tagBeginnings[start].append(id) }
            }
            // Both tags end so.
            guard bytes.contains(UInt8(ascii: ">")) else { continue }
            for start in Self.closeTag.indices where Self.closeTag.isCompleted(by: bytes, behind: start) {
                tagEnds[start].append(id)
            }
            for start in Self.callTag.indices where Self.callTag.isCompleted(by: bytes, behind: start) {
                callTagEnds[start].append(id)
            }
        }
        vocabulary = Vocabulary(tokens: tokens)
        self.tagEnds = tagEnds
        self.callTagEnds = callTagEnds
        self.tagBeginnings = tagBeginnings
        self.lineEndTokens = lineEndTokens
    }

    /// The tokens that complete the opening of a call behind a text that ends with so much of it.
    func openers(_ opening: CallOpening, behind progress: CallOpening.Progress) -> [Int32] {
        switch progress {
        case .text: return []
        case .tag(let matched): return callTagEnds[matched]
        case .head:
            // Few tokens go on with a head, and their first bytes show it.
            let goesOn = (UInt8.min...UInt8.max).map { byte in
                var progress = progress
                return opening.take(byte, &progress) != nil || progress != .text
            }
            return (0..<Int32(choosable.vocabularySize)).filter { id in
                let bytes = text(of: id)
                guard let first = bytes.first, goesOn[Int(first)] else { return false }
                var progress = progress
                return bytes.contains { opening.take($0, &progress) != nil }
            }
        }
    }

    /// The token's bytes as text; empty for control tokens.
    func text(of id: Int32) -> UnsafeBufferPointer<UInt8> {
        tokenizer.isControl(id) ? UnsafeBufferPointer(start: nil, count: 0) : tokenizer.bytes(of: id)
    }
}

extension [UInt8] {
    /// Whether the tag, of which so many bytes end a text, is complete somewhere in the bytes that follow.
    fileprivate func isCompleted(by bytes: UnsafeBufferPointer<UInt8>, behind count: Int) -> Bool {
        var matched = count
        return bytes.contains { match($0, &matched) }
    }

    /// Takes a byte of a text in which a tag is looked for; a tag's first byte is nowhere else in it.
    /// - Parameter matched: so many of the tag's bytes end the text.
    /// - Returns: whether the tag is complete.
    func match(_ byte: UInt8, _ matched: inout Int) -> Bool {
        if byte == self[matched] {
            matched += 1
        } else {
            matched = byte == self[0] ? 1 : 0
        }
        guard matched == count else { return false }
        matched = 0
        return true
    }
}

extension UInt8 {
    var isLineEnd: Bool { self == 0x0A || self == 0x0D }
    /// White space, as before `<think>`.
    var isSpace: Bool { self == 0x20 || (0x09...0x0D).contains(self) }
}

extension UnsafeMutableBufferPointer<UInt64> {
    func set(_ id: Int32) { self[Int(id) >> 6] |= 1 << UInt64(id & 63) }
    func clear(_ id: Int32) { self[Int(id) >> 6] &= ~(1 << UInt64(id & 63)) }
}
