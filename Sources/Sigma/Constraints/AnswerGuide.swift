/// Where one answer stands under its constraint, its thinking included: which tokens may come next.
///
/// Thinking is free, but for its end: a token that completes `</think>` may come only if the constraint takes what follows the tag in it, and the
/// answer may not end before it has begun. Behind the tag a few line ends may come, which are no part of the answer. Text that calls may follow is
/// free in the same way: a token that completes what shows a call may come only if a call can go on with what follows in it.
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
        /// Free text of the answer; so much of what shows a call is there.
        case text(CallOpening.Progress)
        case answer
    }

    /// Bytes of line ends that may come between thinking and answer: a model must not fill its budget with them.
    static let mostSeparators = 4

    private let constraint: TokenConstraint
    private var tokens: AnswerVocabulary { constraint.tokens }
    private var phase: Phase
    /// Of the answer; in an undetermined beginning, as if it were one.
    private var state: ConstraintState?
    /// Whether an undetermined beginning can be an answer.
    private var canAnswer = true
    /// Line ends there are no part of the answer, so a call without tags may follow them.
    private var isBehindThinking = false
    private let pool: MaskPool
    private var current: TokenMask?
    /// Of thinking in which no part of the tag is there: nearly always.
    private var free: TokenMask?
    /// Of text in which no part of what shows a call is there: nearly always.
    private var freeText: TokenMask?

    package init(_ constraint: TokenConstraint, start: Start) {
        self.constraint = constraint
        state = constraint.compiled?.begin()
        pool = MaskPool(vocabularySize: constraint.tokens.thinking.vocabularySize)
        phase =
            switch start {
            case .undetermined: .undetermined(matched: 0, isBehindSpace: false)
            case .thinking: .thinking(matched: 0)
            case .answer: constraint.reach == .calls ? .text(constraint.opening.start) : .answer
            }
    }

    // MARK: - Text

    /// Takes in a token that the mask allows.
    package mutating func append(_ id: Int32) {
        current = nil
        let isTaken = take(tokens.text(of: id)[...])
        precondition(isTaken, "a token was chosen that the constraint does not take")
    }

    /// False, and the guide is of no more use, where the constraint does not take the bytes.
    private mutating func take(_ bytes: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
        switch phase {
        case .undetermined(var matched, var isBehindSpace):
            if constraint.reach == .wholeAnswer { canAnswer = canAnswer && state?.advance(bytes) == true }
            for (index, byte) in zip(bytes.indices, bytes) {
                if matched == 0, byte.isSpace {
                    isBehindSpace = true
                } else if byte == AnswerVocabulary.openTag[matched] {
                    matched += 1
                    guard matched == AnswerVocabulary.openTag.count else { continue }
                    // It was thinking: the answer is still to begin.
                    state = constraint.compiled?.begin()
                    canAnswer = true
                    phase = .thinking(matched: 0)
                    return take(bytes[(index + 1)...])
                } else {
                    phase = .undetermined(matched: matched, isBehindSpace: isBehindSpace)
                    beginAnswer()
                    return constraint.reach == .wholeAnswer ? canAnswer : take(bytes[index...])
                }
            }
            phase = .undetermined(matched: matched, isBehindSpace: isBehindSpace)
            return true
        case .thinking(var matched):
            for (index, byte) in zip(bytes.indices, bytes)
            where AnswerVocabulary.closeTag.match(byte, &matched) {
                endThinking()
                return take(bytes[(index + 1)...])
            }
            phase = .thinking(matched: matched)
            return true
        case .separators(let count):
            let lineEnds = bytes.prefix { $0.isLineEnd }
            guard count + lineEnds.count <= Self.mostSeparators else { return false }
            phase = .separators(count + lineEnds.count)
            guard lineEnds.count < bytes.count else { return true }
            phase = .answer
            return take(bytes[lineEnds.endIndex...])
        case .text(var progress):
            let bytes = isBehindThinking && progress == .head([]) ? bytes.drop { $0.isLineEnd } : bytes
            for (index, byte) in zip(bytes.indices, bytes) {
                guard let opening = constraint.opening.take(byte, &progress) else { continue }
                phase = .answer
                return state?.advance(opening) == true && take(bytes[(index + 1)...])
            }
            phase = .text(progress)
            return true
        case .answer: return bytes.isEmpty || state?.advance(bytes) == true
        }
    }

    /// Whether the token's bytes may come next.
    private func takes(_ id: Int32) -> Bool {
        var draft = self
        return draft.take(tokens.text(of: id)[...])
    }

    /// The thinking has ended: with its tag, or by decision.
    package mutating func endThinking() {
        current = nil
        isBehindThinking = true
        phase =
            constraint.reach == .calls
            ? .text(constraint.opening.start) : constraint.dropsFirstLineEnds ? .separators(0) : .answer
    }

    /// An undetermined beginning was the answer's.
    package mutating func beginAnswer() {
        guard case .undetermined(let matched, let isBehindSpace) = phase else { return }
        current = nil
        phase = constraint.reach == .calls ? .text(progress(behind: matched, isBehindSpace)) : .answer
    }

    /// How much of what shows a call is there where so many bytes of `<think>` are.
    private func progress(behind matched: Int, _ isBehindSpace: Bool) -> CallOpening.Progress {
        var progress = constraint.opening.start
        for byte in (isBehindSpace ? [0x20] : []) + AnswerVocabulary.openTag.prefix(matched) {
            _ = constraint.opening.take(byte, &progress)
        }
        return progress
    }

    /// Whether the answer may end here.
    package var allowsEnd: Bool {
        switch phase {
        case .thinking: false
        case .text: true
        case .undetermined where constraint.reach == .calls: true
        default: canAnswer && state?.allowsEnd == true
        }
    }

    /// Whether the answer is complete, and nothing may follow.
    package mutating func mustEnd() -> Bool {
        guard phase == .answer, allowsEnd else { return false }
        return mask().count == tokens.stopTokens.count
    }

    /// Bytes of the answer that must come next, with the blanks that the answer had before in such places: a guess, and mostly right.
    package func forcedBytes(limit: Int) -> [UInt8] {
        guard phase == .answer else { return [] }
        return state?.forcedBytes(limit: limit) ?? []
    }

    // MARK: - Masks

    /// The tokens that may come next, the end of the answer among them where the text is complete.
    package mutating func mask() -> TokenMask {
        if let current { return current }
        let mask =
            switch phase {
            case .undetermined(let matched, let isBehindSpace):
                constraint.reach == .calls
                    ? freeBeginningMask(matched, isBehindSpace) : beginningMask(matched, isBehindSpace)
            case .thinking(let matched): thinkingMask(matched)
            case .separators: separatorMask()
            case .text(let progress): textMask(progress)
            case .answer: pool.mask { fill($0) }
            }
        current = mask
        return mask
    }

    /// What the constraint allows in the answer.
    private mutating func fill(_ words: UnsafeMutableBufferPointer<UInt64>) {
        guard state != nil else { return words.update(repeating: 0) }
        state?.mask(into: words)
        if state?.allowsEnd == true { for id in tokens.stopTokens { words.set(id) } }
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

    /// Free text, or thinking.
    private mutating func freeBeginningMask(_ matched: Int, _ isBehindSpace: Bool) -> TokenMask {
        let openers = tokens.openers(constraint.opening, behind: progress(behind: matched, isBehindSpace))
        return mask(of: tokens.choosable, but: tokens.tagBeginnings[matched] + openers)
    }

    /// All but the tokens that end the thinking in a way that the constraint does not take.
    private mutating func thinkingMask(_ matched: Int) -> TokenMask {
        if matched == 0, let free { return free }
        let mask = mask(of: tokens.thinking, but: tokens.tagEnds[matched])
        if matched == 0 { free = mask }
        return mask
    }

    /// All but the tokens that begin a call in a way in which none can go on.
    private mutating func textMask(_ progress: CallOpening.Progress) -> TokenMask {
        let isFree = progress == .tag(0) || progress == .text
        if isFree, let freeText { return freeText }
        let mask = mask(of: tokens.choosable, but: tokens.openers(constraint.opening, behind: progress))
        if isFree { freeText = mask }
        return mask
    }

    /// All tokens of `base` but those of the suspects that may not come.
    private func mask(of base: TokenMask, but suspects: [Int32]) -> TokenMask {
        let refused = suspects.filter { !takes($0) }
        guard !refused.isEmpty else { return base }
        return pool.mask { words in
            for index in words.indices { words[index] = base.words[index] }
            for id in refused { words.clear(id) }
        }
    }

    private mutating func separatorMask() -> TokenMask {
        let more = tokens.lineEndTokens.filter { takes($0) }
        return pool.mask { words in
            fill(words)
            for id in more { words.set(id) }
        }
    }
}

extension Slice<UnsafeBufferPointer<UInt8>> {
    fileprivate var hasCloseTag: Bool {
        var matched = 0
        return contains { AnswerVocabulary.closeTag.match($0, &matched) }
    }
}
