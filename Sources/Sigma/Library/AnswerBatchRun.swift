import Synchronization

/// Makes a batch's answers: the reader's task begins questions, the engine's thread ends them.
final class AnswerBatchRun: Sendable {
    /// An answer that is being made.
    private final class Running: Sendable {
        let index: Int
        let tokens: [Int32]
        let record = AnswerRecord()
        let growth: Mutex<AnswerGrowth>
        let hasReadPrompt = Atomic(false)
        /// Set before it runs.
        let generation = Mutex<Generation?>(nil)

        init(_ index: Int, _ tokens: [Int32]) {
            self.index = index
            self.tokens = tokens
            growth = Mutex(AnswerGrowth(promptTokens: tokens.count))
        }
    }

    private struct State {
        /// The next question to be begun, and its request, once it is made.
        var next = 0
        var prepared: GenerationRequest?
        var running: [Running] = []
        var ended: [AnswerBatch.Element] = []
        var reader: CheckedContinuation<Void, Never>?
        var tuner: ConcurrencyTuner
        var isCancelled = false
        /// Grows when something happens that a question may have waited for; and what it was when questions were last begun.
        var changes = 0
        var settledChanges = 0
    }

    /// Tokens that must be in common for a question to wait until another's prompt has been read.
    private static let leastCommon = 64

    private let batch: AnswerBatch
    private let state: Mutex<State>

    init(_ batch: AnswerBatch) {
        self.batch = batch
        state = Mutex(State(tuner: ConcurrencyTuner(most: batch.mostAnswers)))
        batch.engine.beginBatch()
    }

    deinit {
        cancel()
        batch.engine.endBatch()
    }

    /// Ends all work before its next step.
    func cancel() {
        let (running, reader) = state.withLock { state in
            state.isCancelled = true
            defer { state.reader = nil }
            return (state.running, state.reader)
        }
        for answer in running { answer.generation.withLock { $0 }?.cancel() }
        reader?.resume()
    }

    // MARK: - The reader's task

    /// The next answer that is whole; nil when all were given.
    func next() async throws -> AnswerBatch.Element? {
        while true {
            if state.withLock({ $0.isCancelled }) { throw CancellationError() }
            let changes = state.withLock(\.changes)
            await begin()
            let (element, isOver) = state.withLock { state -> (AnswerBatch.Element?, Bool) in
                state.settledChanges = changes
                if !state.ended.isEmpty { return (state.ended.removeFirst(), false) }
                return (nil, state.running.isEmpty && state.next == batch.questions.count)
            }
            if let element { return element }
            if isOver { return nil }
            await change(since: changes)
        }
    }

    /// Waits until an answer ends or a prompt was read.
    private func change(since changes: Int) async {
        await withCheckedContinuation { reader in
            let isDue = state.withLock { state in
                if state.changes != changes || state.isCancelled { return true }
                state.reader = reader
                return false
            }
            if isDue { reader.resume() }
        }
    }

    /// Begins questions while there are places and memory.
    private func begin() async {
        while let index = state.withLock({ $0.isCancelled || $0.next == batch.questions.count ? nil : $0.next }) {
            do {
                let request: GenerationRequest
                if let prepared = state.withLock({ $0.prepared }) {
                    request = prepared
                } else {
                    request = try await self.request(batch.questions[index])
                    state.withLock { $0.prepared = request }
                }
                guard hasPlace(request) else { return }
                try start(request, index)
                state.withLock { $0.prepared = nil }
            } catch {
                state.withLock { state in
                    state.prepared = nil
                    state.ended.append(AnswerBatch.Element(index: index, answer: .failure(error)))
                }
            }
            state.withLock { $0.next += 1 }
        }
    }

    private func request(_ question: AnswerBatch.Question) async throws -> GenerationRequest {
        var constraint: TokenConstraint?
        if let wanted = question.constraint {
            constraint = try await withCheckedThrowingContinuation { continuation in
                batch.engine.constraints.compile(wanted) { continuation.resume(with: $0) }
            }
        }
        let prompt = try batch.engine.prompt(
            turns: question.turns, system: question.instructions, options: question.options)
        var request = GenerationRequest(
            tokens: prompt.tokens, start: prompt.start, options: question.options, sharing: PrefixSharing(),
            constraint: constraint)
        request.keeping = .prompt
        return request
    }

    private func hasPlace(_ request: GenerationRequest) -> Bool {
        let (isPossible, running, promised) = state.withLock { state in
            (canBegin(state), state.running.count, state.running.reduce(0) { $0 + $1.growth.withLock(\.missing) })
        }
        guard isPossible, running > 0 else { return isPossible }
        let positions = promised + AnswerGrowth(promptTokens: request.tokens.count).missing
        if batch.engine.makeRoom(positions: positions, kvType: batch.kvType) { return true }
        state.withLock { $0.tuner.memoryEnds(running: running) }
        return false
    }

    /// Whether there is a place for the prepared request, and nobody reads what its prompt begins with.
    private func canBegin(_ state: State) -> Bool {
        guard let request = state.prepared, state.running.count < state.tuner.limit else { return false }
        return !state.running.contains { other in
            !other.hasReadPrompt.load(ordering: .relaxed)
                && zip(other.tokens, request.tokens).prefix { $0 == $1 }.count >= Self.leastCommon
        }
    }

    private func start(_ request: GenerationRequest, _ index: Int) throws {
        let running = Running(index, request.tokens)
        let timeline = try batch.engine.makeTimeline(kvType: batch.kvType)
        let generation = try Generation(request, on: timeline, engine: batch.engine) { [weak self] event in
            running.record.take(event)
            running.growth.withLock { $0.take(event) }
            if case .token = event { self?.tokenCame(running) }
        }
        running.generation.withLock { $0 = generation }
        let isCancelled = state.withLock { state in
            state.running.append(running)
            return state.isCancelled
        }
        if isCancelled { generation.cancel() }
        batch.engine.run(generation) { [weak self] result in
            // It holds what holds it.
            running.generation.withLock { $0 = nil }
            self?.end(running, result)
        }
    }

    // MARK: - The engine's thread

    private func tokenCame(_ running: Running) {
        let isFirst = !running.hasReadPrompt.exchange(true, ordering: .relaxed)
        let reading = batch.engine.gauge.reading
        let reader = state.withLock { state -> CheckedContinuation<Void, Never>? in
            let limit = state.tuner.limit
            // An answer that ended may have left a place that the reader has not filled yet.
            if state.settledChanges == state.changes {
                state.tuner.record(
                    tokens: reading.generatedTokens, seconds: reading.generationSeconds, running: state.running.count)
            }
            guard isFirst || state.tuner.limit > limit else { return nil }
            state.changes += 1
            defer { state.reader = nil }
            return state.reader
        }
        reader?.resume()
    }

    private func end(_ running: Running, _ result: Result<Void, any Error>) {
        let answer = result.flatMap { () -> Result<AnswerBatch.Whole, any Error> in
            running.record.whole.map { .success($0) } ?? .failure(CancellationError())
        }
        let reader = state.withLock { state -> CheckedContinuation<Void, Never>? in
            state.changes += 1
            state.running.removeAll { $0 === running }
            state.ended.append(AnswerBatch.Element(index: running.index, answer: answer))
            defer { state.reader = nil }
            return state.reader
        }
        reader?.resume()
    }
}
