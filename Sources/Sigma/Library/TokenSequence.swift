import Synchronization

/// Tokens in, logits out: for programs that choose tokens themselves.
///
///     let sequence = try model.makeSequence()
///     var logits = try await sequence.append(try model.tokens(of: "Once upon"))
///     while let best = logits.indices.max(by: { logits[$0] < logits[$1] }), !model.stopTokens.contains(Int32(best)) {
///         logits = try await sequence.append([Int32(best)])
///     }
///
/// Exclusive, like a session: one `append` at a time. Its steps are shared with those of the model's sessions.
public final class TokenSequence: Sendable {
    private let engine: Engine
    private let timeline: Timeline
    private let isBusy = Mutex(false)

    init(engine: Engine, kvType: KVType) throws {
        self.engine = engine
        timeline = try engine.makeTimeline(kvType: kvType)
    }

    /// Tokens whose keys and values are stored.
    /// - Throws: `SigmaError(.usage)` while tokens are appended.
    public var tokens: [Int32] { get throws { try exclusively { timeline.tokens } } }

    /// Appends tokens and gives the logits [vocabulary] of what follows the last of them.
    ///
    /// - Throws: `SigmaError`: `.usage` for no tokens, ids outside the vocabulary, more tokens than the context has room for, or a sequence
    ///   that is busy; `.unavailable` if memory ends; `.inputOutput` if the model file was lost. `CancellationError` if the task was
    ///   cancelled. The sequence is then as it was before.
    public func append(_ tokens: [Int32]) async throws -> [Float] {
        let logits = Mutex<[Float]>([])
        try await run(tokens, everyRow: false) { _, row in logits.withLock { $0 = Array(row) } }
        return logits.withLock { $0 }
    }

    /// Appends tokens and shows `body` the logits [vocabulary] of what follows each of them, in order.
    ///
    /// - Parameters:
    ///   - tokens: what follows those that are there.
    ///   - body: called on the engine's thread, so it must be quick; `position` counts from the sequence's begin. What it throws ends the
    ///     work.
    /// - Returns: what `body` returned, for each token.
    /// - Throws: as `append(_:)`; what `body` throws.
    public func append<Result: Sendable>(
        _ tokens: [Int32], _ body: @escaping @Sendable (_ position: Int, _ logits: Span<Float>) throws -> Result
    ) async throws -> [Result] {
        // By position: a step that failed late is computed again.
        let results = Mutex<[Int: Result]>([:])
        try await run(tokens, everyRow: true) { position, row in
            let result = try body(position, row.span)
            results.withLock { $0[position] = result }
        }
        return results.withLock { $0.sorted { $0.key < $1.key }.map(\.value) }
    }

    /// Forgets the tokens from position `count` on.
    /// - Throws: `SigmaError(.usage)` if there are fewer, or while tokens are appended.
    public func truncate(to count: Int) throws {
        try exclusively {
            guard (0...timeline.tokens.count).contains(count) else {
                throw SigmaError(.usage, "the sequence has \(timeline.tokens.count) tokens, and not \(count)")
            }
            timeline.truncate(to: count)
        }
    }

    private func exclusively<Result>(_ body: () throws -> Result) throws -> Result {
        try isBusy.withLock { isBusy in
            guard !isBusy else { throw Self.busy }
            timeline.beginUse()
            defer { timeline.endUse() }
            return try body()
        }
    }

    private static var busy: SigmaError {
        SigmaError(.usage, "tokens are being appended to the sequence", remedy: "Wait for it, or use a second one.")
    }

