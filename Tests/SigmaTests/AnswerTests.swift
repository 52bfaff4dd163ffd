import SampleFiles
import Sigma
import Synchronization
import Testing

/// What lies between an engine and the readers of its answers.
@Suite struct AnswerTests {
    /// Events of an answer as its engine sends them, before any reader has them.
    private final class Sent: Sendable {
        private let sent = Mutex<[Int32]>([])
        private let ends = Mutex(0)

        func take(_ event: AnswerEvent) {
            if case .token(let token) = event { sent.withLock { $0.append(token.id) } }
            if case .finished = event { ends.withLock { $0 += 1 } }
        }
        var ids: [Int32] { sent.withLock { $0 } }
        var hasEnded: Bool { ends.withLock { $0 } > 0 }
    }

    private static func request(_ engine: Engine, _ seed: UInt64, _ count: Int = 300) -> GenerationRequest {
        engine.request(SmallModel.tokens(10, seed: seed), engine.endless(count, seed: seed))
    }

    /// Waits for what another thread is about to do.
    private static func eventually(_ condition: () -> Bool) async throws -> Bool {
        for _ in 0..<60_000 {
            if condition() { return true }
            try await Task.sleep(nanoseconds: 2_000_000)
        }
        return condition()
    }

    // MARK: Reading

    @Test func aReaderThatDoesNotReadPausesItsOwnAnswerOnly() async throws {
        let engine = try SmallModel.engine()
        let expected = try [1, 2].map { try AnswerOutcome(Self.request(engine, $0), on: engine) }
        let sent = Sent()
        let slow = try engine.answer(
            Self.request(engine, 1), on: engine.makeTimeline(kvType: .f16), tap: { sent.take($0) })
        #expect(try AnswerOutcome(Self.request(engine, 2), on: engine) == expected[1])
        // Side by side both would be at their end. Events that are no tokens count, too, and a step's come at once.
        let held = AnswerChannel.capacity - 2...AnswerChannel.capacity + 2
        #expect(held.contains(sent.ids.count), "\(sent.ids.count) tokens wait for a reader")
        #expect(try AnswerOutcome(Self.request(engine, 2), on: engine) == expected[1])
        #expect(held.contains(sent.ids.count))
        // A reader that takes some gets as many more made, and no more.
        var outcome = AnswerOutcome()
        while outcome.ids.count < 100, let event = try slow.next() { outcome.take(event) }
        #expect(try AnswerOutcome(Self.request(engine, 2), on: engine) == expected[1])
        #expect(sent.ids.count <= 100 + AnswerChannel.capacity + 2 && !sent.hasEnded)
        while let event = try slow.next() { outcome.take(event) }
        #expect(outcome == expected[0] && outcome.ids == sent.ids)
        #expect(try slow.next() == nil)
    }

    @Test func threadsAndTasksReadTheSame() async throws {
        let engine = try SmallModel.engine()
        let request = Self.request(engine, 3, 90)
        func text(_ event: AnswerEvent) -> String {
            // All but times.
            if case .finished(let statistics, let remainder) = event {
                return "\(statistics.reason) \(statistics.answerTokens) \(String(describing: remainder))"
            }
            return "\(event)"
        }
        var (onThread, inTask): ([String], [String]) = ([], [])
        let first = try engine.answer(request, on: engine.makeTimeline(kvType: .f16))
        while let event = try first.next() { onThread.append(text(event)) }
        for try await event in try engine.answer(request, on: engine.makeTimeline(kvType: .f16)) {
            inTask.append(text(event))
        }
        func isProgress(_ text: String) -> Bool { text.hasPrefix("prefill") }
        // Of a prompt's progress a reader sees the newest.
        #expect(onThread.filter { !isProgress($0) } == inTask.filter { !isProgress($0) })
        #expect(onThread.count { isProgress($0) } >= 1 && onThread.count { !isProgress($0) } == 91)
    }

    // MARK: The end of interest

    private enum Phase: String, CaseIterable {
        case beforeItsFirstStep, inThePrompt, afterTheFirstToken, whilePaused, afterTheEnd
    }

