/// Many conversations, answered side by side: each answer comes when it is whole, in any order.
///
///     let questions = texts.map { AnswerBatch.Question($0, instructions: "Answer in one word.") }
///     for try await outcome in model.answers(to: questions) {
///         print(outcome.index, try outcome.answer.get().text)
///     }
///
/// Prompts are read together, and beginnings that they share once. As many answers are made at once as measured tokens/s favours. An answer has the bytes
/// that it has alone. Cancelling the task that reads, or dropping the iterator, ends all work before its next step. While nobody reads, no further
/// question begins.
public struct AnswerBatch: AsyncSequence, Sendable {
    public typealias Failure = any Error

    /// A conversation that ends with a question.
    public struct Question: Sendable {
        /// Oldest first.
        public var turns: [Turn]
        /// The system prompt; empty: none.
        public var instructions: String
        public var options: GenerationOptions
        /// What the answer, never its thinking, must be; nil: anything.
        public var constraint: Constraint?

        public init(
            _ turns: [Turn], instructions: String = "", options: GenerationOptions = GenerationOptions(),
            constraint: Constraint? = nil
        ) {
            self.turns = turns
            self.instructions = instructions
            self.options = options
            self.constraint = constraint
        }

        public init(
            _ text: String, instructions: String = "", options: GenerationOptions = GenerationOptions(),
            constraint: Constraint? = nil
        ) {
            self.init([Turn(.user, text)], instructions: instructions, options: options, constraint: constraint)
        }
    }

    public struct Whole: Sendable {
        public let text: String
        public let reasoning: String
        public let statistics: Statistics
    }

    public struct Element: Sendable {
        /// Of the question.
        public let index: Int
        /// The answer, or why there is none: as `SigmaModel.answer(to:)` throws. The others go on.
        public let answer: Result<Whole, any Error>
    }

    let engine: Engine
    let kvType: KVType
    let questions: [Question]
    let mostAnswers: Int

    public struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let run: AnswerBatchRun

        /// - Throws: `CancellationError` if the task was cancelled.
        public mutating func next() async throws -> Element? {
            let run = run
            return try await withTaskCancellationHandler {
                try await run.next()
            } onCancel: {
                run.cancel()
            }
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(run: AnswerBatchRun(self)) }
}

extension SigmaModel {
    /// The answers to many conversations, as they come.
    ///
    /// - Parameters:
    ///   - questions: each is answered as `answer(to:)` answers it.
    ///   - limit: answers side by side, at most.
    public func answers(to questions: [AnswerBatch.Question], limit: Int = 128) -> AnswerBatch {
        AnswerBatch(
            engine: engine, kvType: loadConfiguration.kvType, questions: questions, mostAnswers: Swift.max(1, limit))
    }
}
