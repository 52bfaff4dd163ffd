import SampleFiles
import Sigma
import Testing

/// Many questions at once, from the library.
@Suite struct AnswerBatchTests {
    private static func questions(_ count: Int) -> [AnswerBatch.Question] {
        var questions: [AnswerBatch.Question] = []
        for index in 0..<count {
            let options = GenerationOptions(
                temperature: index % 3 == 0 ? 0 : 0.8, seed: UInt64(index), thinkingBudget: 30, maximumTokens: 24)
            questions.append(
                AnswerBatch.Question(
                    "What is \(20 + 7 * index) + \(index)?",
                    instructions: index % 2 == 0 ? "" : "You are a careful clerk who adds numbers, and nothing else.",
                    options: options))
        }
        return questions
    }

    /// The answer that a question has alone.
    private static func alone(_ question: AnswerBatch.Question, _ model: SigmaModel) async throws -> String {
        var text = ""
        for try await event in try model.answer(
            to: question.turns, instructions: question.instructions, options: question.options)
        {
            switch event {
            case .token(let token) where token.phase == .answer: text += token.text
            case .finished(_, let remainder?) where remainder.phase == .answer: text += remainder.text
            default: break
            }
        }
        return text
    }

    @Test func everyQuestionIsAnsweredOnceAsIfAlone() async throws {
        let model = SigmaModel(engine: try DemoModel.engine(), configuration: .init())
        var questions = Self.questions(14)
        // What cannot be honoured is that question's end alone.
        questions[5].constraint = .regex("(")
        questions[6].constraint = .choice(["yes", "no"])
        var outcomes: [Int: Result<AnswerBatch.Whole, any Error>] = [:]
        for try await outcome in model.answers(to: questions, limit: 4) {
            #expect(outcomes[outcome.index] == nil)
            outcomes[outcome.index] = outcome.answer
        }
        #expect(outcomes.count == questions.count)
        for (index, question) in questions.enumerated() {
            switch try #require(outcomes[index]) {
            case .failure(let error):
                #expect(index == 5, "\(index): \(error)")
            case .success(let whole):
                if index == 6 {
                    #expect(["yes", "no"].contains(whole.text))
                } else {
                    #expect(whole.text == (try await Self.alone(question, model)), "question \(index)")
                    #expect(whole.statistics.generatedTokens > 0)
                }
            }
        }
        #expect(!model.engine.favorsThroughput)
    }

    /// Free memory is promised once: nobody begins who would have to be parked, and computed again.
    @Test func noMoreBeginThanMemoryHasRoomFor() async throws {
        // Two answers have seven blocks each, and a step its rows.
        let engine = try SmallModel.engine(
            budget: 17 * SmallModel.file().configuration.kvBlockBytes(.f16), rowLimit: 16)
        let model = SigmaModel(engine: engine, configuration: .init())
        let questions = (0..<6).map { index in
            var options = engine.endless(100, seed: UInt64(index))
            options.drafts = .off
            let text = (0..<1400).map { String(($0 * (index + 3)) % 10) }.joined()
            return AnswerBatch.Question(text, options: options)
        }
        var rows = 0
        for try await outcome in model.answers(to: questions) {
            let statistics = try outcome.answer.get().statistics
            #expect(statistics.generatedTokens == 100)
            rows += statistics.promptTokens - statistics.reusedPromptTokens + 99
        }
        // Each token but an answer's last one is computed once.
        #expect(engine.gauge.reading.rows == rows)
    }

    /// What an answer of a batch will take falls as it grows.
    @Test func anAnswersGrowthIsWhatItWasBegunFor() {
        var growth = AnswerGrowth(promptTokens: 300)
        #expect(growth.missing == 768)
        growth.take(.prefill(done: 0, total: 300))
        #expect(growth.missing == 768)
        growth.take(.prefill(done: 257, total: 300))
        #expect(growth.missing == 256)
        growth.take(.prefill(done: 300, total: 300))
        for _ in 0..<212 { growth.take(.token(AnswerToken(id: 1, phase: .answer, text: ""))) }
        #expect(growth.missing == 256)
        growth.take(.closing(ids: [1], text: ""))
        #expect(growth.missing == 0)
        for _ in 0..<1000 { growth.take(.token(AnswerToken(id: 1, phase: .answer, text: ""))) }
        #expect(growth.missing == 0)
    }

    @Test func aBatchOfNothingEnds() async throws {
        let model = SigmaModel(engine: try DemoModel.engine(), configuration: .init())
        for try await outcome in model.answers(to: []) { Issue.record("there is an answer: \(outcome)") }
    }

    @Test func cancellingTheReaderEndsTheWork() async throws {
        let model = SigmaModel(engine: try DemoModel.engine(), configuration: .init())
        var questions = Self.questions(6)
        for index in questions.indices {
            questions[index].options.maximumTokens = 100_000
            questions[index].options.logitBias = model.engine.endless(1).logitBias
        }
        let batch = model.answers(to: questions)
        let task = Task {
            for try await _ in batch { Issue.record("an answer without end has one") }
        }
        try await Task.sleep(for: .milliseconds(50))
        task.cancel()
        do { try await task.value } catch { #expect(error is CancellationError) }
        // The engine is free again.
        var iterator = model.answers(to: Self.questions(1)).makeAsyncIterator()
        let next = try await iterator.next()
        #expect(try next?.answer.get().text.isEmpty == false)
        let end = try await iterator.next()
        #expect(end == nil)
    }
}
