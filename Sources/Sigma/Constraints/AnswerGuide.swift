/// Where one answer stands under its constraint, its thinking included: which tokens may come next.
///
/// Thinking is free, but for its end: a token that completes `</think>` may come only if the constraint takes what follows the tag in it, and the
/// answer may not end before it has begun. Behind the tag a few line ends may come, which are no part of the answer.
package struct AnswerGuide {
    /// Where the text begins.
    package enum Start { case undetermined, thinking, answer }

    private enum Phase: Equatable {
        /// `<think>` may follow, or the answer; so many of the tag's bytes are there, behind white space or not.
        case undetermined(matched: Int, isBehindSpace: Bool)
        /// So many bytes of `</think>` are there.
        case thinking(matched: Int)
        /// Behind the tag, and so many line ends.
        case separators(Int)
        case answer
    }

    /// Bytes of line ends that may come between thinking and answer: a model must not fill its budget with them.
    static let mostSeparators = 4

    private let constraint: TokenConstraint
    private var tokens: AnswerVocabulary { constraint.tokens }
    private var phase: Phase
    /// Of the answer; in an undetermined beginning, as if it were one.
    private var state: ConstraintState
    /// Whether an undetermined beginning can be an answer.
    private var canAnswer = true
    private let pool: MaskPool
    private var current: TokenMask?
    /// Of thinking in which no part of the tag is there: nearly always.
    private var free: TokenMask?

    package init(_ constraint: TokenConstraint, start: Start) {
        self.constraint = constraint
        state = constraint.compiled.begin()
        pool = MaskPool(vocabularySize: constraint.tokens.thinking.vocabularySize)
        phase =
            switch start {
            case .undetermined: .undetermined(matched: 0, isBehindSpace: false)
            case .thinking: .thinking(matched: 0)
            case .answer: .answer
            }
    }

    // MARK: - Text

    /// Takes in a token that the mask allows.
    package mutating func append(_ id: Int32) {
        current = nil
        append(tokens.text(of: id)[...])
    }

    private mutating func append(_ bytes: Slice<UnsafeBufferPointer<UInt8>>) {
        switch phase {
        case .undetermined(var matched, var isBehindSpace):
            canAnswer = canAnswer && state.advance(bytes)
            for (index, byte) in zip(bytes.indices, bytes) {
                if matched == 0, byte.isSpace {
                    isBehindSpace = true
                } else if byte == AnswerVocabulary.openTag[matched] {
                    matched += 1
                    guard matched == AnswerVocabulary.openTag.count else { continue }
                    // It was thinking: the answer is still to begin.
                    state = constraint.compiled.begin()
                    canAnswer = true
                    phase = .thinking(matched: 0)
                    return append(bytes[(index + 1)...])
                } else {
                    return beginAnswer()
                }
            }
            phase = .undetermined(matched: matched, isBehindSpace: isBehindSpace)
        case .thinking(var matched):
            for (index, byte) in zip(bytes.indices, bytes)
            where AnswerVocabulary.closeTag.match(byte, &matched) {
                endThinking()
                return append(bytes[(index + 1)...])
            }
            phase = .thinking(matched: matched)
        case .separators(let count):
            let lineEnds = bytes.prefix { $0.isLineEnd }
            phase = .separators(count + lineEnds.count)
            guard lineEnds.count < bytes.count else { return }
            phase = .answer
            append(bytes[lineEnds.endIndex...])
        case .answer:
            guard !bytes.isEmpty else { return }
            let isTaken = state.advance(bytes)
            precondition(isTaken, "a token was chosen that the constraint does not take")
        }
    }

    /// The thinking has ended: with its tag, or by decision.
    package mutating func endThinking() {
        current = nil
        phase = constraint.dropsFirstLineEnds ? .separators(0) : .answer
    }

    /// An undetermined beginning was the answer's.
    package mutating func beginAnswer() {
        guard case .undetermined = phase else { return }
        current = nil
        phase = .answer
    }

    /// Whether the answer may end here.
    package var allowsEnd: Bool {
        if case .thinking = phase { return false }
        return canAnswer && state.allowsEnd
    }

    /// Whether the answer is complete, and nothing may follow.
    package mutating func mustEnd() -> Bool {
        guard phase == .answer, allowsEnd else { return false }
        return mask().count == tokens.stopTokens.count
    }

    /// Bytes of the answer that must come next, with the blanks that the answer had before in such places: a guess, and mostly right.
    package func forcedBytes(limit: Int) -> [UInt8] {
        guard phase == .answer else { return [] }
        return state.forcedBytes(limit: limit)
    }

    // MARK: - Masks

    /// The tokens that may come next, the end of the answer among them where the text is complete.
    package mutating func mask() -> TokenMask {
        if let current { return current }
        let mask =
            switch phase {
            case .undetermined(let matched, let isBehindSpace): beginningMask(matched, isBehindSpace)
            case .thinking(let matched): thinkingMask(matched)
            case .separators(let count): separatorMask(count)
            case .answer: pool.mask { fill($0) }
            }
        current = mask
        return mask
    }

    /// What the constraint allows in the answer.
    private mutating func fill(_ words: UnsafeMutableBufferPointer<UInt64>) {
        state.mask(into: words)
        if state.allowsEnd { for id in tokens.stopTokens { words.set(id) } }
    }

    /// The answer, or a part of `<think>` where nothing stands before it.
    private mutating func beginningMask(_ matched: Int, _ isBehindSpace: Bool) -> TokenMask {
        let tag = AnswerVocabulary.openTag[matched...]
        return pool.mask { words in
            if canAnswer { fill(words) } else { words.update(repeating: 0) }
            guard !isBehindSpace else { return }
            for id in tokens.tagBeginnings[matched] where !tokens.text(of: id).dropFirst(tag.count).hasCloseTag {
                words.set(id)
            }
        }
    }

    /// All but the tokens that end the thinking in a way that the constraint does not take.
    private mutating func thinkingMask(_ matched: Int) -> TokenMask {
        if matched == 0, let free { return free }
        let refused = tokens.tagEnds[matched].filter { !takes(tokens.text(of: $0.id)[$0.rest...]) }
        let base = tokens.thinking
        let mask =
            refused.isEmpty
            ? base
            : pool.mask { words in
                for index in words.indices { words[index] = base.words[index] }
                for end in refused { words.clear(end.id) }
            }
        if matched == 0 { free = mask }
        return mask
    }

    private mutating func separatorMask(_ count: Int) -> TokenMask {
        let more = tokens.lineEndTokens.filter { takes(tokens.text(of: $0)[...], behind: count) }
        return pool.mask { words in
            fill(words)
            for id in more { words.set(id) }
        }
    }

    /// Whether bytes behind `</think>` can be the answer's first: line ends, and what the constraint takes.
    private func takes(_ bytes: Slice<UnsafeBufferPointer<UInt8>>, behind count: Int = 0) -> Bool {
        var rest = bytes
        if constraint.dropsFirstLineEnds {
            rest = bytes.drop { $0.isLineEnd }
            guard count + bytes.count - rest.count <= Self.mostSeparators else { return false }
        }
        guard !rest.isEmpty else { return true }
        var state = constraint.compiled.begin()
        return state.advance(rest)
    }
}

extension Slice<UnsafeBufferPointer<UInt8>> {
    fileprivate var hasCloseTag: Bool {
        var matched = 0
        return contains { AnswerVocabulary.closeTag.match($0, &matched) }
    }
}
