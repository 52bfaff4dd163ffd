import Sigma

/// What a request needs of a model to become prompts in tokens. Immutable: any thread may use it beside the engine's.
package struct RequestContext: Sendable {
    package var tokenizer: Tokenizer?
    package var chatFormat: ChatFormat?
    package var vocabularySize: Int
    /// Tokens that a sequence may have.
    package var positionLimit: Int
    /// Compiles what answers must be.
    package var constraints: AnswerConstraints
    package var drafts = DraftMode.auto

    package init(
        tokenizer: Tokenizer?, chatFormat: ChatFormat?, vocabularySize: Int, positionLimit: Int,
        constraints: AnswerConstraints
    ) {
        self.tokenizer = tokenizer
        self.chatFormat = chatFormat
        self.vocabularySize = vocabularySize
        self.positionLimit = positionLimit
        self.constraints = constraints
    }

    package init(_ engine: Engine, kvType: KVType, drafts: DraftMode = .auto) {
        self.init(
            tokenizer: engine.tokenizer, chatFormat: engine.chatFormat, vocabularySize: engine.vocabularySize,
            positionLimit: engine.positionLimit(kvType: kvType), constraints: engine.constraints)
        self.drafts = drafts
    }

    /// What the answers must be, compiled on this thread: a new constraint may take a second.
    ///
    /// - Parameter knowsCalls: whether there are calls in the conversation, whatever may be called now.
    private func constraint(of settings: AnswerSettings, knowsCalls: Bool) throws(RequestError) -> TokenConstraint? {
        if let tools = settings.tools, tools.choice != .none { return try constraint(of: tools, settings.constraint) }
        guard let wanted = settings.constraint else {
            guard settings.tools != nil || knowsCalls else { return nil }
            let names = settings.tools?.functions.map(\.name) ?? []
            do { return try constraints.withoutCalls(CallOpening(form: callForm, names: names)) } catch {
                throw Self.cannotConstrain("tools")
            }
        }
        do {
            return try constraints.compiled(wanted.constraint)
        } catch {
            guard let error = error as? SigmaError else {
                throw RequestError(status: 500, "the constraint could not be compiled", param: wanted.param)
            }
            guard error.kind == .usage else { throw Self.cannotConstrain(wanted.param) }
            throw Self.cannotCompile(wanted.param, error.item, error.message)
        }
    }

    /// How the model writes calls.
    private var callForm: CallForm { chatFormat?.tools.calls ?? .taggedJSON }

    /// - Parameter format: what answers without calls must be. Where calls are asked for there are none.
    private func constraint(of tools: ToolSet, _ format: BodyConstraint?) throws(RequestError) -> TokenConstraint {
        let calls = tools.calls(callForm)
        do {
            guard tools.choice == .auto else { return try constraints.compiled(calls, reach: .wholeAnswer) }
            guard let format else { return try constraints.compiled(calls, reach: .calls) }
            return try constraints.compiled(calls, or: format.constraint)
        } catch {
            guard let error = error as? ConstraintError else { throw Self.cannotConstrain("tools") }
            let callable = tools.callable
            let answersParam = error.isAnswers ? format?.param : nil
            let param = answersParam ?? error.function.map { callable[$0].param } ?? "tools"
            throw Self.cannotCompile(param, error.place, error.message)
        }
    }

    private static func cannotCompile(_ param: String, _ place: String?, _ message: String) -> RequestError {
        let place = place.map { "\($0): " } ?? ""
        return RequestError(
            status: 400, SigmaError.printable("\(param): \(place)\(message)"), code: "invalid_constraint", param: param)
    }

    private static func cannotConstrain(_ param: String) -> RequestError {
        RequestError(
            status: 400, "\(param): the model has no tokenizer, so its answers cannot be constrained",
            code: "unsupported_by_model", param: param)
    }

    /// A prompt's requests, one for each answer.
    ///
    /// - Parameters:
    ///   - scoresPrompt: whether log-probabilities, where they are asked for, are also the prompt's.
    ///   - param: the field that the prompt is from.
    fileprivate func requests(
        for prompt: Prompt, _ settings: AnswerSettings, scoresPrompt: Bool, knowsCalls: Bool = false, param: String
    ) throws(RequestError) -> [GenerationRequest] {
        let count = prompt.tokens.count
        guard count > 0 else { throw RequestError.invalid(param, "is empty, so there is nothing to continue") }
        if let id = prompt.tokens.first(where: { $0 < 0 || Int($0) >= vocabularySize }) {
            throw RequestError.invalid(param, "token id \(id) is outside the vocabulary of \(vocabularySize)")
        }
        let generates = settings.options.maximumTokens > 0
        guard count + (generates ? 1 : 0) <= positionLimit else {
            throw RequestError.overflow(promptTokens: count, contextLength: positionLimit, param: param)
        }
        let constraint = try constraint(of: settings, knowsCalls: knowsCalls)
        // Without a chosen seed, each prompt's is random: a number that readers which hold doubles get exactly.
        let seed = settings.options.seed ?? UInt64.random(in: 0..<1 << 53)
        let prediction = tokenizer?.encode(settings.prediction, recognizingSpecials: false) ?? []
        return (0..<settings.choicesPerPrompt).map { choice in
            var options = settings.options
            options.seed = seed &+ UInt64(choice)
            options.drafts = drafts
            var request = GenerationRequest(
                tokens: prompt.tokens, start: prompt.start, options: options,
                logProbabilityCount: generates || scoresPrompt ? settings.logProbabilityCount : nil,
                scoresPrompt: scoresPrompt && settings.logProbabilityCount != nil,
                sharing: PrefixSharing(salt: settings.cacheSalt), constraint: constraint)
            request.prediction = prediction
            return request
        }
    }

    /// - Parameter countField: the field that says how many log-probabilities are wanted.
    fileprivate func check(_ settings: AnswerSettings, countField: String) throws(RequestError) {
        if let id = settings.options.logitBias.keys.filter({ Int($0) >= vocabularySize }).min() {
            throw RequestError.invalid("logit_bias", "token id \(id) is outside the vocabulary of \(vocabularySize)")
        }
        if let count = settings.logProbabilityCount, count > vocabularySize {
            throw RequestError.invalid(countField, "is \(count), and the vocabulary has \(vocabularySize) tokens")
        }
    }

    /// Log-probabilities that answers which are held until they are whole may have together: some 200 MB.
    private static let wholeLimit = 1 << 22

    /// - Parameter keepsAnswers: whether answers are held; prompts' log-probabilities always are.
    /// - Throws: `RequestError` for answers that could hold more log-probabilities than that until they are whole.
    package func checkWhole(
        _ requests: [GenerationRequest], keepsAnswers: Bool = true
    ) throws(RequestError) {
        var count = 0
        for request in requests where keepsAnswers || request.scoresPrompt {
            guard let likeliest = request.logProbabilityCount else { continue }
            let (generated, isEndless) = request.options.maximumTokens.addingReportingOverflow(
                request.start == .answer ? 0 : request.options.thinkingBudget)
            let room = max(0, positionLimit - request.tokens.count)
            let answer = keepsAnswers ? (isEndless ? room : min(generated, room)) : 0
            let tokens = answer + (request.scoresPrompt ? request.tokens.count : 0)
            count += tokens * (likeliest + 1)
        }
        guard count > Self.wholeLimit else { return }
        throw RequestError.invalid(
            "logprobs",
            "the answers could have \(count) log-probabilities, and at most \(Self.wholeLimit) are kept until an answer is whole: ask for fewer, limit the tokens, or stream"
        )
    }

    fileprivate static func cannotRead(_ param: String, lacks thing: String) -> RequestError {
        RequestError(
            status: 400, "\(param): the model has no \(thing), so it can only continue token ids",
            code: "unsupported_by_model", param: param)
    }
}

