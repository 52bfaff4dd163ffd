import Sigma

/// Where a chat's answer shows the thinking.
package enum ReasoningField: String, Sendable, CaseIterable {
    case reasoningContent = "reasoning_content"
    case reasoning
    /// In the content, between its tags.
    case none
}

/// What an event adds to a choice.
struct ChatDelta: Equatable {
    var reasoning = ""
    var content = ""
    /// Those whose log-probabilities belong to the content.
    var tokens: [AnswerToken] = []
    var finish: FinishReason?
}

/// One choice of a chat's answer: what its events add up to.
struct ChatChoice {
    private enum Phase { case before, thinking, answer }

    private let field: ReasoningField
    private let wantsLogProbabilities: Bool
    private var phase = Phase.before
    /// Whether its role was sent.
    var hasBegun = false
    private(set) var whole = ChatDelta()

    init(_ field: ReasoningField, wantsLogProbabilities: Bool) {
        self.field = field
        self.wantsLogProbabilities = wantsLogProbabilities
    }

    /// What the event adds.
    mutating func delta(_ event: AnswerEvent) -> ChatDelta {
        var delta = ChatDelta()
        switch event {
        case .prefill, .promptLogProbabilities: break
        case .token(let token):
            add(token.text, of: token.phase, to: &delta)
            if wantsLogProbabilities, token.phase == .answer || field == .none { delta.tokens.append(token) }
        case .closing(_, let text):
            add(text, of: .thinking, to: &delta)
            // The end of thinking is among the tokens that were put in.
            add("", of: .answer, to: &delta)
        case .finished(let statistics, let remainder):
            if let remainder { add(remainder.text, of: remainder.phase, to: &delta) }
            delta.finish = statistics.reason
        }
        return delta
    }

    private mutating func add(_ text: String, of phase: AnswerToken.Phase, to delta: inout ChatDelta) {
        switch phase {
        case .thinking where field == .none:
            if self.phase == .before { delta.content += "<think>" }
            self.phase = .thinking
            delta.content += text
        case .thinking: delta.reasoning += text
        case .answer:
            if field == .none, self.phase == .thinking { delta.content += "</think>" }
            self.phase = .answer
            delta.content += text
        }
    }

    /// Keeps what the event adds, for the whole answer.
    mutating func append(_ delta: ChatDelta) {
        whole.reasoning += delta.reasoning
        whole.content += delta.content
        whole.tokens += delta.tokens
        whole.finish = delta.finish ?? whole.finish
    }
}
