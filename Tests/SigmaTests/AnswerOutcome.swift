import Sigma
import Synchronization

/// What an answer gave, whichever way it was read.
struct AnswerOutcome: Equatable {
    var ids: [Int32] = []
    var reason: FinishReason?
    var logProbabilities: [Double] = []

    mutating func take(_ event: AnswerEvent) {
        switch event {
        case .token(let token):
            ids.append(token.id)
            if let logProbability = token.logProbability { logProbabilities.append(logProbability) }
        case .finished(let statistics, _): reason = statistics.reason
        case .prefill, .promptLogProbabilities, .closing: break
        }
    }

    init() {}

    /// Reads an answer to its end, on this thread.
    init(_ request: GenerationRequest, on engine: Engine, kvType: KVType = .f16) throws {
        let answer = try engine.answer(request, on: engine.makeTimeline(kvType: kvType))
        while let event = try answer.next() { take(event) }
    }

    /// Answers that are all there before the first of them has a step, read side by side.
    static func together(
        _ requests: [GenerationRequest], on engine: Engine, kvType: KVType = .f16
    ) async throws -> [AnswerOutcome] {
        let gate = try EngineGate(engine)
        let answers = try requests.map { try engine.answer($0, on: engine.makeTimeline(kvType: kvType)) }
        gate.open()
        return try await withThrowingTaskGroup(of: (Int, AnswerOutcome).self) { group in
            for (index, answer) in answers.enumerated() {
                group.addTask {
                    var outcome = AnswerOutcome()
                    for try await event in answer { outcome.take(event) }
                    return (index, outcome)
                }
            }
            var outcomes = [AnswerOutcome](repeating: AnswerOutcome(), count: answers.count)
            for try await (index, outcome) in group { outcomes[index] = outcome }
            return outcomes
        }
    }
}

/// Holds an engine's thread until it is opened, so that work can gather.
final class EngineGate: Sendable {
    private let lock = ConditionLock()
    private let change: Condition
    private let states = Mutex((isHeld: false, isOpen: false))

    /// Returns once the engine's thread is held.
    init(_ engine: Engine) throws {
        change = Condition(lock)
        var options = engine.endless(1, temperature: 0)
        options.maximumTokens = 0
        let answer = try engine.answer(engine.request([1], options), on: engine.makeTimeline(kvType: .f16)) {
            [lock, change] event in
            guard case .finished = event else { return }
            lock.with {
                self.states.withLock { $0.isHeld = true }
                change.broadcast()
                while !self.states.withLock({ $0.isOpen }) { change.wait() }
            }
        }
        lock.with { while !states.withLock({ $0.isHeld }) { change.wait() } }
        _ = answer
    }

    func open() {
        lock.with {
            states.withLock { $0.isOpen = true }
            change.broadcast()
        }
    }
}
