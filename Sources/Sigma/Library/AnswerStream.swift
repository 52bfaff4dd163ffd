/// A piece of an answer in the making.
public enum GenerationUpdate: Sendable {
    /// Prompt tokens that are in the key-value cache, of all.
    case prefill(done: Int, total: Int)
    /// Text of the thinking.
    case reasoning(String)
    /// Text of the answer.
    case text(String)
    /// The end of the answer, and why it ended.
    case finished(Statistics)
}

/// A session's answer as it is made, for one reader. Cancelling the task that reads it, or dropping it, ends the work before its next step; a
/// reader that does not read pauses it.
public struct AnswerStream: AsyncSequence, Sendable {
    public typealias Element = GenerationUpdate
    public typealias Failure = any Error

    /// Ends with the last of the stream and its iterators.
    final class Reader: Sendable {
        let channel: AnswerChannel
        private let abandon: @Sendable () -> Void

        init(_ channel: AnswerChannel, abandon: @escaping @Sendable () -> Void) {
            self.channel = channel
            self.abandon = abandon
        }

        deinit { leave() }

        func leave() {
            abandon()
            channel.abandon()
        }
    }

    let reader: Reader

    public struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let reader: Reader
        /// What an event still has to say.
        private var pending: [GenerationUpdate] = []

        fileprivate init(_ reader: Reader) { self.reader = reader }

        public mutating func next() async throws -> GenerationUpdate? {
            let reader = reader
            while pending.isEmpty {
                let event = try await withTaskCancellationHandler {
                    try await reader.channel.read()
                } onCancel: {
                    reader.leave()
                }
                guard let event else { return nil }
                pending = event.updates
            }
            return pending.removeFirst()
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(reader) }
}

extension AnswerEvent {
    /// What whoever reads text learns from it.
    fileprivate var updates: [GenerationUpdate] {
        switch self {
        case .prefill(let done, let total): [.prefill(done: done, total: total)]
        case .promptLogProbabilities: []
        case .token(let token): token.updates
        case .closing(_, let text): [.reasoning(text)]
        case .finished(let statistics, let remainder): (remainder?.updates ?? []) + [.finished(statistics)]
        }
    }
}

extension AnswerToken {
    fileprivate var updates: [GenerationUpdate] {
        guard !text.isEmpty else { return [] }
        return [phase == .thinking ? .reasoning(text) : .text(text)]
    }
}
