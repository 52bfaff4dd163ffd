import SampleFiles
import Sigma
import Testing

/// Answers under constraints: phases, ends, and that nothing else changes them.
@Suite struct ConstrainedAnswerTests {
    /// What an answer became.
    struct Outcome: Equatable {
        var thinking = ""
        var text = ""
        var ids: [Int32] = []
        var reason: FinishReason?
        var thinkingWasCut = false
        var logProbabilities: [Double] = []

        init(_ request: GenerationRequest, on engine: Engine) throws {
            let answer = try engine.answer(request, on: engine.makeTimeline(kvType: .f16))
            while let event = try answer.next() { take(event) }
        }

        mutating func take(_ event: AnswerEvent) {
            switch event {
            case .token(let token):
                ids.append(token.id)
                if let logProbability = token.logProbability { logProbabilities.append(logProbability) }
                add(token)
            case .finished(let statistics, let remainder):
                if let remainder { add(remainder) }
                reason = statistics.reason
                thinkingWasCut = statistics.thinkingWasCut
            case .closing(_, let text): thinking += text
            case .prefill, .promptLogProbabilities: break
            }
        }

        private mutating func add(_ token: AnswerToken) {
            if token.phase == .thinking { thinking += token.text } else { text += token.text }
        }
    }

    static func request(
        _ engine: Engine, _ constraint: Constraint, thinks: Bool, temperature: Double = 1.5, topK: Int = 20,
        seed: UInt64 = 1, budget: Int = 40, limit: Int = 200, count: Int? = nil
    ) throws -> GenerationRequest {
        let options = GenerationOptions(
            temperature: temperature, topK: topK, topP: 1, seed: seed, thinks: thinks, thinkingBudget: budget,
            maximumTokens: limit)
        let prompt = try engine.prompt(
            turns: [Turn(.user, "What is \(seed) + \(3 * seed)?")], system: "", options: options)
        return GenerationRequest(
            tokens: prompt.tokens, start: prompt.start, options: options, logProbabilityCount: count,
            constraint: try engine.constraints.compiled(constraint))
    }

    static let schemas = [
        #"{"type":"object","properties":{"sum":{"type":"integer"},"text":{"type":"string","maxLength":12}},"required":["sum","text"],"additionalProperties":false}"#,
        #"{"type":"array","items":{"enum":["red","green",null,7]},"minItems":1,"maxItems":4}"#,
        ##"{"type":"object","properties":{"kind":{"const":"a"},"next":{"anyOf":[{"type":"null"},{"$ref":"#"}]}},"required":["kind"],"additionalProperties":false}"##,
        #"{"type":"string","pattern":"^[a-z]{2,6}-[0-9]{1,3}$"}"#,
        #"{"type":"number","minimum":10,"maximum":99.5}"#,
    ]

    /// A plain reading of the schemas above.
    static func isInstance(_ text: String, of schema: Int) -> Bool {
        // Integers may have any number of digits.
        guard let value = try? JSONValue.parse(text, exactNumbers: true) else { return false }
        switch schema {
        case 0:
            guard let object = value.object, object.keys == ["sum", "text"] else { return false }
            return isInteger(object.values[0])
                && object.values[1].string.map { $0.unicodeScalars.count <= 12 } == true
        case 1:
            guard let items = value.array else { return false }
            return (1...4).contains(items.count)
                && items.allSatisfy { [.string("red"), .string("green"), .null, .integer(7)].contains($0) }
        case 2:
            var rest: JSONValue? = value
            while let value = rest, value != .null {
                guard let object = value.object, object["kind"] == .string("a"),
                    Set(object.keys).isSubset(of: ["kind", "next"])
                else { return false }
                rest = object["next"]
            }
            return true
        case 3: return value.string?.wholeMatch(of: /[a-z]{2,6}-[0-9]{1,3}/) != nil
        default:
            if case .decimal(let text) = value { return Double(text).map { (10...99.5).contains($0) } == true }
            return value.integer.map { (10...99).contains($0) } == true
        }
    }

    private static func isInteger(_ value: JSONValue) -> Bool {
        if case .decimal(let text) = value { return text.wholeMatch(of: /-?[0-9]+/) != nil }
        return value.integer != nil
    }

    /// A trained model and a random one, with and without thinking, at a temperature at which neither writes JSON of its own accord.
    @Test(arguments: schemas.indices) func answersAreInstances(schema: Int) throws {
        let demo = try DemoModel.engine(threads: 1)
        let constraint = Constraint.jsonSchema(Self.schemas[schema])
        var complete = 0
        for seed in 1...6 as ClosedRange<UInt64> {
            for thinks in [true, false] {
                let outcome = try Outcome(
                    Self.request(demo, constraint, thinks: thinks, topK: seed % 2 == 0 ? 0 : 20, seed: seed), on: demo)
                #expect(outcome.thinking.isEmpty != thinks)
                switch outcome.reason {
                case .stop:
                    complete += 1
                    #expect(Self.isInstance(outcome.text, of: schema), "\(outcome.text)")
                case .length: #expect(outcome.ids.count >= 200)
                default: Issue.record("ended by \(String(describing: outcome.reason))")
                }
            }
        }
        #expect(complete >= 4)
    }

