import Sigma
import Synchronization
import Testing

/// Routing of live sessions.
@Suite struct RoutingMonitorTests {
    final class Seen: Sendable {
        let tokens = Mutex<[RoutingMonitor.Token]>([])
    }

    static func model(rowLimit: Int = 512) throws -> SigmaModel {
        SigmaModel(engine: try DemoModel.engine(rowLimit: rowLimit), configuration: .init())
    }

    @Test(arguments: [512, 5]) func everyComputedTokenIsSeen(rowLimit: Int) async throws {
        let model = try Self.model(rowLimit: rowLimit)
        let seen = Seen()
        let monitor = try RoutingMonitor(for: model) { token in seen.tokens.withLock { $0.append(token) } }
        #expect(monitor.report.tokens == 0)
        let session = model.makeSession(options: GenerationOptions(temperature: 0), routing: monitor)
        let first = try #require(try await Answer(session, "What is 12 + 35?").statistics)
        // The token that ends the answer is never computed.
        let computed = first.promptTokens + first.steppedTokens
        #expect(monitor.report.tokens == computed)
        let tokens = seen.tokens.withLock { $0 }
        #expect(tokens.map(\.position) == Array(0..<computed))

        // What the session used is what the text uses: read again, token by token.
        let report = try RoutingStatisticsTests.survey(
            DemoModel.file(), tokens.map(\.id), context: computed, kvType: .f16)
        #expect(report.layers.map(\.counts) == monitor.report.layers.map(\.counts))
        #expect(report.layers.map(\.gatingProbability) == monitor.report.layers.map(\.gatingProbability))
        #expect(report.cache.leastRecentlyUsed == monitor.report.cache.leastRecentlyUsed)
        for (layer, load) in report.layers.enumerated() {
            var counts = [Int](repeating: 0, count: report.expertCount)
            for token in tokens { for expert in token.experts[layer] { counts[expert] += 1 } }
            #expect(counts == load.counts)
        }

        // A second turn computes only what the cache does not hold.
        let second = try #require(try await Answer(session, "And 58 - 23?").statistics)
        #expect(second.reusedPromptTokens > 0)
        #expect(
            monitor.report.tokens
                == computed + second.promptTokens - second.reusedPromptTokens + second.steppedTokens)
        monitor.reset()
        #expect(monitor.report.tokens == 0 && monitor.report.cache.accesses == 0)
    }

    /// Sessions side by side in one batch: a monitor sees those it was given to, and answers do not change.
    @Test func sessionsSideBySide() async throws {
        let model = try Self.model(rowLimit: 48)
        let questions = (0..<4).map { "What is \($0 * 31) + \($0 * 17 + 5)?" }
        var alone: [Answer] = []
        var counts: [[Int]] = []
        for question in questions {
            let monitor = try RoutingMonitor(for: model)
            let session = model.makeSession(options: GenerationOptions(temperature: 0), routing: monitor)
            alone.append(try await Answer(session, question))
            counts.append(monitor.report.layers.flatMap(\.counts))
        }
        let shared = try RoutingMonitor(for: model)
        let answers = Mutex([Int: Answer]())
        try await withThrowingTaskGroup(of: (Int, Answer).self) { group in
            for (index, question) in questions.enumerated() {
                // Two are watched.
                let session = model.makeSession(
                    options: GenerationOptions(temperature: 0), routing: index % 2 == 0 ? shared : nil)
                group.addTask { (index, try await Answer(session, question)) }
            }
            for try await (index, answer) in group { answers.withLock { $0[index] = answer } }
        }
        for index in questions.indices { #expect(answers.withLock { $0[index] } == alone[index]) }
        #expect(shared.report.layers.flatMap(\.counts) == zip(counts[0], counts[2]).map(+))
    }

    @Test func interruptedAnswersCountWhatWasComputed() async throws {
        let model = try Self.model()
        let seen = Seen()
        let monitor = try RoutingMonitor(for: model) { token in seen.tokens.withLock { $0.append(token) } }
        let session = model.makeSession(options: GenerationOptions(temperature: 0), routing: monitor)
        for try await update in session.stream(to: "What is 123456 * 78?") {
            if case .reasoning = update { break }
        }
        // The next request waits for the end of the one that was dropped.
        _ = try await Answer(session, "What is 1 + 2?")
        let report = monitor.report
        #expect(report.tokens == seen.tokens.withLock { $0.count })
        for layer in report.layers { #expect(layer.counts.reduce(0, +) == report.tokens) }
    }
}
