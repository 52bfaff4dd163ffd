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
