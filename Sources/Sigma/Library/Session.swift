import Synchronization

/// One conversation with a model. What the key-value cache already holds is not computed again.
///
/// Exclusive: one request at a time; a second one meanwhile is refused with `SigmaError(.usage)`. Cancelling the task that reads a stream, or
/// dropping the stream, ends the work before its next step; the turn is then not part of the conversation.
public final class Session: Sendable {
    struct State: Sendable {
        var instructions: String
        var options: GenerationOptions
        var turns: [Turn] = []
        var timeline: Timeline?
        var requests = SessionRequests()
        /// What has the session, once it has begun.
        var current: Generation?
        /// The request that waits for its end.
        var waiting: Request?
    }

    let engine: Engine
    let kvType: KVType
    private let observer: (any RoutingObserver)?
    let state: Mutex<State>

    init(
        engine: Engine, kvType: KVType, instructions: String, options: GenerationOptions,
        observer: (any RoutingObserver)? = nil
    ) {
        self.engine = engine
        self.kvType = kvType
        self.observer = observer
        state = Mutex(State(instructions: instructions, options: options))
    }

    // MARK: - Answers

    /// The answer to `message` as it is made. The conversation goes on with both when the stream has finished.
    ///
    /// A conversation that does not fit the context ends with `.finished` and the reason `.context`, like one that reaches it later.
    ///
    /// - Parameters:
    ///   - message: the next turn, in the user's words.
    ///   - options: for this answer; nil: the session's.
    ///   - constraint: what the answer, never its thinking, must be; nil: anything. It is compiled on a thread of its own.
    /// - Throws: (in the stream) `SigmaError`: `.usage` for options that make no sense, a constraint that cannot be honoured exactly (`item` has
    ///   its place), or a session that is busy; `.damaged` for a model without a tokenizer; `.unavailable` if memory ends; `.inputOutput` if the model file was lost.
    public func stream(
        to message: String, options: GenerationOptions? = nil, constraint: Constraint? = nil
    ) -> AnswerStream {
        stream(to: message, options: options, constraint: constraint, onEvent: nil)
    }

    /// The same, with every event shown to `onEvent`, on the engine's thread, before its update is in the stream.
    package func stream(
        to message: String, options: GenerationOptions?, constraint: Constraint? = nil,
        onEvent: (@Sendable (AnswerEvent) -> Void)?
    ) -> AnswerStream {
        let channel = AnswerChannel { [engine] in engine.wake() }
        let request = Request(
            message: message, options: options ?? self.options, constraint: constraint, channel: channel,
            onEvent: onEvent)
        let number = start(request)
        return AnswerStream(reader: AnswerStream.Reader(channel) { [self] in abandon(number) })
    }

    /// The whole answer to `message`, without the thinking.
    ///
    /// - Throws: as `stream(to:options:constraint:)`; `SigmaError(.usage)` if the context limit ended the answer (what there is of it is the last
    ///   of `turns`); `CancellationError` if the task was cancelled.
    public func respond(
        to message: String, options: GenerationOptions? = nil, constraint: Constraint? = nil
    ) async throws -> String {
        try await wholeAnswer(to: message, options: options, constraint: constraint).text
    }

    func wholeAnswer(
        to message: String, options: GenerationOptions?, constraint: Constraint?
    ) async throws -> (text: String, statistics: Statistics?) {
        var answer = ""
        var end: Statistics?
        for try await update in stream(to: message, options: options, constraint: constraint) {
            switch update {
            case .text(let text): answer += text
            case .finished(let statistics) where statistics.reason == .context:
                let room = engine.positionLimit(kvType: cachedKVType)
                throw SigmaError(
                    .usage,
                    room < engine.contextLength
                        ? "the conversation reached what the memory budget has room for: \(room) tokens"
                        : "the conversation reached the context limit of \(room) tokens",
                    remedy: .anyOf(["Take back turns with rewind(to:).", .raise(.contextLength, least: nil)]))
            case .finished(let statistics): end = statistics
            case .prefill, .reasoning: break
            }
        }
        try Task.checkCancellation()
        return (answer, end)
    }

    /// Ends the answer that is being made before its next step, with the reason `.interrupted`. What was answered until then becomes part of
    /// the conversation. Without an answer in the making it does nothing.
    public func stop() {
        perform { $0.requests.stop() }
    }

    /// Computes the history as the next request will need it, so that this only has its own message to read: worth it after answers with
    /// thinking, while a person types. A request takes its place at once. On a busy session it does nothing.
    ///
    /// - Throws: `SigmaError` as `stream(to:options:)`; `CancellationError` if the task was cancelled.
    public func prewarm() async throws {
        let generation = try state.withLock { state -> Generation? in
            guard state.requests.isIdle else { return nil }
            var options = state.options
            try options.check()
            options.maximumTokens = 0
            let prompt = try engine.prompt(
                turns: state.turns, system: state.instructions, options: options, asksForAnswer: false)
            let timeline = try makeTimeline(&state)
            guard !prompt.tokens.isEmpty, prompt.tokens.count <= engine.positionLimit(kvType: timeline.sequence.kvType),
                timeline.sequence.length < prompt.tokens.count || !timeline.tokens.starts(with: prompt.tokens)
            else { return nil }
            let request = GenerationRequest(
                tokens: prompt.tokens, start: .answer, options: options, routingObserver: observer)
            let generation = try Generation(request, on: timeline, engine: engine) { _ in }
            _ = state.requests.beginPrewarming()
            state.current = generation
            return generation
        }
        guard let generation else { return }
        let ended = Signal()
        await withTaskCancellationHandler {
            engine.run(generation) { result in
                self.end()
                ended.send(result)
            }
            await ended.wait()
        } onCancel: {
            generation.cancel()
        }
        try ended.result?.get()
        try Task.checkCancellation()
    }

