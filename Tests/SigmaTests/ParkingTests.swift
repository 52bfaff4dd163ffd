import SampleFiles
import Sigma
import Testing

/// Answers that have to share too little memory: each ends as if it were alone.
@Suite struct ParkingTests {
    /// An engine with room for the keys and values of `blocks` blocks of 256 positions of one sequence, and little else.
    static func engine(blocks: Int, kvType: KVType, isResident: Bool = true) throws -> Engine {
        let model = try SmallModel.file()
        let c = model.configuration
        let engine = try SmallModel.engine(
            budget: blocks * c.kvBlockBytes(kvType) - c.kvBlockBytes(.f16) + 64 << 10, isResident: isResident)
        try #require(engine.positionLimit(kvType: kvType) == blocks * KVBlockLayout.length)
        return engine
    }

    private static func requests(_ count: Int, on engine: Engine, promptTokens: Int, _ tokens: Int)
        -> [GenerationRequest]
    {
        (0..<count).map { index in
            engine.request(
                SmallModel.tokens(promptTokens + 7 * index, seed: UInt64(index)),
                engine.endless(tokens - 5 * index, seed: UInt64(50 + index)))
        }
    }

    struct Company: Sendable, CustomTestStringConvertible {
        var count: Int
        var kvType: KVType
        var isResident: Bool
        var testDescription: String { "\(count) of \(kvType), \(isResident ? "resident" : "slots")" }

        static let all = [2, 3, 5].flatMap { count in
            [KVType.f16, .q8_0].map { Company(count: count, kvType: $0, isResident: count != 3) }
        }
    }

    @Test(arguments: Company.all) func answersThatDoNotFitTogetherEndAsAlone(_ company: Company) async throws {
        let plenty = try SmallModel.engine()
        // 250 and more tokens of a prompt, then so many more that a third block is needed.
        let requests = Self.requests(company.count, on: plenty, promptTokens: 250, 290)
        let expected = try requests.map { try AnswerOutcome($0, on: plenty, kvType: company.kvType) }
        #expect(expected.allSatisfy { $0.reason == .length && $0.ids.count > 260 })
        let engine = try Self.engine(blocks: 3, kvType: company.kvType, isResident: company.isResident)
        let together = try await AnswerOutcome.together(requests, on: engine, kvType: company.kvType)
        #expect(together == expected)
        // The memory is free again: the same once more.
        #expect(try AnswerOutcome(requests[0], on: engine, kvType: company.kvType) == expected[0])
    }

    @Test func answersThatReachTheLimitTogetherReachTheSameAsAlone() async throws {
        let engine = try Self.engine(blocks: 2, kvType: .f16)
        let requests = Self.requests(3, on: engine, promptTokens: 300, 2000)
        let expected = try requests.map { try AnswerOutcome($0, on: engine) }
        #expect(expected.allSatisfy { $0.reason == .context })
        #expect(try await AnswerOutcome.together(requests, on: engine) == expected)
    }

    @Test func idleSequencesGiveTheirMemoryAndGoOnRight() throws {
        let plenty = try SmallModel.engine()
        let scarce = try Self.engine(blocks: 3, kvType: .f16)
        /// Three timelines in turns, each of which goes on where it was; now and then from further back.
        func run(_ engine: Engine) throws -> (outcomes: [AnswerOutcome], reused: [Int]) {
            let timelines = try (0..<3).map { _ in try engine.makeTimeline(kvType: .f16) }
            var histories = (0..<3).map { SmallModel.tokens(200 + $0 * 60, seed: UInt64($0)) }
            var outcomes: [AnswerOutcome] = []
            var reused: [Int] = []
            for round in 0..<4 {
                for index in timelines.indices {
                    if round == 2 { histories[index].removeLast(histories[index].count / 2) }
                    histories[index] += SmallModel.tokens(20, seed: UInt64(100 + round))
                    var outcome = AnswerOutcome()
                    let answer = try engine.answer(
                        engine.request(histories[index], engine.endless(30, seed: UInt64(round))), on: timelines[index])
                    while let event = try answer.next() {
                        outcome.take(event)
                        if case .finished(let statistics, _) = event { reused.append(statistics.reusedPromptTokens) }
                    }
                    histories[index] += outcome.ids
                    outcomes.append(outcome)
                    #expect(timelines[index].tokens.count == timelines[index].sequence.length)
                    #expect(timelines[index].tokens == Array(histories[index].dropLast()))
                }
            }
            return (outcomes, reused)
        }
        let (expected, reused) = try run(plenty)
        let (found, reusedOfScarce) = try run(scarce)
        #expect(found == expected)
        // Sequences were given up: in plenty every one goes on where it was.
        #expect(reused[3...].allSatisfy { $0 > 0 } && reusedOfScarce[3...].contains(0))
    }

