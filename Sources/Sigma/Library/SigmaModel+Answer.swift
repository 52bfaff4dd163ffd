extension SigmaModel {
    /// An answer to a conversation that the caller keeps: for programs that need tokens, log-probabilities or many answers at once, where a
    /// `Session` would hold the conversation.
    ///
    ///     for try await event in try model.answer(to: [Turn(.user, "What is 12 + 35?")]) {
    ///         if case .token(let token) = event, token.phase == .answer { print(token.text, terminator: "") }
    ///     }
    ///
    /// Work begins at once. Answers of one model share its steps, and none changes another.
    ///
    /// - Parameters:
    ///   - turns: the conversation, oldest first; it ends with a question.
    ///   - instructions: the system prompt; empty: none.
    ///   - options: how the answer is made.
    ///   - logProbabilities: of so many of the likeliest tokens at each step, in the model's own distribution; nil: none. With
    ///     `maximumTokens` 0: of every position of the prompt.
    ///   - constraint: what the answer, never its thinking, must be; nil: anything. A new one is compiled before this returns: at most for a
    ///     second, and 0.5 to 0.8 s more for the first constraint of a model with 200,000 tokens.
    /// - Throws: `SigmaError`: `.usage` for options that make no sense, a constraint that cannot be honoured exactly, or a conversation longer than the context, `.damaged` for a model without
    ///   a tokenizer or chat format, `.unavailable` if memory has no room for the prompt. (In the stream) as `Answer.AsyncIterator.next()`.
    public func answer(
        to turns: [Turn], instructions: String = "", options: GenerationOptions = GenerationOptions(),
        logProbabilities: Int? = nil, constraint: Constraint? = nil
    ) throws -> Answer {
        let prompt = try engine.prompt(turns: turns, system: instructions, options: options)
        return try answer(
            GenerationRequest(
                tokens: prompt.tokens, start: prompt.start, options: options, logProbabilityCount: logProbabilities,
                constraint: constraint.map { try engine.constraints.compiled($0) }))
    }

    /// The continuation of tokens as they are: without template and thinking.
    ///
    /// - Parameters:
    ///   - tokens: ids of the model's vocabulary.
    ///   - options: how it goes on.
    ///   - logProbabilities: as for conversations.
    ///   - constraint: as for conversations.
    /// - Throws: `SigmaError` as for conversations.
    public func answer(
        toTokens tokens: [Int32], options: GenerationOptions = GenerationOptions(), logProbabilities: Int? = nil,
        constraint: Constraint? = nil
    ) throws -> Answer {
        try answer(
            GenerationRequest(
                tokens: tokens, start: .answer, options: options, logProbabilityCount: logProbabilities,
                constraint: constraint.map { try engine.constraints.compiled($0) }))
    }

    private func answer(_ request: GenerationRequest) throws -> Answer {
        if let count = request.logProbabilityCount, !(0...engine.vocabularySize).contains(count) {
            throw SigmaError(
                .usage, "log-probabilities can be asked for of 0 to \(engine.vocabularySize) tokens, and not \(count)")
        }
        return try engine.answer(request, on: engine.makeTimeline(kvType: loadConfiguration.kvType))
    }
}
