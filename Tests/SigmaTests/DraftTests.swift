import SampleFiles
import Sigma
import Synchronization
import Testing

/// Drafts change no byte of an answer: whatever is guessed, at any temperature, under a budget, and beside others.
@Suite struct DraftTests {
    /// Everything that an answer is, and what it leaves in its sequence.
    struct Whole: Equatable {
        var tokens: [AnswerToken] = []
        var closings: [[Int32]] = []
        var reason: FinishReason?
        var stopToken: AnswerToken?
        var stopString: String?
        var remainder: AnswerToken?
        var sequence: [Int32] = []
        var stored = 0

        mutating func take(_ event: AnswerEvent) {
            switch event {
            case .token(let token): tokens.append(token)
            case .closing(let ids, _): closings.append(ids)
            case .finished(let statistics, let remainder):
                (reason, stopToken) = (statistics.reason, statistics.stopToken)
                (stopString, self.remainder) = (statistics.stopString, remainder)
            case .prefill, .promptLogProbabilities: break
            }
        }

        mutating func take(_ timeline: Timeline) { (sequence, stored) = (timeline.tokens, timeline.sequence.length) }
    }

    static func answers(
        _ requests: [GenerationRequest], on engine: Engine, kvTypes: [KVType]? = nil
    ) async throws -> [Whole] {
        let gate = try EngineGate(engine)
        let timelines = try requests.indices.map { try engine.makeTimeline(kvType: kvTypes?[$0] ?? .f16) }
        let answers = try zip(requests, timelines).map { try engine.answer($0, on: $1) }
        gate.open()
        var wholes: [Whole] = []
        for (answer, timeline) in zip(answers, timelines) {
            var whole = Whole()
            for try await event in answer { whole.take(event) }
            whole.take(timeline)
            // Under a budget those that go on take the keys and values of those that have ended.
            if whole.stored == 0 { whole.stored = whole.sequence.count }
            wholes.append(whole)
        }
        return wholes
    }

    static func answer(_ request: GenerationRequest, on engine: Engine, kvType: KVType = .f16) throws -> Whole {
        let timeline = try engine.makeTimeline(kvType: kvType)
        let answer = try engine.answer(request, on: timeline)
        var whole = Whole()
        while let event = try answer.next() { whole.take(event) }
        whole.take(timeline)
        return whole
    }

    struct Tally {
        var accepted = 0
        var rejected = 0
        mutating func add(_ engine: Engine) {
            let reading = engine.gauge.reading
            accepted += reading.acceptedDraftTokens
            rejected += reading.draftedTokens - reading.acceptedDraftTokens
        }
    }

    /// With measured times deciding, too.
    @Test func theAutomaticModeGivesTheSame() async throws {
        let engine = try SmallModel.engine()
        var requests: [GenerationRequest] = []
        for temperature in [0, 0.6] {
            var options = engine.endless(60, temperature: temperature, seed: 4)
            options.drafts = .off
            requests.append(engine.request(SmallModel.tokens(40, seed: 2), options))
        }
        let expected = try requests.map { try Self.answer($0, on: engine) }
        for (index, whole) in expected.enumerated() {
            requests[index].options.drafts = .auto
            #expect(try Self.answer(requests[index], on: engine) == whole)
            requests[index].draftSource = PartlyRight(
                sequence: requests[index].tokens + whole.tokens.map(\.id), share: 0.95)
            #expect(try Self.answer(requests[index], on: engine) == whole)
        }
        let together = try await Self.answers(requests, on: engine)
        #expect(together == expected)
    }

    // MARK: - Ends

    /// Stop strings, budgets of thinking, limits and contexts inside a draft.
    @Test func endsInsideADraftAreTheSame() throws {
        let engine = try DemoModel.engine()
        var tally = Tally()
        var reasons: [FinishReason: Int] = [:]
        var cut = 0
        func check(_ options: GenerationOptions, on engine: Engine, _ text: String) throws {
            var options = options
            options.drafts = .off
            let prompt = try engine.prompt(turns: [Turn(.user, text)], system: "", options: options)
            var request = GenerationRequest(tokens: prompt.tokens, start: prompt.start, options: options)
            let whole = try Self.answer(request, on: engine)
            // Without the end that is looked for, the guesses go on behind it.
            request.options.stopStrings = []
            request.options.maximumTokens = 200
            let further = try Self.answer(request, on: engine)
            for share in [nil, 1, 0.8] {
                request.options = options
                request.options.drafts = .on
                request.draftSource = share.map {
                    PartlyRight(sequence: further.sequence + further.tokens.suffix(1).map(\.id), share: $0)
                }
                #expect(try Self.answer(request, on: engine) == whole, "\(options)")
            }
            reasons[whole.reason!, default: 0] += 1
            if !whole.closings.isEmpty { cut += 1 }
        }
        let base = GenerationOptions(temperature: 0.6, seed: 2, thinkingBudget: 200, maximumTokens: 100)
        for (index, text) in ["What is 347 + 586?", "What is 12 * 11?"].enumerated() {
            var options = base
            options.seed = UInt64(index)
            try check(options, on: engine, text)
            for budget in [0, 1, 7, 20] {
                options.thinkingBudget = budget
                try check(options, on: engine, text)
            }
            options.thinkingBudget = 200
            for limit in [1, 2, 3, 5, 9] {
                options.maximumTokens = limit
                try check(options, on: engine, text)
            }
            options = base
            options.thinks = index == 0
            for stop in [["3"], ["1", " "], ["e", "is"]] {
                options.stopStrings = stop
                try check(options, on: engine, text)
            }
        }
        tally.add(engine)
        for context in [60, 77, 90] {
            let short = try DemoModel.engine(context: context)
            try check(base, on: short, "What is 347 + 586?")
            tally.add(short)
        }
        #expect(reasons[.stop] ?? 0 > 3 && reasons[.length] ?? 0 > 3 && reasons[.context] ?? 0 > 0, "\(reasons)")
        #expect(cut >= 6)
        #expect(tally.accepted > 500 && tally.rejected > 50, "\(tally)")
    }

