import Synchronization

/// A piece of an answer in the making.
public enum GenerationUpdate: Sendable {
    /// Prompt tokens that are in the key-value cache, of all.
    case prefill(Int, Int)
    /// Text of the thinking.
    case reasoning(String)
    /// Text of the answer.
    case text(String)
    /// The end of the answer.
    case finished(Statistics)
}

/// One conversation with a model. What the key-value cache already holds is not computed again.
///
/// Exclusive: one request at a time; a second one meanwhile is refused with `SigmaError(.usage)`. Cancelling the task that reads a stream, or
/// dropping the stream, ends the work before its next step; the turn is then not part of the conversation.
public final class Session: Sendable {
    private struct State: Sendable {
        var turns: [Turn] = []
        var timeline: Timeline?
        /// Counts requests, so that a stream that ends late cannot be taken for the current one.
        var request = 0
        var isBusy = false
        /// The current request's stream was dropped: its work ends before the next step, and the next request waits for that.
        var isAbandoned = false
        var waiting: (@Sendable () -> Void)?
    }

    private let engine: Engine
    private let kvType: KVType
    private let instructions: String
    private let options: GenerationOptions
    private let routing: RoutingMonitor?
    private let state = Mutex(State())

    init(
        engine: Engine, kvType: KVType, instructions: String, options: GenerationOptions,
        routing: RoutingMonitor? = nil
    ) {
        self.engine = engine
        self.kvType = kvType
        self.instructions = instructions
        self.options = options
        self.routing = routing
    }

    /// The answer to `message` as it is made. The conversation goes on with both when the stream has finished.
    ///
    /// - Parameter options: for this answer; nil: the session's.
    /// - Throws: (in the stream) `SigmaError`: `.usage` for options that make no sense, a conversation longer than the context, or a session
    ///   that is busy; `.damaged` for a model without a tokenizer; `.unavailable` if memory ends; `.inputOutput` if the model file was lost.
    public func stream(
        to message: String, options: GenerationOptions? = nil
    ) -> AsyncThrowingStream<GenerationUpdate, any Error> {
        AsyncThrowingStream { continuation in
            do {
                try start(message, options ?? self.options, continuation)
            } catch {
                continuation.finish(throwing: error)
            }
        }
    }

    /// The whole answer to `message`, without the thinking.
    ///
    /// - Throws: as `stream(to:options:)`; `CancellationError` if the task was cancelled.
    public func respond(to message: String, options: GenerationOptions? = nil) async throws -> String {
        var answer = ""
        for try await update in stream(to: message, options: options) {
            if case .text(let text) = update { answer += text }
        }
        try Task.checkCancellation()
        return answer
    }

    private func start(
        _ message: String, _ options: GenerationOptions,
        _ continuation: AsyncThrowingStream<GenerationUpdate, any Error>.Continuation
    ) throws {
        let mustWait = try state.withLock { state in
            if state.isBusy {
                guard state.isAbandoned, state.waiting == nil else {
                    throw SigmaError(
                        .usage, "the session is still making an answer", remedy: "Wait for it, or use a second session."
                    )
                }
                state.waiting = { self.begin(message, options, continuation) }
                return true
            }
            state.isBusy = true
            return false
        }
        if !mustWait { begin(message, options, continuation) }
    }