    @Test(arguments: [true, false]) func leavingAnAnswerFreesItAndLeavesOthersAlone(cancels: Bool) async throws {
        let plenty = try SmallModel.engine()
        let expected = try AnswerOutcome(Self.request(plenty, 4, 150), on: plenty)
        for phase in Phase.allCases {
            // Pieces of 16 rows: the prompt takes a while.
            let engine = try SmallModel.engine(rowLimit: 16)
            let gate = try EngineGate(engine)
            let other = try engine.answer(Self.request(engine, 4, 150), on: engine.makeTimeline(kvType: .f16))
            let count = phase == .afterTheEnd ? 5 : 3000
            let left = engine.request(
                SmallModel.tokens(phase == .inThePrompt ? 3000 : 20, seed: 5), engine.endless(count, seed: 5))
            let sent = Sent()
            var ids: [Int32] = []
            var timeline: Timeline? = try engine.makeTimeline(kvType: .f16)
            weak let memory = timeline
            var answer = Optional(try engine.answer(left, on: timeline!, tap: { sent.take($0) }))
            timeline = nil
            if phase != .beforeItsFirstStep { gate.open() }
            switch phase {
            case .beforeItsFirstStep: break
            case .inThePrompt: _ = try answer?.next()
            case .afterTheFirstToken:
                while ids.isEmpty, let event = try answer?.next() {
                    if case .token(let token) = event { ids.append(token.id) }
                }
            case .whilePaused: #expect(try await Self.eventually { sent.ids.count >= AnswerChannel.capacity - 2 })
            case .afterTheEnd: #expect(try await Self.eventually { sent.hasEnded })
            }
            if cancels {
                answer?.cancel()
                gate.open()
                var reason: FinishReason?
                while let event = try answer?.next() {
                    if case .token(let token) = event { ids.append(token.id) }
                    if case .finished(let statistics, _) = event { reason = statistics.reason }
                }
                // What was made can still be read.
                #expect(reason == (phase == .afterTheEnd ? .length : .interrupted), "\(phase)")
                #expect(ids == sent.ids, "\(phase)")
            }
            answer = nil
            gate.open()
            #expect(try await Self.eventually { memory == nil }, "\(phase): the sequence stays")
            #expect(phase == .afterTheEnd || sent.ids.count < 3000)
            var outcome = AnswerOutcome()
            while let event = try other.next() { outcome.take(event) }
            #expect(outcome == expected, "\(phase)")
        }
    }

    @Test func cancellingTheTaskThatReadsEndsTheAnswer() async throws {
        let engine = try SmallModel.engine()
        let sent = Sent()
        let answer = try engine.answer(
            Self.request(engine, 6, 3000), on: engine.makeTimeline(kvType: .f16), tap: { sent.take($0) })
        let task = Task {
            var outcome = AnswerOutcome()
            for try await event in answer { outcome.take(event) }
            return outcome
        }
        #expect(try await Self.eventually { sent.ids.count > 20 })
        task.cancel()
        let outcome = try await task.value
        #expect(outcome.reason == .interrupted && outcome.ids == sent.ids)
    }

    @Test func anEngineEndsWithItsLastAnswer() async throws {
        var engine: Engine? = try SmallModel.engine()
        weak let memory = engine
        let outcome = try AnswerOutcome(Self.request(engine!, 7, 5), on: engine!)
        #expect(outcome.ids.count == 5)
        engine = nil
        #expect(try await Self.eventually { memory == nil }, "the engine outlives its last answer")
    }

    // MARK: The channel

    /// A reader that keeps pace but never catches up: what it has read must go.
    @Test func whatWasReadIsNotKept() throws {
        let channel = AnswerChannel {}
        // Of a length that the compiler doesn't know: a constant array would lie in the program.
        var ids = [Int32](repeating: 0, count: .random(in: 1...4))
        let address = ids.withUnsafeBufferPointer { $0.baseAddress }
        channel.write(.closing(ids: ids, text: ""))
        for number in 1...1000 {
            channel.write(.closing(ids: [Int32(number)], text: ""))
            guard case .closing(let read, _)? = try channel.readOnThread() else { return }
            #expect(read.allSatisfy { $0 == number - 1 })
        }
        // Nobody else has it: it can be changed where it is.
        ids[0] = 1
        #expect(ids.withUnsafeBufferPointer { $0.baseAddress } == address, "the channel keeps events that were read")
    }

    @Test func aWriterIsWokenOnceHalfOfTheRoomIsFree() throws {
        let wakes = Mutex(0)
        let channel = AnswerChannel { wakes.withLock { $0 += 1 } }
        for number in 0..<Int32(AnswerChannel.capacity) {
            #expect(channel.hasRoom())
            channel.write(.closing(ids: [number], text: ""))
        }
        #expect(!channel.hasRoom())
        for _ in 0..<AnswerChannel.capacity / 2 - 1 { _ = try channel.readOnThread() }
        #expect(wakes.withLock { $0 } == 0)
        _ = try channel.readOnThread()
        #expect(wakes.withLock { $0 } == 1 && channel.hasRoom())
        _ = try channel.readOnThread()
        #expect(wakes.withLock { $0 } == 1)
    }

    @Test func anEndComesBehindAllEvents() async throws {
        let channel = AnswerChannel {}
        channel.write(.prefill(done: 1, total: 9))
        channel.write(.prefill(done: 5, total: 9))
        channel.write(.closing(ids: [1], text: "a"))
        channel.end(.failure(SigmaError(.unavailable, "the end")))
        channel.write(.closing(ids: [2], text: "behind the end"))
        let progress = try await channel.read()
        if case .prefill(5, 9)? = progress {} else { Issue.record("not the newest progress") }
        let event = try channel.readOnThread()
        if case .closing([1], "a")? = event {} else { Issue.record("an event is lost") }
        await #expect(throws: SigmaError.self) { try await channel.read() }
        #expect(try await channel.read() == nil)
        let left = AnswerChannel {}
        left.write(.closing(ids: [1], text: ""))
        left.abandon()
        left.write(.closing(ids: [2], text: ""))
        #expect(try left.readOnThread() == nil && left.hasRoom())
    }
}
