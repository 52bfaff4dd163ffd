/// An answer in the making: what every way to the engine reads.
///
///     for try await event in answer {
///         if case .token(let token) = event { print(token.text, terminator: "") }
///     }
///
/// One reader reads it, as a task or on a thread. A reader that does not read pauses this answer and no other. Dropping it, or cancelling the
/// task that reads, ends the work before its next step.
public final class Answer: AsyncSequence, Sendable {
    private let generation: Generation
    private let channel: AnswerChannel

    init(_ generation: Generation, _ channel: AnswerChannel) {
        self.generation = generation
        self.channel = channel
    }

    deinit {
        generation.cancel()
        channel.abandon()
    }

    /// Ends the work before its next step, with the reason `.interrupted`; what was made can still be read. From any thread.
    public func cancel() { generation.cancel() }

    /// The next event, on a thread that waits; nil at the end.
    /// - Throws: as `AsyncIterator.next()`.
    package func next() throws -> AnswerEvent? { try channel.readOnThread() }

    public struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let answer: Answer

        /// - Throws: `SigmaError`: `.unavailable` if memory ends, `.damaged` or `.inputOutput` if the model file was lost.
        public mutating func next() async throws -> AnswerEvent? {
            let answer = answer
            return try await withTaskCancellationHandler {
                try await answer.channel.read()
            } onCancel: {
                answer.cancel()
            }
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(answer: self) }
}
