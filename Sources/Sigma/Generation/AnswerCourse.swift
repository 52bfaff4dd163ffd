/// What an answer's tokens have come to: its text, what it may still have, its constraint and its penalties. A value: a draft is walked on a copy.
struct AnswerCourse {
    /// How an answer goes on behind a token.
    enum Next: Equatable {
        /// The token is computed next.
        case token
        /// The thinking budget has ended: the closing phrase and `</think>` follow the token.
        case closing
        case end(FinishReason, atStopString: Bool = false)
    }

    private let options: GenerationOptions
    private let stopTokens: Set<Int32>
    private let choosable: TokenMask
    private let positionLimit: Int
    private(set) var text: AnswerText
    private(set) var guide: AnswerGuide?
    /// What is added to the next token's logits.
    private(set) var additions = LogitAdditions()
    /// Generated tokens and how often, where penalties want to know.
    private var counts: [Int32: Int] = [:]
    /// Tokens whose phase is known.
    private(set) var thinkingTokens = 0
    private(set) var answerTokens = 0

    /// - Parameter positionLimit: tokens that the sequence may have.
    init(_ request: GenerationRequest, _ engine: Engine, positionLimit: Int) {
        options = request.options
        stopTokens = engine.stopTokens
        choosable = engine.choosable
        self.positionLimit = positionLimit
        text = AnswerText(request, engine.tokenizer)
        guide = request.constraint.map { AnswerGuide($0, start: request.start.forGuide) }
        for (id, bias) in request.options.logitBias { additions.add(Float(bias), to: id) }
    }

    /// What may be chosen next.
    mutating func mask() -> TokenMask { guide?.mask() ?? choosable }

    /// Takes the next token in.
    ///
    /// - Parameters:
    ///   - position: of the token in the sequence.
    ///   - give: takes the tokens whose phase is known now.
    mutating func append(_ token: AnswerToken, position: Int, _ give: (AnswerToken) -> Void) -> Next {
        if stopTokens.contains(token.id) { return .end(.stop) }
        penalize(token.id)
        var given = (thinking: 0, answer: 0)
        let isStopped = text.append(token) {
            if $0.phase == .answer { given.answer += 1 } else { given.thinking += 1 }
            give($0)
        }
        thinkingTokens += given.thinking
        answerTokens += given.answer
        guide?.append(token.id)
        if text.isAnswer { guide?.beginAnswer() }

        if isStopped { return .end(.stop, atStopString: true) }
        if guide?.mustEnd() == true { return .end(.stop) }
        if answerTokens >= options.maximumTokens { return .end(.length) }
        if position + 1 >= positionLimit { return .end(.context) }
        return text.isThinking && thinkingTokens >= options.thinkingBudget ? .closing : .token
    }

    /// The thinking ends by decision.
    /// - Returns: what of it was held back.
    mutating func closeThinking() -> String {
        guide?.endThinking()
        return text.closeThinking()
    }

    /// The end: gives out the tokens that still waited.
    /// - Returns: text that was held back and counts after all.
    mutating func finish(atStopString: Bool, _ give: (AnswerToken) -> Void) -> AnswerToken? {
        var given = 0
        defer { answerTokens += given }
        // Tokens that are still undecided at the end are the answer's.
        return text.finish(atStopString: atStopString) {
            given += 1
            give($0)
        }
    }

    private mutating func penalize(_ id: Int32) {
        guard options.frequencyPenalty != 0 || options.presencePenalty != 0 else { return }
        let before = counts[id, default: 0]
        counts[id] = before + 1
        additions.add(Float(-options.frequencyPenalty - (before == 0 ? options.presencePenalty : 0)), to: id)
    }
}

extension ThinkingSplitter.State {
    /// The same in a constraint's words.
    fileprivate var forGuide: AnswerGuide.Start {
        switch self {
        case .undetermined: .undetermined
        case .thinking: .thinking
        case .answer: .answer
        }
    }
}