    /// Begins the request; the session is marked as busy with it.
    private func begin(
        _ message: String, _ options: GenerationOptions,
        _ continuation: AsyncThrowingStream<GenerationUpdate, any Error>.Continuation
    ) {
        do {
            let (turns, timeline, number) = try state.withLock { state in
                let timeline = try state.timeline ?? engine.makeTimeline(kvType: kvType)
                state.timeline = timeline
                state.request += 1
                return (state.turns + [Turn(.user, message)], timeline, state.request)
            }
            let prompt = try engine.prompt(turns: turns, system: instructions, thinks: options.thinks)
            let request = GenerationRequest(
                tokens: prompt.tokens, start: prompt.start, options: options, routingObserver: routing)
            let answer = Mutex("")
            let ending = Mutex<Statistics?>(nil)
            let generation = try Generation(request, on: timeline, engine: engine) { event in
                switch event {
                case .prefill(let done, let total): continuation.yield(.prefill(done, total))
                case .promptLogProbabilities: break
                case .closing(_, let text): continuation.yield(.reasoning(text))
                case .token(let token): Self.yield(token, to: continuation, collecting: answer)
                case .finished(let statistics, let remainder):
                    if let remainder { Self.yield(remainder, to: continuation, collecting: answer) }
                    ending.withLock { $0 = statistics }
                }
            }
            continuation.onTermination = { _ in
                generation.cancel()
                self.state.withLock { if $0.request == number, $0.isBusy { $0.isAbandoned = true } }
            }
            // A stream that was dropped while it waited takes nothing any more.
            if case .terminated = continuation.yield(.prefill(0, prompt.tokens.count)) { generation.cancel() }
            engine.run(generation) { result in
                // The session is free before its user hears of the end.
                let statistics = ending.withLock { $0 }
                let isComplete = statistics.map { $0.reason != .interrupted } ?? false
                self.end(turns: isComplete ? turns + [Turn(.assistant, answer.withLock { $0 })] : nil)
                switch result {
                case .success:
                    if let statistics { continuation.yield(.finished(statistics)) }
                    continuation.finish()
                case .failure(let error): continuation.finish(throwing: error)
                }
            }
        } catch {
            end(turns: nil)
            continuation.finish(throwing: error)
        }
    }

    /// Ends the current request, and begins the one that waits.
    private func end(turns: [Turn]?) {
        let next = state.withLock { state in
            if let turns { state.turns = turns }
            state.isAbandoned = false
            state.isBusy = state.waiting != nil
            defer { state.waiting = nil }
            return state.waiting
        }
        next?()
    }

    private static func yield(
        _ token: GeneratedToken, to continuation: AsyncThrowingStream<GenerationUpdate, any Error>.Continuation,
        collecting answer: borrowing Mutex<String>
    ) {
        guard !token.text.isEmpty else { return }
        switch token.phase {
        case .thinking: continuation.yield(.reasoning(token.text))
        case .answer:
            answer.withLock { $0 += token.text }
            continuation.yield(.text(token.text))
        }
    }
}

extension Engine {
    /// The conversation in the model's chat format.
    /// - Throws: `SigmaError(.damaged)` for a model file without tokenizer or chat format.
    package func prompt(turns: [Turn], system: String, thinks: Bool) throws -> Prompt {
        guard let tokenizer else { throw missingTokenizer }
        guard let chatFormat else {
            throw SigmaError(
                .damaged, "the model file has no chat format, so it cannot hold a conversation", path: modelPath,
                remedy: "Give the prompt with its markup and --raw, or convert the checkpoint again.")
        }
        return try Prompt(turns: turns, system: system, thinks: thinks, format: chatFormat, tokenizer: tokenizer)
    }

    /// Text without a template: bos if the tokenizer asks for one, and the specials that the text names.
    /// - Throws: `SigmaError(.damaged)` for a model file without tokenizer.
    package func rawPrompt(_ text: String) throws -> Prompt {
        guard let tokenizer else { throw missingTokenizer }
        let bos = tokenizer.addsBos ? tokenizer.bos.map { [$0] } ?? [] : []
        return Prompt(tokens: bos + tokenizer.encode(text, recognizingSpecials: true), start: .answer)
    }

    package var missingTokenizer: SigmaError {
        SigmaError(
            .damaged, "the model file has no tokenizer, so it cannot read text", path: modelPath,
            remedy:
                "Convert a checkpoint folder that has its tokenizer files, or give sigma-run token ids: --tokens 1,2,3."
        )
    }

    /// Name of the level of the CPU kernels; nil for other back ends.
    package var instructionSetName: String? { (backend as? CPUBackend)?.instructionSet.name }
}