    @Test func anAnswerThatNobodyReadsHoldsUpNobodysMemory() async throws {
        let plenty = try SmallModel.engine()
        let unread = plenty.request(SmallModel.tokens(300, seed: 1), plenty.endless(300, seed: 1))
        let read = plenty.request(SmallModel.tokens(300, seed: 2), plenty.endless(300, seed: 2))
        let expected = try [unread, read].map { try AnswerOutcome($0, on: plenty) }
        let engine = try Self.engine(blocks: 3, kvType: .f16)
        // The one that is not read comes first or last: it is the older, or the one that is parked.
        for isFirst in [true, false] {
            let gate = try EngineGate(engine)
            var slow: [AnswerEvent] = []
            let first = try engine.answer(isFirst ? unread : read, on: engine.makeTimeline(kvType: .f16))
            let second = try engine.answer(isFirst ? read : unread, on: engine.makeTimeline(kvType: .f16))
            gate.open()
            var outcome = AnswerOutcome()
            while let event = try (isFirst ? second : first).next() { outcome.take(event) }
            #expect(outcome == expected[1])
            while let event = try (isFirst ? first : second).next() { slow.append(event) }
            outcome = AnswerOutcome()
            for event in slow { outcome.take(event) }
            #expect(outcome == expected[0])
        }
    }

    @Test func conversationsInTurnsGoOnRightWhereOnlyOneFits() async throws {
        func answers(_ engine: Engine) async throws -> [String] {
            let model = SigmaModel(engine: engine, configuration: .init())
            let sessions = (0..<3).map { index in
                model.makeSession(instructions: "You are number \(index).", options: engine.endless(30, temperature: 0))
            }
            var answers: [String] = []
            for round in 0..<3 {
                for session in sessions { answers.append(try await session.respond(to: "Round \(round), and so on.")) }
            }
            return answers
        }
        let expected = try await answers(SmallModel.engine())
        let engine = try Self.engine(blocks: 3, kvType: .f16)
        #expect(try await answers(engine) == expected)
        #expect(Set(expected).count > 3)
    }

    @Test func leavingOneOfThemLeavesTheOthersAlone() async throws {
        let plenty = try SmallModel.engine()
        let requests = Self.requests(4, on: plenty, promptTokens: 250, 200)
        let expected = try requests.map { try AnswerOutcome($0, on: plenty) }
        let engine = try Self.engine(blocks: 3, kvType: .f16)
        // Each in turn: the oldest, which has the memory, and those that wait for it.
        for left in requests.indices {
            let gate = try EngineGate(engine)
            var answers = try requests.map { Optional(try engine.answer($0, on: engine.makeTimeline(kvType: .f16))) }
            gate.open()
            if left % 2 == 0 {
                answers[left]?.cancel()
            } else {
                _ = try answers[left]?.next()
                answers[left] = nil
            }
            for index in requests.indices where index != left {
                var outcome = AnswerOutcome()
                while let event = try answers[index]?.next() { outcome.take(event) }
                #expect(outcome == expected[index])
            }
        }
    }
}
