import Foundation
import Sigma
import Synchronization
import Testing

/// Generations side by side, on a back end that fails at will.
@Suite struct SchedulerTests {
    /// Has no memory for sequences that are marked.
    final class FailingBackend: PassingBackend, @unchecked Sendable {
        let marked = Mutex<[ObjectIdentifier]>([])
        private(set) var largestBatch = 0
        /// Sees every batch before its step.
        let onStep = Mutex<(@Sendable (Batch) -> Void)?>(nil)

        override func begin(_ batch: Batch) throws {
            largestBatch = max(largestBatch, batch.segments.count)
            onStep.withLock { $0 }?(batch)
            let marked = marked.withLock { $0 }
            if batch.segments.contains(where: { marked.contains(ObjectIdentifier($0.sequence)) && $0.position > 0 }) {
                throw SigmaError(.unavailable, "no memory")
            }
            try super.begin(batch)
        }
    }

    static func text(_ engine: Engine, _ timeline: Timeline, _ question: String) async throws -> String {
        let prompt = try engine.prompt(turns: [Turn(.user, question)], system: "", thinks: true)
        let request = GenerationRequest(
            tokens: prompt.tokens, start: prompt.start,
            options: GenerationOptions(temperature: 0, thinkingBudget: 40, maximumTokens: 20))
        let text = Mutex("")
        return try await withCheckedThrowingContinuation { continuation in
            do {
                let generation = try Generation(request, on: timeline, engine: engine) { event in
                    if case .token(let token) = event { text.withLock { $0 += token.text } }
                }
                engine.run(generation) { result in
                    continuation.resume(with: result.map { text.withLock { $0 } })
                }
            } catch { continuation.resume(throwing: error) }
        }
    }

    static func engine() throws -> (Engine, FailingBackend) {
        let model = try DemoModel.file()
        let backend = FailingBackend(try CPUBackend(model: model, threadCount: 2, rowLimit: 48))
        return (try Engine(model: model, backend: backend), backend)
    }

    final class Outcomes: Sendable {
        let all = Mutex([Int: Result<String, any Error>]())
    }

    @Test func oneFailureLeavesTheOthersAlone() async throws {
        let questions = (0..<6).map { "What is \($0 * 31) + \($0 * 17 + 5)?" }
        let (reference, _) = try Self.engine()
        var alone: [String] = []
        for question in questions {
            alone.append(try await Self.text(reference, reference.makeTimeline(kvType: .f16), question))
        }
        let (engine, backend) = try Self.engine()
        let timelines = try questions.map { _ in try engine.makeTimeline(kvType: .f16) }
        backend.marked.withLock { $0 = [ObjectIdentifier(timelines[2].sequence)] }
        let results = Outcomes()
        await withTaskGroup(of: Void.self) { group in
            for (index, question) in questions.enumerated() {
                group.addTask {
                    let outcome: Result<String, any Error>
                    do { outcome = .success(try await Self.text(engine, timelines[index], question)) } catch {
                        outcome = .failure(error)
                    }
                    results.all.withLock { $0[index] = outcome }
                }
            }
        }
        #expect(backend.largestBatch > 1)
        for index in questions.indices {
            switch results.all.withLock({ $0[index] }) {
            case .success(let text):
                #expect(index != 2)
                #expect(text == alone[index])
            case .failure(let error): #expect(index == 2 && (error as? SigmaError)?.kind == .unavailable)
            case nil: Issue.record("no result \(index)")
            }
            if index != 2 { #expect(timelines[index].tokens.count == timelines[index].sequence.length) }
        }
    }

    @Test func aCancelledOneEndsAndTheOthersGoOn() async throws {
        let (engine, _) = try Self.engine()
        let alone = try await Self.text(engine, engine.makeTimeline(kvType: .f16), "What is 12 + 30?")
        let prompt = try engine.prompt(turns: [Turn(.user, "What is 5 + 6?")], system: "", thinks: true)
        let timeline = try engine.makeTimeline(kvType: .f16)
        let reason = Mutex<FinishReason?>(nil)
        let holder = Mutex<Generation?>(nil)
        let cancelled = try Generation(
            GenerationRequest(tokens: prompt.tokens, start: prompt.start, options: GenerationOptions(temperature: 0)),
            on: timeline, engine: engine
        ) { event in
            if case .token = event { holder.withLock { $0?.cancel() } }
            if case .finished(let statistics, _) = event { reason.withLock { $0 = statistics.reason } }
        }
        holder.withLock { $0 = cancelled }
        async let other = Self.text(engine, engine.makeTimeline(kvType: .f16), "What is 12 + 30?")
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            engine.run(cancelled) { continuation.resume(with: $0) }
        }
        #expect(try await other == alone)
        #expect(reason.withLock { $0 } == .interrupted)
        #expect(timeline.tokens.count == timeline.sequence.length)
        holder.withLock { $0 = nil }
    }