    private func run(
        _ tokens: [Int32], everyRow: Bool,
        _ body: @escaping @Sendable (Int, UnsafeBufferPointer<Float>) throws -> Void
    ) async throws {
        try isBusy.withLock { isBusy in
            guard !isBusy else { throw Self.busy }
            isBusy = true
        }
        defer { isBusy.withLock { $0 = false } }
        let count = timeline.tokens.count
        try engine.check(tokens, after: count, timeline.sequence.kvType)
        let work = SequenceWork(engine, timeline, tokens, everyRow: everyRow, body)
        let ended = Signal()
        await withTaskCancellationHandler {
            engine.run(work) { ended.send($0) }
            await ended.wait()
        } onCancel: {
            work.cancel()
            engine.wake()
        }
        do {
            try ended.result?.get()
            if work.isInterrupted { throw CancellationError() }
        } catch {
            // What earlier steps have appended, too.
            timeline.beginUse()
            timeline.truncate(to: count)
            timeline.endUse()
            throw error
        }
    }
}

/// Tokens on their way into a sequence.
private final class SequenceWork: StepWork, @unchecked Sendable {
    let timeline: Timeline
    private let engine: Engine
    private var mask: TokenMask { engine.choosable }
    private let everyRow: Bool
    private let body: @Sendable (Int, UnsafeBufferPointer<Float>) throws -> Void
    private let cancelled = Atomic<Bool>(false)
    // The engine thread's own.
    private var pending: ArraySlice<Int32>
    private var piece: ArraySlice<Int32> = []
    private var failure: (any Error)?
    /// Read when the work has ended.
    private(set) var isInterrupted = false

    init(
        _ engine: Engine, _ timeline: Timeline, _ tokens: [Int32], everyRow: Bool,
        _ body: @escaping @Sendable (Int, UnsafeBufferPointer<Float>) throws -> Void
    ) {
        self.engine = engine
        self.timeline = timeline
        pending = tokens[...]
        isGenerating = tokens.count == 1
        self.everyRow = everyRow
        self.body = body
    }

    func cancel() { cancelled.store(true, ordering: .relaxed) }
    var isCancelled: Bool { cancelled.load(ordering: .relaxed) }
    var isPaused: Bool { false }
    var routingObserver: (any RoutingObserver)? { nil }
    /// A program that appends one token at a time generates.
    let isGenerating: Bool
    func showProgress(share: Double) {}

    func pendingCount() -> Int { pending.count }

    func takePiece(_ count: Int) -> ArraySlice<Int32> {
        piece = pending.prefix(count)
        failure = nil
        return piece
    }

    var wishedRows: Range<Int> {
        if everyRow { return 0..<piece.count }
        return piece.count == pending.count ? piece.count - 1..<piece.count : 0..<0
    }

    func wish(row: Int) -> (wish: LogitRequest.Wish, mask: TokenMask) { (.all, mask) }

    func take(row: Int, _ logits: RowLogits) {
        guard failure == nil, case .all(let logits) = logits else { return }
        do { try body(timeline.tokens.count + row, logits) } catch { failure = error }
    }

    var keptRows: Int { piece.count }

    func finishStep(_ cost: StepCost) throws -> Bool {
        pending = pending.dropFirst(piece.count)
        if let failure { throw failure }
        return !pending.isEmpty
    }

    func endInterrupted() { isInterrupted = true }

    func endForWantOfMemory() throws {
        throw engine.noRoom(for: timeline.tokens.count + pending.count, timeline.sequence.kvType)
    }
}

extension Engine {
    /// - Parameter count: tokens that are in the sequence already.
    /// - Throws: `SigmaError`: `.usage` for tokens that cannot be computed, `.unavailable` if the memory budget has no room for them.
    fileprivate func check(_ tokens: [Int32], after count: Int, _ kvType: KVType) throws {
        guard !tokens.isEmpty else { throw SigmaError(.usage, "there are no tokens to append") }
        try checkVocabulary(tokens)
        guard tokens.count <= contextLength - count else {
            throw SigmaError(
                .usage,
                "the sequence has \(count) tokens, and \(tokens.count) more do not fit the context of \(contextLength)",
                remedy: .anyOf(["Forget some with truncate(to:).", .raise(.contextLength, least: nil)]))
        }
        guard tokens.count <= positionLimit(kvType: kvType) - count else {
            throw noRoom(for: count + tokens.count, kvType)
        }
    }
}
