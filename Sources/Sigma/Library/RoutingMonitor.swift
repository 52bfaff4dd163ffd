import Synchronization

/// Watches, live, which experts a model's sessions use.
///
///     let monitor = try RoutingMonitor(for: model)
///     let session = model.makeSession(routing: monitor)
///     _ = try await session.respond(to: "What is 12 + 34?")
///     print(monitor.report.layers[0].deviationOfMost)
///
/// Every token that is computed counts once: those of prompts and those generated, but not what the key-value cache already held. It
/// costs some microseconds a layer and token on the engine's thread; sessions without a monitor pay nothing.
public final class RoutingMonitor: Sendable {
    /// A token, and the experts that it used.
    public struct Token: Sendable {
        public var id: Int32
        /// In its sequence.
        public var position: Int
        /// One entry a layer, the preferred expert first; empty in dense layers.
        public var experts: [[Int]]
    }

    let engine: Engine
    private let temperature: Double
    private let onToken: (@Sendable (Token) -> Void)?
    private let statistics: Mutex<RoutingStatistics>

    /// - Parameters:
    ///   - model: the one that the sessions will be of.
    ///   - temperature: tau in the Top-1 load-balancing loss (paper, equation 3).
    ///   - onToken: called with every token when its step has completed, on the engine's thread: it must be quick.
    /// - Throws: `SigmaError`: `.usage` for a temperature that is not above 0, `.damaged` for a model without routers.
    public init(
        for model: SigmaModel, temperature: Double = 1, onToken: (@Sendable (Token) -> Void)? = nil
    ) throws {
        engine = model.engine
        self.temperature = temperature
        self.onToken = onToken
        statistics = Mutex(try RoutingStatistics(.init(model.engine.model), temperature: temperature))
    }

    /// What was seen so far. From any thread, also while sessions answer.
    public var report: RoutingReport {
        // A copy: the engine's thread is not held up by the evaluation.
        let seen = statistics.withLock { $0 }
        return seen.report
    }

    /// Forgets what was seen.
    public func reset() {
        statistics.withLock { statistics in
            // The same arguments succeeded before.
            if let empty = try? RoutingStatistics(statistics.model, temperature: temperature) { statistics = empty }
        }
    }
}

extension RoutingMonitor: RoutingObserver {
    package func observe(_ tokens: RoutedTokens) {
        statistics.withLock { $0.add(tokens) }
        guard let onToken else { return }
        for (index, row) in tokens.rows.enumerated() {
            onToken(
                Token(
                    id: tokens.tokens[tokens.tokens.startIndex + index], position: tokens.position + index,
                    experts: (0..<tokens.record.layerCount).map { layer in
                        (0..<tokens.record.choices(layer: layer)).map {
                            tokens.record.chosen(row: row, layer: layer, choice: $0)
                        }
                    }))
        }
    }
}