extension ChatCompletionBody {
    /// The conversation in the model's chat format: one request for each answer, in the order of their indices.
    /// - Throws: `RequestError` for a conversation that the model cannot have, or that does not fit.
    package func resolve(in context: RequestContext) throws(RequestError) -> [GenerationRequest] {
        try resolve(in: context, from: "messages")
    }

    /// - Parameter param: the field that the messages are from.
    func resolve(in context: RequestContext, from param: String) throws(RequestError) -> [GenerationRequest] {
        try context.check(settings, countField: "top_logprobs")
        guard let tokenizer = context.tokenizer else { throw RequestContext.cannotRead(param, lacks: "tokenizer") }
        guard var format = context.chatFormat else {
            throw RequestContext.cannotRead(param, lacks: "chat format")
        }
        // Where prompts name no date it changes nothing.
        if let date = settings.promptDate, !format.date.isEmpty { format.date = date.replacing("%", with: "%%") }
        try checkCalls(format.tools, param)
        let (system, turns) = conversation()
        let prompt: Prompt
        do {
            prompt = try Prompt(
                turns: turns, system: system, tools: settings.tools?.functions.map(\.promptDescription) ?? [],
                thinks: settings.options.thinks,
                keepsThinking: settings.options.keepsThinking, continuesLast: turns.last?.role == .assistant,
                format: format, tokenizer: tokenizer)
        } catch {
            throw (error as? SigmaError).map { RequestError($0) }
                ?? RequestError(status: 500, "the conversation could not be read")
        }
        let knowsCalls = messages.contains { $0.role == .tool || !$0.calls.isEmpty }
        return try context.requests(for: prompt, settings, scoresPrompt: false, knowsCalls: knowsCalls, param: param)
    }

