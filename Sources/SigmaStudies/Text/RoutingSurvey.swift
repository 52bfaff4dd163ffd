import Sigma

/// Runs a model over windows of a text and shows observers how every token is routed. The output head is not computed.
///
/// One thread uses it; no generation may run on the engine meanwhile.
package final class RoutingSurvey {
    /// Rows of a step: enough to read each expert once for many, few enough for a small record.
    private static let rows = 512

    private let engine: Engine
    private let sequence: SequenceState
    private let batch = Batch()
    private let record: RoutingRecord
    private let observers: [any RoutingObserver]
    private var windows = 0

    /// - Throws: `SigmaError(.unavailable)` if the model cannot have such a key-value cache.
    package init(engine: Engine, kvType: KVType, observers: [any RoutingObserver]) throws {
        self.engine = engine
        self.observers = observers
        sequence = try engine.backend.makeSequence(kvType: kvType)
        record = RoutingRecord(engine.configuration)
    }

    /// Runs one window from an empty context.
    ///
    /// - Parameters:
    ///   - isCancelled: asked before every layer.
    ///   - afterStep: called with the number of tokens that were routed.
    /// - Throws: `CancellationError` if it was cancelled; `SigmaError` as the forward pass; what `afterStep` throws.
    package func run(
        _ window: ArraySlice<Int32>, isCancelled: () -> Bool, afterStep: (Int) throws -> Void
    ) throws {
        sequence.truncate(to: 0)
        defer { windows += 1 }
        var position = 0
        while position < window.count {
            let tokens = try engine.piece(of: window.dropFirst(position).prefix(Self.rows), for: sequence)
            batch.removeAll()
            batch.routing = record
            batch.append(tokens, to: sequence)
            guard try engine.forwardPass.run(batch, isCancelled: isCancelled, readOut: { _ in }) else {
                throw CancellationError()
            }
            let routed = RoutedTokens(
                record: record, rows: 0..<tokens.count, tokens: tokens, sequence: windows, position: position)
            for observer in observers { observer.observe(routed) }
            position += tokens.count
            try afterStep(tokens.count)
        }
    }
}