    @Test func aRandomModelWritesWhatItMust() throws {
        let engine = try SmallModel.engine()
        var request = engine.request(SmallModel.tokens(20, seed: 1), engine.endless(400, temperature: 1.5))
        request.options.logitBias = [:]
        for (index, schema) in Self.schemas.enumerated() {
            request.constraint = try engine.constraints.compiled(.jsonSchema(schema))
            for seed in 1...5 as ClosedRange<UInt64> {
                request.options.seed = seed
                let outcome = try Outcome(request, on: engine)
                #expect(outcome.reason == .stop ? Self.isInstance(outcome.text, of: index) : outcome.ids.count == 400)
            }
        }
    }

    @Test func aCutThinkingIsFollowedByTheAnswer() throws {
        let engine = try DemoModel.engine(threads: 1)
        for seed in 1...4 as ClosedRange<UInt64> {
            let outcome = try Outcome(
                Self.request(engine, .choice(["yes", "no"]), thinks: true, seed: seed, budget: Int(seed) - 1),
                on: engine)
            #expect(outcome.thinkingWasCut && ["yes", "no"].contains(outcome.text) && outcome.reason == .stop)
        }
    }

    @Test func anAnswerThatIsCutSaysSo() throws {
        let engine = try DemoModel.engine(threads: 1)
        let outcome = try Outcome(
            Self.request(engine, .regex("(ab){40}"), thinks: false, limit: 5), on: engine)
        #expect(
            outcome.reason == .length && outcome.text.count < 80
                && String(repeating: "ab", count: 40).hasPrefix(outcome.text))
        // Complete at its limit is complete.
        let whole = try Outcome(Self.request(engine, .choice(["a"]), thinks: false, limit: 1), on: engine)
        #expect(whole.reason == .stop && whole.text == "a")
    }

    /// The end is allowed where the text is complete, and not before: greedy models end when they may.
    @Test func theEndComesWhereTheTextIsComplete() throws {
        let engine = try DemoModel.engine(threads: 1)
        let end = try #require(engine.stopTokens.first)
        var request = try Self.request(engine, .regex("[0-9]{3,8}"), thinks: false, temperature: 0)
        request.options.logitBias = [end: 1000]
        #expect(try Outcome(request, on: engine).text.count == 3)
        request.options.logitBias = [end: -1000]
        let longest = try Outcome(request, on: engine)
        #expect(longest.text.count == 8 && longest.reason == .stop)
        // Thinking cannot end the answer either.
        request = try Self.request(engine, .choice(["yes"]), thinks: true, temperature: 0)
        request.options.logitBias = [end: 1000]
        let thought = try Outcome(request, on: engine)
        #expect(thought.text == "yes" && thought.reason == .stop)
    }

    @Test func anAnswerMayBeEmptyWhereTheConstraintSaysSo() throws {
        let engine = try DemoModel.engine(threads: 1)
        for thinks in [true, false] {
            var request = try Self.request(engine, .regex("a*"), thinks: thinks)
            request.options.logitBias = Dictionary(uniqueKeysWithValues: engine.stopTokens.map { ($0, 1000) })
            let outcome = try Outcome(request, on: engine)
            #expect(outcome.text.isEmpty && outcome.reason == .stop)
        }
    }

    /// Batches, log-probabilities, other requests and thread counts change nothing.
    @Test func nothingElseChangesTheBytes() async throws {
        let engine = try DemoModel.engine(threads: 2)
        let requests = try (0..<8).map { index in
            try Self.request(
                engine, .jsonSchema(Self.schemas[index % Self.schemas.count]), thinks: index % 2 == 0,
                topK: index % 3 == 0 ? 0 : 20,
                seed: UInt64(index + 1), budget: 12, limit: 60)
        }
        let alone = try requests.map { try AnswerOutcome($0, on: engine) }
        #expect(try await AnswerOutcome.together(requests, on: engine) == alone)
        let single = try DemoModel.engine(threads: 1)
        for (index, request) in requests.enumerated() {
            var request = request
            #expect(try AnswerOutcome(request, on: single).ids == alone[index].ids)
            request.logProbabilityCount = 3
            let shown = try AnswerOutcome(request, on: engine)
            #expect(shown.ids == alone[index].ids)
            #expect(shown.logProbabilities.count == shown.ids.count)
        }
    }

    /// Log-probabilities are the model's own, not those among what is allowed.
    @Test func logProbabilitiesAreTheModelsOwn() throws {
        let engine = try DemoModel.engine(threads: 1)
        let request = try Self.request(engine, .choice(["zebra"]), thinks: false, count: 1)
        let outcome = try Outcome(request, on: engine)
        #expect(outcome.text == "zebra")
        // The same tokens, scored as a prompt.
        var scored = request
        scored.constraint = nil
        scored.tokens += outcome.ids
        scored.options.maximumTokens = 0
        var expected: [Double] = []
        let answer = try engine.answer(scored, on: engine.makeTimeline(kvType: .f16))
        while let event = try answer.next() {
            guard case .promptLogProbabilities(let positions) = event else { continue }
            expected = positions.dropFirst(request.tokens.count - 1).compactMap { $0.next?.logProbability }
        }
        #expect(outcome.logProbabilities == expected && expected.contains { $0 < -1 })
    }

    @Test func whatCannotBeHonouredIsRefused() throws {
        let engine = try SmallModel.engine()
        let schema = #"{"properties":{"a":{"type":"array","uniqueItems":true}}}"#
        #expect {
            try engine.constraints.compiled(.jsonSchema(schema))
        } throws: { error in
            guard let error = error as? SigmaError else { return false }
            return error.kind == .usage && error.item == "#/properties/a/uniqueItems"
        }
    }
}
