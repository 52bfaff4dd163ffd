import Synchronization

/// A piece of an answer in the making.
public enum GenerationUpdate: Sendable {
    /// Prompt tokens that are in the key-value cache, of all.
    case prefill(done: Int, total: Int)
    /// Text of the thinking.
    case reasoning(String)
    /// Text of the answer.
    case text(String)
    /// The end of the answer, and why it ended.
    case finished(Statistics)
}

/// One conversation with a model. What the key-value cache already holds is not computed again.
///
/// Exclusive: one request at a time; a second one meanwhile is refused with `SigmaError(.usage)`. Cancelling the task that reads a stream, or
/// dropping the stream, ends the work before its next step; the turn is then not part of the conversation.
public final class Session: Sendable {
    /// What holds the session.
    enum Activity {
        case none
        /// A request makes an answer.
        case answering
        /// The history is computed ahead; a request takes its place.
        case prewarming
        /// The conversation is changed, saved or restored.
        case changing
    }

    struct State: Sendable {
        var instructions: String
        var options: GenerationOptions
        var turns: [Turn] = []
        var timeline: Timeline?
        var activity = Activity.none
        /// Of the request that holds the session; each request has its own, so that a stream that ends late cannot be taken for another.
        var number = 0
        var lastNumber = 0
        /// What makes the current answer, once it has begun.
        var current: Generation?
        /// The current work is wanted no more: it ends before the next step, and the next request waits for that.
        var isAbandoned = false
        /// The request that `stop()` ended.
        var stopped = 0
        var waiting: (number: Int, begin: @Sendable () -> Void)?
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
    /// - Throws: (in the stream) `SigmaError`: `.usage` for options that make no sense, or a session that is busy; `.damaged` for a model
    ///   without a tokenizer; `.unavailable` if memory ends; `.inputOutput` if the model file was lost.
    public func stream(
        to message: String, options: GenerationOptions? = nil
    ) -> AsyncThrowingStream<GenerationUpdate, any Error> {
        stream(to: message, options: options, onEvent: nil)
    }

    /// The same, with every event shown to `onEvent`, on the engine's thread, before its update is in the stream.
    package func stream(
        to message: String, options: GenerationOptions?, onEvent: (@Sendable (GenerationEvent) -> Void)?
    ) -> AsyncThrowingStream<GenerationUpdate, any Error> {
        AsyncThrowingStream { continuation in
            let request = Request(
                message: message, options: options ?? self.options, continuation: continuation, onEvent: onEvent)
            do { try start(request) } catch { continuation.finish(throwing: error) }
        }
    }

    /// The whole answer to `message`, without the thinking.
    ///
    /// - Throws: as `stream(to:options:)`; `SigmaError(.usage)` if the context limit ended the answer (what there is of it is the last of
    ///   `turns`); `CancellationError` if the task was cancelled.
    public func respond(to message: String, options: GenerationOptions? = nil) async throws -> String {
        var answer = ""
        for try await update in stream(to: message, options: options) {
            switch update {
            case .text(let text): answer += text
            case .finished(let statistics) where statistics.reason == .context:
                throw SigmaError(
                    .usage, "the conversation reached the context limit of \(engine.contextLength) tokens",
                    remedy: "Take back turns with rewind(to:), or load the model with a larger contextLength.")
            case .prefill, .reasoning, .finished: break
            }
        }
        try Task.checkCancellation()
        return answer
    }

    /// Ends the answer that is being made before its next step, with the reason `.interrupted`. What was answered until then becomes part of
    /// the conversation. Without an answer in the making it does nothing.
    public func stop() {
        let generation = state.withLock { state -> Generation? in
            if let waiting = state.waiting {
                state.stopped = waiting.number
            } else if state.activity == .answering, !state.isAbandoned {
                state.stopped = state.number
                return state.current
            }
            return nil
        }
        generation?.cancel()
    }

