import Dispatch
import Sigma
import Testing

/// Tokens in, logits out.
@Suite struct TokenSequenceTests {
    static func model(_ engine: Engine) -> SigmaModel { SigmaModel(engine: engine, configuration: .init()) }

    @Test func logitsAreTheForwardPasss() async throws {
        let engine = try DemoModel.engine(rowLimit: 7)
        let model = Self.model(engine)
        let tokens = try model.tokens(of: "What is 12 + 35? It is 47, I think, and not 48.")
        try #require(tokens.count > 14)
        let runner = try Runner(DemoModel.file())
        let width = runner.vocabulary
        let expected = try runner.logits(tokens, kvType: .f16)

        let sequence = try model.makeSequence()
        let rows = try await sequence.append(tokens) { position, logits in
            (position, (0..<logits.count).map { logits[$0] })
        }
        #expect(rows.map(\.0) == Array(tokens.indices))
        #expect(rows.flatMap(\.1).map(\.bitPattern) == expected.map(\.bitPattern))
        #expect(try sequence.tokens == tokens)

        // In pieces, and after going back.
        try sequence.truncate(to: 5)
        let last = try await sequence.append(Array(tokens[5...]))
        #expect(last.map(\.bitPattern) == expected.suffix(width).map(\.bitPattern))
        try sequence.truncate(to: tokens.count - 1)
        #expect(try await sequence.append([tokens.last!]) == last)
    }

    @Test func choosingTheLikeliestIsGreedyGeneration() async throws {
        let engine = try DemoModel.engine()
        let model = Self.model(engine)
        let prompt = try engine.prompt(turns: [Turn(.user, "What is 12 + 35?")], system: "", thinks: false)
        let answer = try await Answer(
            model.makeSession(options: GenerationOptions(temperature: 0, thinks: false)), "What is 12 + 35?")
        let sequence = try model.makeSequence()
        var logits = try await sequence.append(prompt.tokens)
        var chosen: [Int32] = []
        while let best = logits.indices.filter({ model.allows(Int32($0)) }).max(by: { logits[$0] < logits[$1] }),
            !model.stopTokens.contains(Int32(best)), chosen.count < 100
        {
            chosen.append(Int32(best))
            logits = try await sequence.append([Int32(best)])
        }
        #expect(try model.text(of: chosen) == answer.text && !answer.text.isEmpty)
        #expect(try model.tokens(of: answer.text).isEmpty == false)
    }

    @Test func wrongTokensAreRefusedAndChangeNothing() async throws {
        let engine = try DemoModel.engine(context: 6)
        let sequence = try Self.model(engine).makeSequence()
        _ = try await sequence.append([1, 2, 3])
        for tokens in [[], [-1], [Int32(engine.vocabularySize)], [1, 2, 3, 4]] as [[Int32]] {
            let error = await #expect(throws: SigmaError.self) { try await sequence.append(tokens) }
            #expect(error?.kind == .usage)
            #expect(try sequence.tokens == [1, 2, 3])
        }
        for count in [-1, 4] { #expect(throws: SigmaError.self) { try sequence.truncate(to: count) } }
        _ = try await sequence.append([4, 5, 6])
        #expect(try sequence.tokens.count == 6)
    }

    /// Although the first of its steps has stored tokens.
    @Test func whatAFailedAppendHasBegunGoes() async throws {
        let (engine, backend) = try SchedulerTests.engine()
        let sequence = try Self.model(engine).makeSequence()
        let tokens = try Self.model(engine).tokens(of: (0..<60).map { "\($0)" }.joined(separator: " "))
        try #require(tokens.count > 2 * backend.rowLimit)
        let first = try await sequence.append(Array(tokens[..<5]))
        backend.marked.withLock { $0 = nil }
        let error = await #expect(throws: SigmaError.self) { try await sequence.append(Array(tokens[5...])) }
        #expect(error?.kind == .unavailable)
        #expect(try sequence.tokens == Array(tokens[..<5]))
        backend.marked.withLock { $0 = [] }
        try sequence.truncate(to: 4)
        #expect(try await sequence.append([tokens[4]]) == first)
    }

    struct Enough: Error {}

    @Test func whatTheClosureThrowsEndsTheWork() async throws {
        let engine = try DemoModel.engine(rowLimit: 4)
        let sequence = try Self.model(engine).makeSequence()
        let before = try await sequence.append([5, 6])
        await #expect(throws: Enough.self) {
            try await sequence.append(Array(1...20)) { position, _ in if position == 9 { throw Enough() } }
        }
        #expect(try sequence.tokens == [5, 6])
        try sequence.truncate(to: 0)
        #expect(try await sequence.append([5, 6]) == before)
    }

    @Test func cancellingTakesEverythingBack() async throws {
        let engine = try DemoModel.engine(threads: 1, rowLimit: 1)
        let sequence = try Self.model(engine).makeSequence()
        _ = try await sequence.append([5, 6])
        let (steps, step) = AsyncStream<Int>.makeStream()
        let mayGoOn = DispatchSemaphore(value: 0)
        let task = Task {
            try await sequence.append(Array(repeating: 9, count: 300)) { position, _ in
                _ = step.yield(position)
                // In the middle, until the task is cancelled.
                if position == 6 { mayGoOn.wait() }
            }
        }
        for await position in steps where position >= 4 { break }
        #expect(throws: SigmaError.self) { try sequence.truncate(to: 0) }
        let error = await #expect(throws: SigmaError.self) { try await sequence.append([1]) }
        #expect(error?.kind == .usage)
        task.cancel()
        mayGoOn.signal()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(try sequence.tokens == [5, 6])
    }
}
