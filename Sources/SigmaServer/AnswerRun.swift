import AsyncAlgorithms
import Sigma
import SigmaRequests
import Synchronization

/// Makes the answers of one request, side by side where there are places.
struct AnswerRun: Sendable {
    enum Item: Sendable {
        case event(AnswerEvent, choice: Int)
        /// Nothing has happened for a while.
        case silence
    }

    let host: ModelHost
    let ticket: Admission.Ticket
    /// One for each answer; those to one prompt follow each other.
    let requests: [GenerationRequest]
    let choicesPerPrompt: Int
    let observer: RequestObserver

    /// Calls `take` with every event, in the order of its answer, and with a sign of life in every silent interval. The end comes when all
    /// answers have ended. Cancelling the task ends the work within a step.
    ///
    /// - Throws: what the engine says; what `take` throws, which ends the work.
    func run(silence: Duration?, _ take: @Sendable (Item) async throws -> Void) async throws {
        let items = AsyncThrowingChannel<Item, any Error>()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                do {
                    try await answerAll(items)
                    items.finish()
                } catch { items.fail(error) }
            }
            if let silence {
                group.addTask {
                    while !Task.isCancelled {
                        try await Task.sleep(for: silence)
                        await items.send(.silence)
                    }
                }
            }
            for try await item in items { try await take(item) }
            group.cancelAll()
        }
        // A channel that is cancelled only ends.
        try Task.checkCancellation()
    }

    private func answerAll(_ items: AsyncThrowingChannel<Item, any Error>) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for first in stride(from: 0, to: requests.count, by: choicesPerPrompt) {
                group.addTask { try await answerPrompt(first, items) }
            }
            // The first failure ends the others.
            while try await group.next() != nil {}
        }
    }

    /// The answers to one prompt: the others begin when the first has read it, with what it computed.
    private func answerPrompt(_ first: Int, _ items: AsyncThrowingChannel<Item, any Error>) async throws {
        let others = first + 1..<first + choicesPerPrompt
        guard !others.isEmpty else { return try await answer(first, items) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            let (hasRead, reading) = AsyncStream<Void>.makeStream()
            group.addTask {
                defer { reading.finish() }
                try await answer(first, items) {
                    reading.yield()
                    reading.finish()
                }
            }
            var isRead = false
            for await _ in hasRead { isRead = true }
            if isRead { for choice in others { group.addTask { try await answer(choice, items) } } }
            while try await group.next() != nil {}
        }
    }

    /// - Parameter hasRead: called when the prompt has been read.
    private func answer(
        _ choice: Int, _ items: AsyncThrowingChannel<Item, any Error>, hasRead: () -> Void = {}
    ) async throws {
        let request = requests[choice]
        try await ticket.withPlace(positions: request.tokens.count + Self.headroom) {
            let timeline = try host.engine.makeTimeline(kvType: host.kvType)
            for try await event in try host.engine.answer(request, on: timeline) {
                switch event {
                case .prefill, .promptLogProbabilities: break
                case .token, .closing, .finished: hasRead()
                }
                observer.saw(event)
                await items.send(.event(event, choice: choice))
            }
        }
    }

    /// Positions beyond its prompt that an answer begins with room for.
    private static let headroom = 256
}
