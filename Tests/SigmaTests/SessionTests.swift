import Sigma
import Testing

/// The library's sessions on the trained demo model.
@Suite struct SessionTests {
    static let question = "What is 347 + 586?"
    static let greedy = GenerationOptions(temperature: 0)
    static let sampled = GenerationOptions(
        temperature: 1.3, topK: 50, topP: 1, seed: 11, thinkingBudget: 60, maximumTokens: 30)

    @Test func theAnswerIsRight() async throws {
        let answer = try await Answer(DemoModel.session(try DemoModel.engine()), Self.question)
        #expect(answer.text.contains("933"), "\(answer)")
        #expect(!answer.reasoning.isEmpty)
        #expect(answer.statistics?.reason == .stop)
        #expect(!answer.text.contains("<") && !answer.reasoning.contains("<"))
    }

    @Test func theTextIsTheSameForAnyThreadsAndChunks() async throws {
        for options in [Self.greedy, Self.sampled] {
            let reference = try await Answer(
                DemoModel.session(try DemoModel.engine(threads: 1)), Self.question, options: options)
            for (threads, rows) in [(2, 512), (3, 1), (1, 7)] {
                let engine = try DemoModel.engine(threads: threads, rowLimit: rows)
                #expect(try await Answer(DemoModel.session(engine), Self.question, options: options) == reference)
            }
        }
    }

    @Test func everyInstructionSetAnswersRight() async throws {
        for level in KernelTests.levels {
            let answer = try await Answer(DemoModel.session(try DemoModel.engine(level: level)), Self.question)
            #expect(answer.text.contains("933"), "\(level): \(answer)")
        }
    }

    @Test func laterTurnsReuseTheCacheAndChangeNothing() async throws {
        let engine = try DemoModel.engine()
        let session = DemoModel.session(engine)
        let first = try await Answer(session, Self.question, options: Self.sampled)
        let second = try await Answer(session, "What is 12 + 9?", options: Self.sampled)
        #expect(first.statistics?.reusedPromptTokens == 0)
        let reused = try #require(second.statistics).reusedPromptTokens
        #expect(reused > 0 && reused < second.statistics!.promptTokens)
        // The same conversation, processed from nothing.
        let prompt = try engine.prompt(
            turns: [Turn(.user, Self.question), Turn(.assistant, first.text), Turn(.user, "What is 12 + 9?")],
            system: "",
            thinks: true)
        let ids = try await Self.run(
            engine, GenerationRequest(tokens: prompt.tokens, start: prompt.start, options: Self.sampled))
        #expect(ids.text == second.reasoning + second.text)
    }