    /// Cancelled at any token, an answer and its sequence are what they are without drafts.
    @Test func cancellationInsideADraftIsTheSame() throws {
        let engine = try SmallModel.engine()
        var options = engine.endless(40, temperature: 0, seed: 1)
        options.drafts = .off
        let prompt = SmallModel.tokens(30, seed: 5)
        let whole = try Self.answer(engine.request(prompt, options), on: engine)
        let box = Mutex<Generation?>(nil)
        func cancelled(at count: Int, _ request: GenerationRequest) throws -> Whole {
            let timeline = try engine.makeTimeline(kvType: .f16)
            let found = Mutex(Whole())
            let generation = try Generation(request, on: timeline, engine: engine) { event in
                let isDue = found.withLock {
                    $0.take(event)
                    return $0.tokens.count == count
                }
                if isDue { box.withLock { $0 }?.cancel() }
            }
            box.withLock { $0 = generation }
            let ended = ConditionLock()
            let change = Condition(ended)
            let isOver = Mutex(false)
            engine.run(generation) { _ in
                ended.with {
                    isOver.withLock { $0 = true }
                    change.broadcast()
                }
            }
            ended.with { while !isOver.withLock({ $0 }) { change.wait() } }
            box.withLock { $0 = nil }
            return found.withLock {
                $0.take(timeline)
                return $0
            }
        }
        let before = engine.gauge.reading.acceptedDraftTokens
        for count in [1, 2, 5, 6, 7, 8, 20, 39] {
            var request = engine.request(prompt, options)
            let expected = try cancelled(at: count, request)
            #expect(expected.reason == .interrupted && expected.tokens.count == count)
            request.options.drafts = .on
            request.draftSource = PartlyRight(sequence: prompt + whole.tokens.map(\.id), share: 1)
            #expect(try cancelled(at: count, request) == expected)
        }
        #expect(engine.gauge.reading.acceptedDraftTokens > before + 30)
    }

    // MARK: - Constraints

    @Test func constrainedAnswersAreTheSame() throws {
        let engine = try DemoModel.engine()
        var tally = Tally()
        var forced = 0
        for (index, schema) in ConstrainedAnswerTests.schemas.enumerated() {
            for temperature in [0, 1.2] {
                for thinks in [false, true] {
                    var request = try ConstrainedAnswerTests.request(
                        engine, .jsonSchema(schema), thinks: thinks, temperature: temperature, seed: UInt64(index + 1),
                        budget: 20, limit: 60, count: index == 1 ? 2 : nil)
                    request.options.drafts = .off
                    let whole = try Self.answer(request, on: engine)
                    request.options.drafts = .on
                    let before = engine.gauge.reading.acceptedDraftTokens
                    #expect(try Self.answer(request, on: engine) == whole, "\(schema), \(temperature)")
                    forced += engine.gauge.reading.acceptedDraftTokens - before
                    request.draftSource = PartlyRight(
                        sequence: whole.sequence + whole.tokens.suffix(1).map(\.id), share: 0.8)
                    #expect(try Self.answer(request, on: engine) == whole, "\(schema), \(temperature)")
                }
            }
        }
        tally.add(engine)
        #expect(tally.accepted > 100 && tally.rejected > 10, "\(tally)")
        #expect(forced > 10, "\(forced) tokens that constraints force, or that repeat")
    }

