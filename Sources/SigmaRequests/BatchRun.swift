import Sigma
import Synchronization

/// Answers the lines of a batch: as many side by side as make the most tokens/s, results as they come.
///
///     let run = BatchRun(engine, kvType: .f16, model: "demo")
///     try run.answer(lines: { try next() }, isStopped: { false }) { result in try write(result.json) }
///
/// A line whose prompt begins like one that is being read waits until that has been read, and begins with what was computed.
package final class BatchRun {
    /// A line of the file, without its end, and its number from 1.
    package struct Line: Sendable {
        package var number: Int
        package var bytes: [UInt8]

        package init(number: Int, bytes: [UInt8]) {
            self.number = number
            self.bytes = bytes
        }
    }

    /// What was done so far, for progress displays.
    package struct Progress: Sendable {
        package var lines = 0
        package var failures = 0
        package var promptTokens = 0
        package var generatedTokens = 0
        /// Answers that are being made.
        package var running = 0
    }

    private let engine: Engine
    private let kvType: KVType
    private let model: String
    private let context: RequestContext
    private let names: TokenNames
    private let inbox = BatchInbox()
    private var tuner: ConcurrencyTuner
    private var waiting: [BatchAnswer] = []
    private var running: [BatchAnswer] = []
    package private(set) var progress = Progress()

    /// Lines that are looked at ahead of those that run: common beginnings are found among them.
    private static let window = 64
    /// Tokens that must be in common for a line to wait for another.
    private static let leastCommon = 64

    /// - Parameters:
    ///   - model: the name that answers have.
    ///   - mostAnswers: side by side.
    package init(
        _ engine: Engine, kvType: KVType, model: String, mostAnswers: Int = ConcurrencyTuner.most,
        drafts: DraftMode = .auto
    ) {
        self.engine = engine
        self.kvType = kvType
        self.model = model
        context = RequestContext(engine, kvType: kvType, drafts: drafts)
        names = TokenNames(engine.tokenizer)
        tuner = ConcurrencyTuner(most: mostAnswers)
        engine.beginBatch()
    }

    deinit { engine.endBatch() }

    /// - Parameters:
    ///   - lines: the next line; nil at the end.
    ///   - isStopped: asked often; once true, running answers are cancelled and nothing is written of them.
    ///   - write: takes each result as it comes, in any order.
    /// - Throws: what `lines` and `write` throw.
    package func answer(
        lines: () throws -> Line?, isStopped: () -> Bool, progress show: (Progress) -> Void = { _ in },
        write: (BatchResult) throws -> Void
    ) throws {
        var hasMore = true
        defer { for answer in running { answer.cancel() } }
        while true {
            while hasMore, waiting.count < Self.window {
                guard let line = try lines() else {
                    hasMore = false
                    break
                }
                try read(line, write)
            }
            if isStopped() { return }
            begin()
            let reading = engine.gauge.reading
            tuner.record(
                tokens: reading.generatedTokens, seconds: reading.generationSeconds, running: running.count)
            progress.running = running.count
            show(progress)
            // Answers can have ended that never began, as another of their line had failed.
            let ended = inbox.wait(milliseconds: running.isEmpty ? 0 : 100)
            for answer in ended { try take(answer, write) }
            if running.isEmpty, ended.isEmpty, !hasMore, waiting.isEmpty { return }
        }
    }

    // MARK: - Lines

    /// Makes answers of a line, or the result that says why there are none.
    private func read(_ line: Line, _ write: (BatchResult) throws -> Void) throws {
        var customID: String?
        do {
            let batch = try line.bytes.withUnsafeBytes { try BatchLine(bytes: $0) }
            customID = batch.customID
            let request = try BatchRequest(batch, number: line.number, model: model, in: context, names)
            waiting += request.requests.indices.map { BatchAnswer(request, choice: $0) }
        } catch let refusal as BatchLine.Refusal {
            try fail(line.number, refusal.customID, refusal.error, write)
        } catch {
            let refusal = error as? RequestError ?? (error as? SigmaError).map { RequestError($0) }
            try fail(line.number, customID, refusal ?? RequestError(status: 500, "the line could not be read"), write)
        }
    }

    private func fail(
        _ number: Int, _ customID: String?, _ error: RequestError, _ write: (BatchResult) throws -> Void
    ) throws {
        progress.lines += 1
        progress.failures += 1
        try write(
            BatchResult(
                id: BatchRequest.id(number), requestID: BatchRequest.id(number), customID: customID,
                outcome: .failure(error)))
    }

    // MARK: - Answers

    /// Begins answers that wait, where there are places and memory.
    private func begin() {
        var index = 0
        while index < waiting.count, running.count < tuner.limit {
            let next = waiting[index]
            if next.request.failure != nil {
                waiting.remove(at: index)
                inbox.end(next)
                continue
            }
            // What is being read now is not computed twice.
            if running.contains(where: { !$0.hasReadPrompt && $0.commonTokens(with: next) >= Self.leastCommon }) {
                index += 1
                continue
            }
            let positions = running.reduce(next.missingPositions) { $0 + $1.missingPositions }
            guard running.isEmpty || engine.makeRoom(positions: positions, kvType: kvType) else {
                tuner.memoryEnds(running: running.count)
                return
            }
            waiting.remove(at: index)
            next.start(on: engine, kvType, inbox)
            running.append(next)
        }
    }

    private func take(_ answer: BatchAnswer, _ write: (BatchResult) throws -> Void) throws {
        running.removeAll { $0 === answer }
        guard let outcome = answer.request.ended(answer) else { return }
        switch outcome {
        case .failure(let error): try fail(answer.request.number, answer.request.customID, error, write)
        case .answer:
            progress.lines += 1
            progress.promptTokens += answer.request.usage.promptTokens
            progress.generatedTokens += answer.request.usage.completionTokens
            let id = BatchRequest.id(answer.request.number)
            try write(BatchResult(id: id, requestID: id, customID: answer.request.customID, outcome: outcome))
        }
    }
}