    @Test func sessionsSideBySideAnswerAsIfAlone() async throws {
        let engine = try DemoModel.engine()
        let questions = ["What is 1 + 2?", "What is 99 + 1?", "What is 347 + 586?", "What is 70 - 8?"]
        var alone: [Answer] = []
        for question in questions {
            alone.append(try await Answer(DemoModel.session(engine), question, options: Self.sampled))
        }
        let together = try await withThrowingTaskGroup(of: (Int, Answer).self) { group in
            for (index, question) in questions.enumerated() {
                group.addTask { (index, try await Answer(DemoModel.session(engine), question, options: Self.sampled)) }
            }
            return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        for (index, answer) in alone.enumerated() { #expect(together[index] == answer) }
    }

    @Test func abandonedStreamsLeaveTheSessionValid() async throws {
        let engine = try DemoModel.engine()
        var session = DemoModel.session(engine)
        let reference = try await Answer(DemoModel.session(engine), Self.question)
        for stopAfter in [1, 2, 5, 9] {
            var count = 0
            for try await _ in session.stream(to: "What is 5 + 6?") {
                count += 1
                if count == stopAfter { break }
            }
            // The abandoned work ends before its next step; the next request waits for that.
            #expect(try await Answer(session, Self.question) == reference)
            // That one became part of the conversation: from here on the reference is another.
            session = DemoModel.session(engine)
        }
    }

    @Test func theSessionIsFreeWhenTheEndIsSeen() async throws {
        let session = DemoModel.session(try DemoModel.engine())
        for _ in 0..<20 {
            for try await update in session.stream(
                to: "What is 1 + 1?", options: GenerationOptions(thinks: false, maximumTokens: 1))
            {
                if case .finished = update { break }
            }
        }
    }

    @Test func aBusySessionRefuses() async throws {
        let session = DemoModel.session(try DemoModel.engine())
        let stream = session.stream(to: Self.question)
        let error = await #expect(throws: SigmaError.self) { try await session.respond(to: "What is 1 + 1?") }
        #expect(error?.kind == .usage)
        for try await _ in stream {}
        #expect(try await session.respond(to: Self.question).isEmpty == false)
    }

    @Test func theThinkingBudgetEndsWithTheClosingPhrase() async throws {
        let engine = try DemoModel.engine()
        for budget in [0, 1, 4] {
            let session = DemoModel.session(engine)
            let options = GenerationOptions(
                temperature: 0, thinkingBudget: budget, maximumTokens: 20, closingPhrase: " Enough.")
            let answer = try await Answer(session, Self.question, options: options)
            let statistics = try #require(answer.statistics)
            #expect(statistics.thinkingWasCut && statistics.thinkingTokens == budget)
            #expect(answer.reasoning.hasSuffix(" Enough."))
            #expect(statistics.answerTokens <= 20)
            // The phrase and the tag were really read: a raw prompt of the same text goes on in the same way.
            let tokenizer = try #require(engine.tokenizer)
            let thought = answer.reasoning.dropLast(" Enough.".count)
            let prompt = try engine.prompt(turns: [Turn(.user, Self.question)], system: "", thinks: true)
            let made = tokenizer.encode(String(thought), recognizingSpecials: false)
            try #require(made.count == budget, "the tokenizer splits the thinking as the model did")
            let raw = prompt.tokens + made + tokenizer.encode(" Enough.</think>", recognizingSpecials: false)
            let result = try await Self.run(
                engine,
                GenerationRequest(
                    tokens: raw, start: .answer, options: GenerationOptions(temperature: 0, maximumTokens: 20)))
            #expect(result.text == answer.text)
        }
    }

    @Test func limitsEndTheAnswer() async throws {
        let short = try await Answer(
            DemoModel.session(try DemoModel.engine()), Self.question,
            options: GenerationOptions(temperature: 0, thinks: false, maximumTokens: 3))
        #expect(short.statistics?.reason == .length && short.statistics?.answerTokens == 3 && short.reasoning.isEmpty)

        let prompt = try DemoModel.engine().prompt(turns: [Turn(.user, Self.question)], system: "", thinks: true).tokens
            .count
        for context in [prompt, prompt + 1, prompt + 2, 60] {
            let cut = try await Answer(DemoModel.session(try DemoModel.engine(context: context)), Self.question)
            let statistics = try #require(cut.statistics)
            #expect(statistics.reason == .context && statistics.promptTokens + statistics.generatedTokens == context)
        }
        // A closing phrase that has no room is not put in.
        for budget in [0, 2] {
            let options = GenerationOptions(temperature: 0, thinkingBudget: budget)
            let cut = try await Answer(
                DemoModel.session(try DemoModel.engine(context: prompt + 4)), Self.question, options: options)
            let statistics = try #require(cut.statistics)
            #expect(statistics.reason == .context && !statistics.thinkingWasCut && statistics.generatedTokens == budget)
        }
    }

    @Test func stopStringsAreNotGivenOut() async throws {
        let whole = try await Answer(DemoModel.session(try DemoModel.engine()), Self.question)
        let stop = String(whole.text.suffix(3))
        let answer = try await Answer(
            DemoModel.session(try DemoModel.engine()), Self.question,
            options: GenerationOptions(temperature: 0, stopStrings: [stop]))
        let place = try #require(Array(whole.text).indices.first { Array(whole.text)[$0...].starts(with: Array(stop)) })
        #expect(answer.text == String(whole.text.prefix(place)) && !answer.text.isEmpty)
        #expect(answer.statistics?.reason == .stop)
    }

    @Test func optionsThatMakeNoSenseAreRefused() async throws {
        let engine = try DemoModel.engine()
        for options in [
            GenerationOptions(temperature: -1), GenerationOptions(temperature: .nan), GenerationOptions(topK: -1),
            GenerationOptions(topP: 0), GenerationOptions(topP: 1.5), GenerationOptions(minP: 2),
            GenerationOptions(thinkingBudget: -1), GenerationOptions(maximumTokens: -1),
        ] {
            let error = await #expect(throws: SigmaError.self) {
                try await DemoModel.session(engine).respond(to: "Hi", options: options)
            }
            #expect(error?.kind == .usage)
        }
        for tokens in [[], [-1], [Int32(engine.vocabularySize)]] as [[Int32]] {
            let timeline = try engine.makeTimeline(kvType: .f16)
            #expect(throws: SigmaError.self) {
                try Generation(
                    GenerationRequest(tokens: tokens, start: .answer, options: Self.greedy), on: timeline,
                    engine: engine
                ) { _ in }
            }
        }
    }

    @Test func promptLogProbabilitiesCoverEveryPosition() async throws {
        let engine = try DemoModel.engine(rowLimit: 40)
        let question = "If Anna has 12 apples, gets 30 more and then loses 5, how many apples does Anna have?"
        let prompt = try engine.prompt(turns: [Turn(.user, question)], system: "", thinks: true)
        try #require(prompt.tokens.count > 40)
        let runner = try Runner(DemoModel.file())
        let reference = logSoftmax(try runner.logits(prompt.tokens, kvType: .f16), width: runner.vocabulary)
        let options = GenerationOptions(maximumTokens: 0)
        let result = try await Self.run(
            engine,
            GenerationRequest(tokens: prompt.tokens, start: prompt.start, options: options, logProbabilityCount: 3))
        #expect(result.positions.count == prompt.tokens.count)
        for (index, position) in result.positions.enumerated() {
            #expect(position.top.count == 3)
            #expect(position.next?.id == (index + 1 < prompt.tokens.count ? prompt.tokens[index + 1] : nil))
            for candidate in position.top + [position.next].compactMap({ $0 }) {
                let expected = reference[index * runner.vocabulary + Int(candidate.id)]
                #expect(abs(candidate.logProbability - expected) < 1e-9)
            }
        }
    }

    /// Runs one generation on a new timeline.
    static func run(_ engine: Engine, _ request: GenerationRequest) async throws -> (
        text: String, positions: [PromptPosition]
    ) {
        let timeline = try engine.makeTimeline(kvType: .f16)
        let (events, continuation) = AsyncThrowingStream<AnswerEvent, any Error>.makeStream()
        let generation = try Generation(request, on: timeline, engine: engine) { continuation.yield($0) }
        engine.run(generation) { result in
            switch result {
            case .success: continuation.finish()
            case .failure(let error): continuation.finish(throwing: error)
            }
        }
        var (text, positions) = ("", [PromptPosition]())
        for try await event in events {
            switch event {
            case .token(let token): text += token.text
            case .closing(_, let closing): text += closing
            case .promptLogProbabilities(let all): positions = all
            case .finished(_, let remainder): text += remainder?.text ?? ""
            case .prefill: break
            }
        }
        return (text, positions)
    }
}
