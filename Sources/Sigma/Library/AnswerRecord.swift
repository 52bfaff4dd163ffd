import Synchronization

/// Collects an answer on the engine's thread, for the turn or the whole answer that it becomes.
final class AnswerRecord: Sendable {
    private struct State {
        var text = ""
        var reasoning = ""
        var tokens: [Int32] = []
        var statistics: Statistics?

        mutating func add(_ token: AnswerToken) {
            switch token.phase {
            case .thinking: reasoning += token.text
            case .answer: text += token.text
            }
        }
    }

    private let state = Mutex(State())

    func take(_ event: AnswerEvent) {
        state.withLock { state in
            switch event {
            case .prefill, .promptLogProbabilities: break
            case .closing(let ids, let text):
                state.tokens += ids
                state.reasoning += text
            case .token(let token):
                state.tokens.append(token.id)
                state.add(token)
            case .finished(let statistics, let remainder):
                if let remainder { state.add(remainder) }
                state.statistics = statistics
            }
        }
    }

    /// The whole; nil while it is being made.
    var whole: AnswerBatch.Whole? {
        state.withLock { state in
            state.statistics.map { AnswerBatch.Whole(text: state.text, reasoning: state.reasoning, statistics: $0) }
        }
    }

    /// The turn that becomes part of the conversation; nil if none does.
    ///
    /// - Parameters:
    ///   - isStopped: the session's owner ended it: what there is of an answer stays.
    ///   - endedAtStopString: the text ends before its tokens.
    func turn(_ prompt: Prompt, _ options: GenerationOptions, isStopped: Bool, endedAtStopString: Bool) -> Turn? {
        state.withLock { state in
            guard let reason = state.statistics?.reason else { return nil }
            switch reason {
            case .stop, .length: if options.maximumTokens == 0 { return nil }
            case .context: if state.text.isEmpty { return nil }
            case .interrupted: if !isStopped || state.text.isEmpty { return nil }
            }
            var turn = Turn(.assistant, state.text, reasoning: state.reasoning)
            if let opening = prompt.opening, !endedAtStopString {
                turn.written = Turn.Written(opening: opening, generated: state.tokens)
            }
            return turn
        }
    }
}