    /// Whether the model's prompts can hold the conversation's calls.
    private func checkCalls(_ tools: ToolFormat, _ param: String) throws(RequestError) {
        for message in messages where !message.calls.isEmpty {
            guard tools.calls.allowsSeveral || message.calls.count == 1 else {
                throw RequestError.invalid(
                    param, "the model knows one call in a message, and here is one with \(message.calls.count)")
            }
            guard tools.readsArguments else { continue }
            for call in message.calls {
                guard (try? JSONValue.parse(call.arguments, exactNumbers: true))?.object == nil else { continue }
                throw RequestError.invalid(
                    param,
                    "expected arguments that are a JSON object in the call of \(JSONValue.string(call.name).kind)")
            }
        }
    }

    /// The message that a conversation begins with may be its instructions; later ones are turns.
    private func conversation() -> (system: String, turns: [Turn]) {
        var system = ""
        var turns: [Turn] = []
        for (index, message) in messages.enumerated() {
            switch message.role {
            case .system, .developer:
                if index == 0 { system = message.text } else { turns.append(Turn(.system, message.text)) }
            case .user: turns.append(Turn(.user, message.text))
            case .assistant:
                var turn = Turn(.assistant, message.text, reasoning: message.reasoning)
                turn.calls = message.calls
                turns.append(turn)
            case .tool: turns.append(Turn(.tool, message.text))
            }
        }
        return (system, turns)
    }
}

extension CompletionBody {
    /// One request for each answer: those to the first prompt, then those to the second, in the order of their indices.
    /// - Throws: `RequestError` for a prompt that the model cannot read, or that does not fit.
    package func resolve(in context: RequestContext) throws(RequestError) -> [GenerationRequest] {
        try context.check(settings, countField: "logprobs")
        var requests: [GenerationRequest] = []
        for (index, prompt) in prompts.enumerated() {
            let param = path(ofPrompt: index)
            let resolved: Prompt
            switch prompt {
            case .tokens(let ids): resolved = Prompt(tokens: ids, start: .answer)
            case .text(let text):
                guard let tokenizer = context.tokenizer else {
                    throw RequestContext.cannotRead(param, lacks: "tokenizer")
                }
                resolved = Prompt(raw: text, tokenizer: tokenizer)
            }
            requests += try context.requests(for: resolved, settings, scoresPrompt: echoes, param: param)
        }
        return requests
    }
}
