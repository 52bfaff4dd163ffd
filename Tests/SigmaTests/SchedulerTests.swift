import Foundation
import SampleFiles
import Sigma
import Synchronization
import Testing

/// Generations side by side, on a back end that fails at will.
@Suite struct SchedulerTests {
    /// Has no memory for further steps of sequences that are marked; nil: of any whose steps have had a step's rows.
    final class FailingBackend: ForwardingBackend, @unchecked Sendable {
        let backend: CPUBackend
        let marked = Mutex<[ObjectIdentifier]?>([])
        private(set) var largestBatch = 0
        /// Sees every batch before its step.
        let onStep = Mutex<(@Sendable (Batch) -> Void)?>(nil)

        init(_ backend: CPUBackend) { self.backend = backend }

        func begin(_ batch: Batch) throws {
            largestBatch = max(largestBatch, batch.segments.count)
            onStep.withLock { $0 }?(batch)
            let marked = marked.withLock { $0 }
            func fails(_ segment: Batch.Segment) -> Bool {
                marked.map { $0.contains(ObjectIdentifier(segment.sequence)) && segment.position > 0 }
                    ?? (segment.position >= rowLimit)
            }
            if batch.segments.contains(where: fails) {
                throw SigmaError(.unavailable, "no memory")
            }
            try backend.begin(batch)
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
        let prompt = try Started(long, engine)
        try #require(prompt.tokenCount > 10 * backend.rowLimit)
        let answers = try (0..<2).map { _ in try Started("What is 347 + 586?", engine) }
        // The rows that each had in a step.
        let steps = Mutex<[[ObjectIdentifier: Int]]>([])
        let isWaiting = Mutex(true)
        backend.onStep.withLock { hook in
            hook = { batch in
                let rows = batch.segments.map { (ObjectIdentifier($0.sequence), $0.count) }
                steps.withLock { $0.append(Dictionary(uniqueKeysWithValues: rows)) }
                // When both have begun to answer.
                guard batch.segments.count == 2, batch.segments.allSatisfy({ $0.count == 1 }) else { return }
                if isWaiting.withLock({ (isWaiting) -> Bool in
                    defer { isWaiting = false }
                    return isWaiting
                }) {
                    prompt.start(engine)
                }
            }
        }
        for answer in answers { answer.start(engine) }
        for work in answers + [prompt] { _ = try await work.text() }
        let recorded = steps.withLock { $0 }
        let prompts = recorded.map { $0[ObjectIdentifier(prompt.timeline.sequence)] ?? 0 }
        for answer in answers {
            let rows = recorded.map { $0[ObjectIdentifier(answer.timeline.sequence)] ?? 0 }
            let first = try #require(rows.firstIndex(of: 1))
            let last = try #require(rows.lastIndex(of: 1))
            for index in first..<last { #expect(rows[index] > 0 || rows[index + 1] > 0) }
            #expect(prompts[first...last].count { $0 > 1 } > 5, "the prompt was not read between answers' tokens")
        }
    }

    /// While a long step is under way, answers go on between its layers, and a short prompt that comes meanwhile is answered; all as alone.
    @Test func longStepsMakeWayBetweenLayers() async throws {
        let model = try DemoModel.file()
        let backend = SlowBackend(try CPUBackend(model: model, threadCount: 2))
        let engine = try Engine(model: model, backend: backend)
        let (reference, _) = try Self.engine()
        let questions = ["What is 347 + 586?", Self.long, "What is 5 + 6?"]
        var alone: [String] = []
        for question in questions {
            alone.append(try await Self.text(reference, reference.makeTimeline(kvType: .f16), question))
        }
        let answers = try questions.map { try Started($0, engine) }
        backend.onFirstSuspension.withLock { $0 = { answers[2].start(engine) } }
        backend.onFirstToken.withLock { $0 = { answers[1].start(engine) } }
        answers[0].start(engine)
        for (answer, expected) in zip(answers, alone) { #expect(try await answer.text() == expected) }
        #expect(backend.stepsWithin.withLock { $0 } > 2)
        #expect(backend.promptsWithin.withLock { $0 } > 0)
        for answer in answers { #expect(answer.timeline.tokens.count == answer.timeline.sequence.length) }
    }

    /// Requests that come while the first layer of another's prompt is computed are read together with it.
    @Test func requestsThatComeTogetherShareAStep() async throws {
        let model = try DemoModel.file()
        let backend = SlowBackend(try CPUBackend(model: model, threadCount: 2))
        let engine = try Engine(model: model, backend: backend)
        let (reference, _) = try Self.engine()
        let questions = ["What is 347 + 586?", "What is 5 + 6?", "What is 12 + 30?"]
        var alone: [String] = []
        for question in questions {
            alone.append(try await Self.text(reference, reference.makeTimeline(kvType: .f16), question))
        }
        let answers = try questions.map { try Started($0, engine) }
        backend.onFirstLayer.withLock {
            $0 = {
                answers[1].start(engine)
                answers[2].start(engine)
            }
        }
        answers[0].start(engine)
        for (answer, expected) in zip(answers, alone) { #expect(try await answer.text() == expected) }
        // The first step was begun again.
        #expect(backend.promptsOfSteps.withLock { Array($0.prefix(2)) } == [1, 3])
        for answer in answers { #expect(answer.timeline.tokens.count == answer.timeline.sequence.length) }
    }

    /// What failed together is repeated one by one, and nobody else has a turn meanwhile.
    @Test func whatFailsTogetherEndsOnceEach() async throws {
        let model = try DemoModel.file()
        let backend = SlowBackend(try CPUBackend(model: model, threadCount: 2))
        let engine = try Engine(model: model, backend: backend)
        let ends = Mutex([0, 0, 0])
        let prompt = try engine.prompt(turns: [Turn(.user, "7")], system: "", thinks: true)
        let generations = try (0..<3).map { _ in
            try Generation(
                GenerationRequest(
                    tokens: prompt.tokens, start: prompt.start, options: GenerationOptions(temperature: 0)),
                on: engine.makeTimeline(kvType: .f16), engine: engine
            ) { _ in }
        }
        let start: @Sendable (Int) -> Void = { index in
            engine.run(generations[index]) { _ in ends.withLock { $0[index] += 1 } }
        }
        backend.failsPrompts.withLock { $0 = true }
        backend.onFirstLayer.withLock {
            $0 = {
                start(1)
                start(2)
            }
        }
        start(0)
        while ends.withLock({ $0.contains(0) }) { try await Task.sleep(for: .milliseconds(10)) }
        backend.failsPrompts.withLock { $0 = false }
        _ = try await Self.text(engine, engine.makeTimeline(kvType: .f16), "What is 5 + 6?")
        #expect(ends.withLock { $0 } == [1, 1, 1])
        #expect(backend.promptsOfSteps.withLock { $0 }.contains(3))
    }

    /// Work that is cancelled while its step is suspended ends before the next layer.
    @Test func aLongStepIsCancelledWhileOthersRun() async throws {
        let model = try DemoModel.file()
        let backend = SlowBackend(try CPUBackend(model: model, threadCount: 2))
        let engine = try Engine(model: model, backend: backend)
        let (reference, _) = try Self.engine()
        let expected = try await Self.text(reference, reference.makeTimeline(kvType: .f16), "What is 347 + 586?")
        let other = try Started("What is 347 + 586?", engine)
        let cancelled = try Started(Self.long, engine)
        backend.onFirstSuspension.withLock { $0 = { cancelled.generation.cancel() } }
        backend.onFirstToken.withLock { $0 = { cancelled.start(engine) } }
        other.start(engine)
        #expect(try await cancelled.text() == "")
        #expect(try await other.text() == expected)
        #expect(backend.suspensions.withLock { $0 } > 0)
        #expect(cancelled.timeline.tokens.count == cancelled.timeline.sequence.length)
    }

    private static let long = (0..<150).map { "\($0)" }.joined(separator: " ")

    /// A generation that is started at a moment of one's choice, and waited for.
    private final class Started: Sendable {
        let timeline: Timeline
        let generation: Generation
        /// Of the prompt.
        let tokenCount: Int
        private let tokens: AsyncThrowingStream<String, any Error>
        private let continuation: AsyncThrowingStream<String, any Error>.Continuation

        init(_ question: String, _ engine: Engine) throws {
            let prompt = try engine.prompt(turns: [Turn(.user, question)], system: "", thinks: true)
            tokenCount = prompt.tokens.count
            let request = GenerationRequest(
                tokens: prompt.tokens, start: prompt.start,
                options: GenerationOptions(temperature: 0, thinkingBudget: 40, maximumTokens: 20))
            let (tokens, continuation) = AsyncThrowingStream<String, any Error>.makeStream()
            (self.tokens, self.continuation) = (tokens, continuation)
            timeline = try engine.makeTimeline(kvType: .f16)
            generation = try Generation(request, on: timeline, engine: engine) { event in
                if case .token(let token) = event { continuation.yield(token.text) }
            }
        }

        func start(_ engine: Engine) {
            engine.run(generation) { [continuation] result in
                switch result {
                case .success: continuation.finish()
                case .failure(let error): continuation.finish(throwing: error)
                }
            }
        }

        func text() async throws -> String { try await tokens.reduce("", +) }
    }

    /// Layers of several rows take more than half of the time that answers may wait.
    final class SlowBackend: ForwardingBackend, @unchecked Sendable {
        let backend: CPUBackend
        let suspensions = Mutex(0)
        let onFirstSuspension = Mutex<(@Sendable () -> Void)?>(nil)
        let onFirstLayer = Mutex<(@Sendable () -> Void)?>(nil)
        /// When a step begins that has no prompt.
        let onFirstToken = Mutex<(@Sendable () -> Void)?>(nil)
        /// Prompts that each step has begun to read.
        let promptsOfSteps = Mutex<[Int]>([])
        /// Steps between layers of others, and those of them that read a prompt.
        let stepsWithin = Mutex(0)
        let promptsWithin = Mutex(0)
        /// Whether prompts fail in their second layer.
        let failsPrompts = Mutex(false)
        // The engine thread's own.
        private var rows = 0
        private var suspendedRows: Int?

        init(_ backend: CPUBackend) { self.backend = backend }

        func begin(_ batch: Batch) throws {
            rows = batch.tokens.count
            if batch.segments.allSatisfy({ $0.count == 1 }) { run(onFirstToken) }
            promptsOfSteps.withLock { $0.append(batch.segments.count { $0.count > 1 }) }
            if suspendedRows != nil {
                stepsWithin.withLock { $0 += 1 }
                if batch.segments.contains(where: { $0.count > 1 }) { promptsWithin.withLock { $0 += 1 } }
            }
            try backend.begin(batch)
        }

        func attend(layer: Int) {
            run(onFirstLayer)
            if rows > 4 { Thread.sleep(forTimeInterval: 0.06) }
            backend.attend(layer: layer)
        }

        func feedForward(layer: Int) throws {
            try backend.feedForward(layer: layer)
            if rows > 4, layer > 0, failsPrompts.withLock({ $0 }) {
                throw SigmaError(.inputOutput, "the disk is gone")
            }
        }

        func suspend() {
            suspendedRows = rows
            backend.suspend()
            suspensions.withLock { $0 += 1 }
            run(onFirstSuspension)
        }

        /// Once.
        private func run(_ hook: borrowing Mutex<(@Sendable () -> Void)?>) {
            hook.withLock { action in
                defer { action = nil }
                return action
            }?()
        }

        func resume() {
            backend.resume()
            rows = suspendedRows ?? 0
            suspendedRows = nil
        }
    }
}
