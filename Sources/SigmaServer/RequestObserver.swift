import Sigma
import Synchronization

/// Watches one request, for metrics and the log.
final class RequestObserver: Sendable {
    struct Summary: Sendable {
        var promptTokens = 0
        var cachedTokens = 0
        var generatedTokens = 0
        /// Seconds until the first token; nil: there was none.
        var firstToken: Double?
        var finish: String?
    }

    private struct State {
        var summary = Summary()
        var lastToken: Double?
    }

    let begin = monotonicTime()
    private let metrics: ServerMetrics
    private let state = Mutex(State())

    init(_ metrics: ServerMetrics) { self.metrics = metrics }

    var summary: Summary { state.withLock { $0.summary } }
    var seconds: Double { monotonicTime() - begin }

    func saw(_ event: AnswerEvent) {
        switch event {
        case .token:
            let now = monotonicTime()
            let (first, gap) = state.withLock { state -> (Double?, Double?) in
                let gap = state.lastToken.map { now - $0 }
                state.lastToken = now
                guard state.summary.firstToken == nil else { return (nil, gap) }
                state.summary.firstToken = now - begin
                return (now - begin, nil)
            }
            if let first { metrics.timeToFirstToken.record(first) }
            if let gap { metrics.timeBetweenTokens.record(gap) }
        case .finished(let statistics, _):
            state.withLock { state in
                state.summary.promptTokens += statistics.promptTokens
                state.summary.cachedTokens += statistics.reusedPromptTokens
                state.summary.generatedTokens += statistics.generatedTokens
                state.summary.finish = statistics.reason.rawValue
            }
            metrics.promptTokens.increment(by: Int64(statistics.promptTokens))
            metrics.cachedTokens.increment(by: Int64(statistics.reusedPromptTokens))
            metrics.generatedTokens.increment(by: Int64(statistics.generatedTokens))
        case .prefill, .promptLogProbabilities, .closing: break
        }
    }
}