    /// Computes the history as the next request will need it, so that this only has its own message to read: worth it after answers with
    /// thinking, while a person types. A request takes its place at once. On a busy session it does nothing.
    ///
    /// - Throws: `SigmaError` as `stream(to:options:)`; `CancellationError` if the task was cancelled.
    public func prewarm() async throws {
        let work = try state.withLock { state -> (Generation, Signal)? in
            guard state.activity == .none else { return nil }
            var options = state.options
            try options.check()
            options.maximumTokens = 0
            let prompt = try engine.prompt(
                turns: state.turns, system: state.instructions, options: options, asksForAnswer: false)
            let timeline = try makeTimeline(&state)
            guard !prompt.tokens.isEmpty, prompt.tokens.count <= engine.contextLength,
                !timeline.tokens.starts(with: prompt.tokens)
            else { return nil }
            let request = GenerationRequest(
                tokens: prompt.tokens, start: .answer, options: options, routingObserver: observer)
            let generation = try Generation(request, on: timeline, engine: engine) { _ in }
            state.activity = .prewarming
            state.current = generation
            return (generation, Signal())
        }
        guard let (generation, ended) = work else { return }
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

    private struct Request: Sendable {
        var message: String
        var options: GenerationOptions
        var continuation: AsyncThrowingStream<GenerationUpdate, any Error>.Continuation
        var onEvent: (@Sendable (GenerationEvent) -> Void)?
    }

    /// Begins the request, or has it wait for the end of work that is wanted no more.
    private func start(_ request: Request) throws {
        let (number, isFree) = try state.withLock { state in
            switch state.activity {
            case .none: break
            case .prewarming where state.waiting == nil:
                state.current?.cancel()
                state.isAbandoned = true
            case .answering where state.isAbandoned && state.waiting == nil: break
            case .answering, .prewarming, .changing: throw Self.busy
            }
            state.lastNumber += 1
            let number = state.lastNumber
            guard state.activity == .none else {
                state.waiting = (number, { self.begin(request, number) })
                return (number, false)
            }
            state.activity = .answering
            state.number = number
            return (number, true)
        }
        request.continuation.onTermination = { _ in self.abandon(number) }
        if isFree { begin(request, number) }
    }

    /// The request's stream has ended, or nobody reads it any more.
    private func abandon(_ number: Int) {
        let generation = state.withLock { state -> Generation? in
            if state.waiting?.number == number { state.waiting = nil }
            guard state.number == number, state.activity == .answering else { return nil }
            state.isAbandoned = true
            return state.current
        }
        generation?.cancel()
    }

    /// Begins the request; the session is marked as busy with it.
    private func begin(_ request: Request, _ number: Int) {
        let continuation = request.continuation
        do {
            let (turns, instructions, timeline) = try state.withLock { state in
                (state.turns + [Turn(.user, request.message)], state.instructions, try makeTimeline(&state))
            }
            try request.options.check()
            let prompt = try engine.prompt(turns: turns, system: instructions, options: request.options)
            guard prompt.tokens.count <= engine.contextLength else {
                var statistics = Statistics()
                statistics.reason = .context
                statistics.promptTokens = prompt.tokens.count
                end()
                continuation.yield(.finished(statistics))
                continuation.finish()
                return
            }
            let answer = AnswerInProgress()
            let generation = try Generation(
                GenerationRequest(
                    tokens: prompt.tokens, start: prompt.start, options: request.options, routingObserver: observer),
                on: timeline, engine: engine
            ) { event in
                request.onEvent?(event)
                answer.take(event, continuation)
            }
            let isEnded = state.withLock { state in
                state.current = generation
                return state.stopped == number || state.isAbandoned
            }
            if isEnded { generation.cancel() }
            engine.run(generation) { result in
                // The session is free before its user hears of the end.
                let statistics = answer.statistics
                self.end { isStopped in
                    answer.turn(prompt, request.options, isStopped: isStopped, generation).map { turns + [$0] }
                }
                switch result {
                case .success:
                    if let statistics { continuation.yield(.finished(statistics)) }
                    continuation.finish()
                case .failure(let error): continuation.finish(throwing: error)
                }
            }
        } catch {
            end()
            continuation.finish(throwing: error)
        }
    }

    /// Ends the current work, and begins the request that waits.
    /// - Parameter turns: the conversation from now on; nil: as it was.
    private func end(turns: (_ isStopped: Bool) -> [Turn]? = { _ in nil }) {
        let next = state.withLock { state in
            // Who has left the stream does not expect its turn, even if the last step completed it.
            if !state.isAbandoned, let turns = turns(state.stopped == state.number) { state.turns = turns }
            let next = state.waiting
            state.waiting = nil
            state.isAbandoned = false
            state.current = nil
            state.activity = next == nil ? .none : .answering
            if let next { state.number = next.number }
            return next
        }
        next?.begin()
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

/// Collects an answer on the engine's thread, and hands it on.
private final class AnswerInProgress: Sendable {
    private struct State {
        var text = ""
        var reasoning = ""
        var tokens: [Int32] = []
        var statistics: Statistics?
    }

    private let state = Mutex(State())

    var statistics: Statistics? { state.withLock { $0.statistics } }

    func take(
        _ event: GenerationEvent, _ continuation: AsyncThrowingStream<GenerationUpdate, any Error>.Continuation
    ) {
        switch event {
        case .prefill(let done, let total): continuation.yield(.prefill(done: done, total: total))
        case .promptLogProbabilities: break
        case .closing(let ids, let text):
            state.withLock { state in
                state.tokens += ids
                state.reasoning += text
            }
            continuation.yield(.reasoning(text))
        case .token(let token):
            state.withLock { $0.tokens.append(token.id) }
            give(token, continuation)
        case .finished(let statistics, let remainder):
            if let remainder { give(remainder, continuation) }
            state.withLock { $0.statistics = statistics }
        }
    }

    private func give(
        _ token: GeneratedToken, _ continuation: AsyncThrowingStream<GenerationUpdate, any Error>.Continuation
    ) {
        guard !token.text.isEmpty else { return }
        switch token.phase {
        case .thinking:
            state.withLock { $0.reasoning += token.text }
            continuation.yield(.reasoning(token.text))
        case .answer:
            state.withLock { $0.text += token.text }
            continuation.yield(.text(token.text))
        }
    }

    /// The turn that becomes part of the conversation; nil if none does.
    func turn(
        _ prompt: Prompt, _ options: GenerationOptions, isStopped: Bool, _ generation: Generation
    ) -> Turn? {
        state.withLock { state in
            guard let reason = state.statistics?.reason else { return nil }
            switch reason {
            case .stop, .length: if options.maximumTokens == 0 { return nil }
            case .context: if state.text.isEmpty { return nil }
            case .interrupted: if !isStopped || state.text.isEmpty { return nil }
            }
            var turn = Turn(.assistant, state.text, reasoning: state.reasoning)
            if let opening = prompt.opening, !generation.endedAtStopString {
                turn.written = Turn.Written(opening: opening, generated: state.tokens)
            }
            return turn
        }
    }
}

/// The end of some work on the engine's thread, awaited by one task.
final class Signal: Sendable {
    private struct State {
        var result: Result<Void, any Error>?
        var continuation: CheckedContinuation<Void, Never>?
    }

    private let state = Mutex(State())

    var result: Result<Void, any Error>? { state.withLock { $0.result } }

    func send(_ result: Result<Void, any Error>) {
        let continuation = state.withLock { state in
            state.result = result
            return state.continuation
        }
        continuation?.resume()
    }

    func wait() async {
        await withCheckedContinuation { continuation in
            let isOver = state.withLock { state in
                state.continuation = continuation
                return state.result != nil
            }
            // Whoever comes second resumes.
            if isOver { continuation.resume() }
        }
    }
}
