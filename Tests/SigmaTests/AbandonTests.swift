import Sigma
import Synchronization
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Streams that are left at random points: by leaving the loop, by cancelling the task, by `stop()`, by never reading them.
@Suite struct AbandonTests {
    /// Repeats; SIGMA_ABANDON in the environment says how many instead, for long runs and slow sanitizers.
    static let rounds = ProcessInfo.processInfo.environment["SIGMA_ABANDON"].flatMap(Int.init) ?? 240
    static let questions = ["What is 1 + 2?", "What is 99 + 1?", "What is 347 + 586?", "What is 70 - 8?"]
    static let options = GenerationOptions(
        temperature: 1.2, topK: 40, topP: 1, seed: 5, thinkingBudget: 24, maximumTokens: 12)

    /// Sessions that should be gone in the end.
    final class WeakSessions: Sendable {
        private let all = Mutex<[@Sendable () -> Session?]>([])
        func append(_ session: Session) { all.withLock { $0.append { [weak session] in session } } }
        var count: Int { all.withLock { $0.count } }
        var living: Int { all.withLock { $0.filter { $0() != nil }.count } }
    }

    @Test func abandonedStreamsLeaveNothingBehind() async throws {
        let sessionCount = 4
        weak var lastEngine: Engine?
        let sessions = WeakSessions()
        do {
            let engine = try DemoModel.engine(threads: 2, rowLimit: 16)
            lastEngine = engine
            var expected: [String: Answer] = [:]
            for question in Self.questions {
                expected[question] = try await Answer(DemoModel.session(engine, options: Self.options), question)
            }
            let answers = expected
            try await withThrowingTaskGroup(of: Int.self) { group in
                for member in 0..<sessionCount {
                    let session = DemoModel.session(engine, options: Self.options)
                    sessions.append(session)
                    group.addTask {
                        try await Self.abandon(
                            session, rounds: Self.rounds / sessionCount, seed: UInt64(member), answers)
                    }
                }
                let wholeAnswers = try await group.reduce(0, +)
                #expect(wholeAnswers > 0)
            }
        }
        // The engine's thread lets go of the last step's work after its end is heard.
        for _ in 0..<60_000 where lastEngine != nil { try await Task.sleep(for: .milliseconds(2)) }
        #expect(lastEngine == nil)
        #expect(sessions.count == sessionCount && sessions.living == 0)
    }

    /// Leaves streams in all ways; now and then lets one come to its end, which must give the answer of a session that is alone.
    /// - Returns: how many did.
    static func abandon(
        _ session: Session, rounds: Int, seed: UInt64, _ answers: [String: Answer]
    ) async throws -> Int {
        var random = SplitMix64(state: seed)
        var whole = 0
        for _ in 0..<rounds {
            let question = questions[Int.random(in: 0..<questions.count, using: &random)]
            let stopAfter = Int.random(in: 0..<40, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0:
                // Never read.
                _ = session.stream(to: question)
            case 1:
                let task = Task {
                    var count = 0
                    for try await _ in session.stream(to: question) { count += 1 }
                    return count
                }
                for _ in 0..<stopAfter { await Task.yield() }
                task.cancel()
                _ = try await task.value
            case 2:
                var count = 0
                for try await update in session.stream(to: question) {
                    count += 1
                    if count == stopAfter { session.stop() }
                    if case .finished(let statistics) = update, statistics.reason == .interrupted {
                        #expect(session.turns.count <= 2)
                    }
                }
                try session.rewind(to: 0)
            case 3:
                // Two at once: the first is dropped before the second is asked for.
                _ = session.stream(to: question)
                _ = session.stream(to: question)
                let warming = Task { try await session.prewarm() }
                await Task.yield()
                warming.cancel()
                _ = try? await warming.value
            case 4:
                var count = 0
                for try await _ in session.stream(to: question) {
                    count += 1
                    if count > stopAfter { break }
                }
            default:
                // At once: what was left just before may still be in its last step.
                #expect(try await Answer(session, question) == answers[question])
                whole += 1
            }
            // A stream that was left behind its last token has become a turn; else the next request follows at once.
            if !session.turns.isEmpty { try await settle(session) }
        }
        return whole
    }

    /// Begins anew, as soon as the session can.
    static func settle(_ session: Session) async throws {
        while true {
            do {
                try session.rewind(to: 0)
                return
            } catch let error as SigmaError where error.kind == .usage { try await Task.sleep(for: .microseconds(200)) }
        }
    }
}
