import Sigma
import Synchronization
import SystemLibrary

/// A line of a batch on its way to its result. One thread uses it.
final class BatchRequest {
    private enum Writer {
        case chat(ChatCompletionWriter)
        case completion(CompletionWriter)
        /// While it is changed: a second copy would be copied with every event.
        case taken
    }

    let number: Int
    let customID: String
    /// One for each answer.
    let requests: [GenerationRequest]
    private(set) var failure: RequestError?
    private var writer: Writer
    private var unfinished: Int

    init(_ line: BatchLine, number: Int, model: String, in context: RequestContext, _ names: TokenNames) throws {
        self.number = number
        customID = line.customID
        func head(_ prefix: String) -> AnswerHead {
            AnswerHead(id: "\(prefix)-\(Self.id(number))", created: Int(time(nil)), model: model)
        }
        switch line.body {
        case .chat(let body):
            requests = try body.resolve(in: context)
            writer = .chat(ChatCompletionWriter(head("chatcmpl"), body.settings, names, requests))
        case .completion(let body):
            requests = try body.resolve(in: context)
            writer = .completion(CompletionWriter(head("cmpl"), body, requests, in: context))
        }
        try context.checkWhole(requests)
        unfinished = requests.count
    }

    static func id(_ number: Int) -> String { "line-\(number)" }

    var usage: AnswerUsage {
        switch writer {
        case .chat(let writer): writer.usage
        case .completion(let writer): writer.usage
        case .taken: AnswerUsage()
        }
    }

    /// One of the answers has ended.
    /// - Returns: the result once all have.
    func ended(_ answer: BatchAnswer) -> BatchResult.Outcome? {
        unfinished -= 1
        switch answer.result {
        case .success(let events):
            let current = writer
            writer = .taken
            switch consume current {
            case .chat(var chat):
                for event in events { chat.take(event, choice: answer.choice) }
                writer = .chat(chat)
            case .completion(var completion):
                for event in events { completion.take(event, choice: answer.choice) }
                writer = .completion(completion)
            case .taken: break
            }
        case .failure(let error):
            failure =
                failure ?? (error as? SigmaError).map { RequestError($0) }
                ?? RequestError(status: 500, "the engine failed")
        }
        guard unfinished == 0 else { return nil }
        if let failure { return .failure(failure) }
        switch writer {
        case .chat(let writer): return .answer(writer.answer())
        case .completion(let writer): return .answer(writer.answer())
        case .taken: return nil
        }
    }
}

/// One answer of a batch: its events are kept until it has ended.
final class BatchAnswer: @unchecked Sendable {
    let request: BatchRequest
    let choice: Int
    let generationRequest: GenerationRequest
    private struct State {
        var events: [AnswerEvent] = []
        var hasReadPrompt = false
        var growth: AnswerGrowth
    }

    private let state: Mutex<State>
    private let outcome = Mutex<Result<Void, any Error>>(.success(()))
    private var generation: Generation?

    init(_ request: BatchRequest, choice: Int) {
        self.request = request
        self.choice = choice
        var generationRequest = request.requests[choice]
        // No line goes on with another's answer.
        generationRequest.keeping = .prompt
        self.generationRequest = generationRequest
        state = Mutex(State(growth: AnswerGrowth(promptTokens: generationRequest.tokens.count)))
    }

    var hasReadPrompt: Bool { state.withLock { $0.hasReadPrompt } }
    /// Positions that it will take.
    var missingPositions: Int { state.withLock { $0.growth.missing } }
    var result: Result<[AnswerEvent], any Error> { outcome.withLock { $0 }.map { state.withLock { $0.events } } }

    func commonTokens(with other: BatchAnswer) -> Int {
        var count = 0
        for (a, b) in zip(generationRequest.tokens, other.generationRequest.tokens) {
            guard a == b else { break }
            count += 1
        }
        return count
    }

    func start(on engine: Engine, _ kvType: KVType, _ inbox: BatchInbox) {
        do {
            let timeline = try engine.makeTimeline(kvType: kvType)
            let generation = try Generation(generationRequest, on: timeline, engine: engine) { [weak self] event in
                self?.take(event)
            }
            self.generation = generation
            engine.run(generation) { [self] result in
                outcome.withLock { $0 = result }
                inbox.end(self)
            }
        } catch {
            outcome.withLock { $0 = .failure(error) }
            inbox.end(self)
        }
    }

    func cancel() { generation?.cancel() }

    private func take(_ event: AnswerEvent) {
        state.withLock { state in
            state.growth.take(event)
            if case .prefill = event { return }
            state.events.append(event)
            if case .promptLogProbabilities = event { return }
            state.hasReadPrompt = true
        }
    }
}

/// Where ended answers wait for the thread that writes results.
final class BatchInbox: Sendable {
    private let lock = ConditionLock()
    private let arrival: Condition
    private let ended = Mutex<[BatchAnswer]>([])

    init() { arrival = Condition(lock) }

    func end(_ answer: BatchAnswer) {
        lock.with {
            ended.withLock { $0.append(answer) }
            arrival.signal()
        }
    }

    /// Those that have ended, after at most so long.
    func wait(milliseconds: Int) -> [BatchAnswer] {
        lock.with {
            if ended.withLock({ $0.isEmpty }) { arrival.wait(milliseconds: milliseconds) }
            return ended.withLock { ended in
                defer { ended = [] }
                return ended
            }
        }
    }
}