    // MARK: - Requests

    struct Request: Sendable {
        var message: String
        var options: GenerationOptions
        var constraint: Constraint?
        var channel: AnswerChannel
        var onEvent: (@Sendable (AnswerEvent) -> Void)?
    }

    /// Begins the request, or has it wait for the end of work that is wanted no more; a busy session's stream fails.
    private func start(_ request: Request) -> Int {
        let (number, action, current) = state.withLock { state in
            let (number, action) = state.requests.request()
            if action == .cancel || action == .nothing { state.waiting = request }
            return (number, action, state.current)
        }
        switch action {
        case .refuse: request.channel.end(.failure(Self.busy))
        case .begin(let number): begin(request, number)
        case .cancel: current?.cancel()
        case .nothing: break
        }
        return number
    }

    /// Nobody reads the request's stream any more.
    private func abandon(_ number: Int) {
        perform { $0.requests.abandon(number) }
    }

    /// Does what a transition asks for, outside the lock.
    private func perform(_ transition: (inout State) -> SessionRequests.Action) {
        let current = state.withLock { state in transition(&state) == .cancel ? state.current : nil }
        current?.cancel()
    }

    /// Begins the request, which has the session; once its constraint is compiled, which the engine's thread must not wait for.
    private func begin(_ request: Request, _ number: Int) {
        guard let constraint = request.constraint else { return begin(request, number, .success(nil)) }
        engine.constraints.compile(constraint) { self.begin(request, number, $0.map(Optional.some)) }
    }

    private func begin(_ request: Request, _ number: Int, _ constraint: Result<TokenConstraint?, any Error>) {
        let channel = request.channel
        do {
            let (turns, instructions, timeline) = try state.withLock { state in
                (state.turns + [Turn(.user, request.message)], state.instructions, try makeTimeline(&state))
            }
            try request.options.check()
            let constraint = try constraint.get()
            let prompt = try engine.prompt(turns: turns, system: instructions, options: request.options)
            guard prompt.tokens.count <= engine.positionLimit(kvType: timeline.sequence.kvType) else {
                var statistics = Statistics()
                statistics.reason = .context
                statistics.promptTokens = prompt.tokens.count
                end()
                channel.write(.finished(statistics, remainder: nil))
                channel.end(.success(()))
                return
            }
            let record = AnswerRecord()
            var generationRequest = GenerationRequest(
                tokens: prompt.tokens, start: prompt.start, options: request.options,
                // Who watches routing sees every token computed.
                sharing: observer == nil ? PrefixSharing() : nil, routingObserver: observer, constraint: constraint)
            // Other sessions may begin with the same instructions. Later turns are in this session's own timeline.
            generationRequest.keeping = turns.count == 1 ? .prompt : .nothing
            let generation = try Generation(
                generationRequest, on: timeline, engine: engine, hasReader: { channel.hasRoom() }
            ) { event in
                record.take(event)
                request.onEvent?(event)
                channel.write(event)
            }
            let mustCancel = state.withLock { state in
                state.current = generation
                return state.requests.mustCancel(number)
            }
            if mustCancel { generation.cancel() }
            engine.run(generation) { result in
                // The session is free before its user hears of the end.
                self.end { isStopped in
                    record.turn(
                        prompt, request.options, isStopped: isStopped, endedAtStopString: generation.endedAtStopString
                    ).map { turns + [$0] }
                }
                channel.end(result)
            }
        } catch {
            end()
            channel.end(.failure(error))
        }
    }

    /// Ends the current work, and begins the request that waits.
    /// - Parameter turns: the conversation from now on, if somebody still wants the answer; nil: as it was.
    private func end(turns: (_ isStopped: Bool) -> [Turn]? = { _ in nil }) {
        let next = state.withLock { state -> (Request, Int)? in
            let (answered, action) = state.requests.end()
            if let answered, let turns = turns(answered.isStopped) { state.turns = turns }
            state.current = nil
            defer { state.waiting = nil }
            guard case .begin(let number) = action, let waiting = state.waiting else { return nil }
            return (waiting, number)
        }
        if let (request, number) = next { begin(request, number) }
    }

    func makeTimeline(_ state: inout State) throws -> Timeline {
        if let timeline = state.timeline { return timeline }
        let timeline = try engine.makeTimeline(kvType: kvType)
        state.timeline = timeline
        return timeline
    }

    static var busy: SigmaError {
        SigmaError(.usage, "the session is still making an answer", remedy: "Wait for it, or use a second session.")
    }
}