    /// While one reads a prompt of many steps, answers get a token in every second step at least; and prompts are read between theirs.
    @Test func aLongPromptDelaysNobodyByMoreThanAStep() async throws {
        let (engine, backend) = try Self.engine()
        let long = (0..<200).map { "\($0)" }.joined(separator: " ")
        let prompt = try engine.prompt(turns: [Turn(.user, long)], system: "", thinks: true)
        try #require(prompt.tokens.count > 10 * backend.rowLimit)
        let timelines = try (0..<3).map { _ in try engine.makeTimeline(kvType: .f16) }
        // The rows that each had in a step.
        let steps = Mutex<[[ObjectIdentifier: Int]]>([])
        backend.onStep.withLock { hook in
            hook = { batch in
                let rows = batch.segments.map { (ObjectIdentifier($0.sequence), $0.count) }
                steps.withLock { $0.append(Dictionary(uniqueKeysWithValues: rows)) }
            }
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for timeline in timelines.dropLast() {
                group.addTask { _ = try await Self.text(engine, timeline, "What is 347 + 586?") }
            }
            group.addTask { _ = try await Self.text(engine, timelines[2], long) }
            try await group.waitForAll()
        }
        for timeline in timelines.dropLast() {
            let rows = steps.withLock { $0 }.map { $0[ObjectIdentifier(timeline.sequence)] ?? 0 }
            let first = try #require(rows.firstIndex(of: 1))
            let last = try #require(rows.lastIndex(of: 1))
            for index in first..<last { #expect(rows[index] > 0 || rows[index + 1] > 0) }
        }
    }

    /// While a long step is under way, answers go on between its layers, and a short prompt that comes meanwhile is answered; all as alone.
    @Test func longStepsMakeWayBetweenLayers() async throws {
        let model = try DemoModel.file()
        let backend = SlowBackend(try CPUBackend(model: model, threadCount: 2))
        let engine = try Engine(model: model, backend: backend)
        let (reference, _) = try Self.engine()
        let long = (0..<150).map { "\($0)" }.joined(separator: " ")
        let questions = ["What is 347 + 586?", long, "What is 5 + 6?"]
        var alone: [String] = []
        for question in questions {
            alone.append(try await Self.text(reference, reference.makeTimeline(kvType: .f16), question))
        }
        backend.isSlow.withLock { $0 = true }
        let timelines = try questions.map { _ in try engine.makeTimeline(kvType: .f16) }
        async let first = Self.text(engine, timelines[0], questions[0])
        while engine.gauge.reading.steps < 2 { try await Task.sleep(for: .milliseconds(1)) }
        async let second = Self.text(engine, timelines[1], questions[1])
        while backend.suspensions.withLock({ $0 }) == 0 { try await Task.sleep(for: .milliseconds(1)) }
        async let third = Self.text(engine, timelines[2], questions[2])
        let answers = try await [first, second, third]
        #expect(answers == alone)
        #expect(backend.stepsWithin.withLock { $0 } > 2)
        #expect(backend.promptsWithin.withLock { $0 } > 0)
        for timeline in timelines { #expect(timeline.tokens.count == timeline.sequence.length) }
    }

    /// Whose step has ended while it was laid aside is given up before its next layer.
    @Test func aLongStepIsCancelledWhileOthersRun() async throws {
        let model = try DemoModel.file()
        let backend = SlowBackend(try CPUBackend(model: model, threadCount: 2))
        let engine = try Engine(model: model, backend: backend)
        backend.isSlow.withLock { $0 = true }
        let long = (0..<150).map { "\($0)" }.joined(separator: " ")
        let prompt = try engine.prompt(turns: [Turn(.user, long)], system: "", thinks: true)
        let timeline = try engine.makeTimeline(kvType: .f16)
        async let other = Self.text(engine, engine.makeTimeline(kvType: .f16), "What is 347 + 586?")
        while engine.gauge.reading.steps < 2 { try await Task.sleep(for: .milliseconds(1)) }
        let cancelled = try Generation(
            GenerationRequest(tokens: prompt.tokens, start: prompt.start, options: GenerationOptions(temperature: 0)),
            on: timeline, engine: engine
        ) { _ in }
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            engine.run(cancelled) { continuation.resume(with: $0) }
            Task {
                while backend.suspensions.withLock({ $0 }) == 0 { try await Task.sleep(for: .milliseconds(1)) }
                cancelled.cancel()
            }
        }
        #expect(timeline.tokens.count == timeline.sequence.length)
        let (reference, _) = try Self.engine()
        let alone = try await Self.text(reference, reference.makeTimeline(kvType: .f16), "What is 347 + 586?")
        #expect(try await other == alone)
    }

    /// Layers of many rows take longer than answers may wait.
    final class SlowBackend: PassingBackend, @unchecked Sendable {
        let isSlow = Mutex(false)
        let suspensions = Mutex(0)
        let stepsWithin = Mutex(0)
        let promptsWithin = Mutex(0)
        // The engine thread's own.
        private var rows = 0
        private var outerRows: Int?

        override func begin(_ batch: Batch) throws {
            rows = batch.tokens.count
            if outerRows != nil {
                stepsWithin.withLock { $0 += 1 }
                if batch.segments.contains(where: { $0.count > 1 }) { promptsWithin.withLock { $0 += 1 } }
            }
            try super.begin(batch)
        }

        override func attend(layer: Int) {
            if isSlow.withLock({ $0 }), rows > 4 { Thread.sleep(forTimeInterval: 0.002 * Double(rows)) }
            super.attend(layer: layer)
        }

        override func suspend() {
            suspensions.withLock { $0 += 1 }
            outerRows = rows
            super.suspend()
        }

        override func resume() {
            super.resume()
            rows = outerRows ?? 0
            outerRows = nil
        }
    }
}