    /// Calls, or else an answer under a constraint: thinking before it, either way, whatever is guessed.
    @Test func callsOrAnswersAreTheSame() throws {
        let engine = try DemoModel.engine()
        let calls = FunctionCalls([
            .init(name: "now", parameters: nil), .init(name: "sum", parameters: ConstrainedAnswerTests.schemas[0]),
        ])
        let constraint = try engine.constraints.compiled(calls, or: .jsonSchema(ConstrainedAnswerTests.schemas[2]))
        var tally = Tally()
        var ways: Set<Bool> = []
        for seed in 1...8 as ClosedRange<UInt64> {
            for thinks in [false, true] {
                var request = try ConstrainedAnswerTests.request(
                    engine, .json, thinks: thinks, temperature: seed % 4 == 0 ? 0 : 1.2, topK: 0, seed: seed,
                    budget: 20,
                    limit: 60, count: seed == 2 ? 2 : nil)
                request.constraint = constraint
                // The model is as likely to call as not.
                let (tag, brace) = (Int32(UInt8(ascii: "<")), Int32(UInt8(ascii: "{")))
                request.options.logitBias = [tag: seed % 2 == 0 ? 60 : -60, brace: seed % 2 == 0 ? -60 : 60]
                request.options.drafts = .off
                let whole = try Self.answer(request, on: engine)
                let text = whole.tokens.filter { $0.phase == .answer }.map(\.text).joined()
                ways.insert(text.hasPrefix("<tool_call>\n{"))
                #expect(text.hasPrefix("<tool_call>\n") || text.hasPrefix("{"), "\(text)")
                request.options.drafts = .on
                #expect(try Self.answer(request, on: engine) == whole, "\(seed), \(thinks)")
                request.draftSource = PartlyRight(
                    sequence: whole.sequence + whole.tokens.suffix(1).map(\.id), share: 0.8)
                #expect(try Self.answer(request, on: engine) == whole, "\(seed), \(thinks)")
            }
        }
        tally.add(engine)
        #expect(ways.count == 2 && tally.accepted > 50 && tally.rejected > 5, "\(ways), \(tally)")
    }

    // MARK: - What observers see

    @Test func observersSeeKeptRowsOnly() throws {
        final class Seen: RoutingObserver {
            let tokens = Mutex<[(position: Int, token: Int32, experts: [Int])]>([])
            func observe(_ routed: RoutedTokens) {
                tokens.withLock { seen in
                    for (row, token) in zip(routed.rows, routed.tokens) {
                        seen.append(
                            (
                                routed.position + row - routed.rows.lowerBound, token,
                                (0..<2).map { routed.record.chosen(row: row, layer: $0, choice: 0) }
                            ))
                    }
                }
            }
        }
        let engine = try SmallModel.engine()
        var options = engine.endless(30, temperature: 0.6, seed: 1)
        options.drafts = .off
        var request = engine.request(SmallModel.tokens(30, seed: 6), options)
        let ordinary = Seen()
        request.routingObserver = ordinary
        let whole = try Self.answer(request, on: engine)
        let drafted = Seen()
        request.routingObserver = drafted
        request.options.drafts = .on
        request.draftSource = PartlyRight(sequence: request.tokens + whole.tokens.map(\.id), share: 0.7)
        #expect(try Self.answer(request, on: engine) == whole)
        let (expected, found) = (ordinary.tokens.withLock { $0 }, drafted.tokens.withLock { $0 })
        #expect(expected.map(\.position) == found.map(\.position))
        #expect(expected.map(\.token) == found.map(\.token))
        #expect(expected.map(\.experts) == found.map(\.experts))
        #expect(engine.gauge.reading.draftedTokens > engine.gauge.reading.acceptedDraftTokens)
    }

    /// Float weights' sums depend on the shape of a step.
    @Test func floatModelsNeverDraft() throws {
        let model = try DemoModel.convert(.f32)
        let engine = try Engine(model: model, backend: CPUBackend(model: model, threadCount: 2))
        var options = GenerationOptions(temperature: 0, thinkingBudget: 60, maximumTokens: 40)
        options.drafts = .on
        let prompt = try engine.prompt(turns: [Turn(.user, "What is 1 + 1?")], system: "", options: options)
        _ = try Self.answer(
            GenerationRequest(tokens: prompt.tokens, start: prompt.start, options: options), on: engine)
        #expect(engine.gauge.reading.draftedTokens == 0)
    }

    @Test func statisticsCountDrafts() throws {
        let engine = try SmallModel.engine()
        var options = engine.endless(33, temperature: 0, seed: 1)
        options.drafts = .on
        let answer = try engine.answer(
            engine.request(SmallModel.tokens(30, seed: 7), options), on: engine.makeTimeline(kvType: .f16))
        var statistics: Statistics?
        while let event = try answer.next() { if case .finished(let found, _) = event { statistics = found } }
        let found = try #require(statistics)
        // The first token comes with the prompt.
        #expect(found.generationSteps + found.acceptedDraftTokens == 32 && found.steppedTokens == 32)
        #expect(found.draftedTokens >= found.acceptedDraftTokens)
    }
}
