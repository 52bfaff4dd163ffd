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
    /// Pieces of calls after the content.
    var calls: [CallPiece] = []
    /// Those whose log-probabilities belong to the content.
    var tokens: [AnswerToken] = []
    var finish: FinishReason?

    /// The calls' pieces and the end alone.
    var withoutText: ChatDelta {
        var rest = self
        rest.reasoning = ""
        rest.content = ""
        rest.tokens = []
        return rest
    }
}

/// A call in an answer.
struct AnsweredCall: Equatable {
    var name: String
    /// JSON.
    var arguments = ""
    /// False where the answer ended within it.
    var isComplete = false
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
    private var begunCalls: [AnsweredCall] = []
    /// Nil where nothing is called: then all of the answer is text.
    private var parser: CallParser?
    /// Those whose text may be the content's or a call's.
    private var undecided: [AnswerToken] = []

    /// - Parameter constraint: what the answer is held to; nil: nothing is known of it.
    init(
        _ field: ReasoningField, wantsLogProbabilities: Bool, _ settings: AnswerSettings, _ constraint: TokenConstraint?
    ) {
        self.field = field
        self.wantsLogProbabilities = wantsLogProbabilities
        if let tools = settings.tools, tools.choice != .none {
            // An answer that is constrained itself has calls in its place, never behind it.
            parser = CallParser(
                constraint?.opening ?? tools.calls(.taggedJSON).opening,
                followsText: tools.choice == .auto && settings.constraint == nil,
                parameters: { constraint?.parameters(of: $0) ?? FunctionParameters() })
        }
    }

    /// Those that are complete.
    var calls: [AnsweredCall] { begunCalls.filter(\.isComplete) }

    /// What the pieces of call `index` add up to so far.
    func call(_ index: Int) -> AnsweredCall { begunCalls[index] }

    var hasBegunCall: Bool { !begunCalls.isEmpty }

    /// Whether it has text, or nothing else: calls need none before them.
    var hasMessage: Bool { !whole.content.isEmpty || !whole.tokens.isEmpty || !hasBegunCall }

    /// Whether the text is all that the model wanted to say.
    var isTextComplete: Bool { whole.finish == .stop || hasBegunCall }

    /// Why it finished, in OpenAI's words.
    var finishName: String? {
        whole.finish == .stop && !calls.isEmpty ? "tool_calls" : whole.finish?.protocolName
    }

    /// What the event adds.
    mutating func delta(_ event: AnswerEvent) -> ChatDelta {
        var delta = ChatDelta()
        switch event {
        case .prefill, .promptLogProbabilities: break
        case .token(let token):
            add(token.text, of: token.phase, to: &delta)
            if wantsLogProbabilities, token.phase == .answer || field == .none { give(token, to: &delta) }
        case .closing(_, let text):
            add(text, of: .thinking, to: &delta)
            // The end of thinking is among the tokens that were put in.
            add("", of: .answer, to: &delta)
        case .finished(let statistics, let remainder):
            if let remainder { add(remainder.text, of: remainder.phase, to: &delta) }
            if let parser {
                let isCut = statistics.reason != .stop || statistics.stopString != nil
                let rest = self.parser?.finish(isCut: isCut) ?? ""
                delta.content += rest
                if !parser.isInCall, !parser.isUndecided || !rest.isEmpty { delta.tokens += undecided }
            }
            undecided = []
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
            guard let (content, calls) = parser?.append(text) else { return delta.content += text }
            delta.content += content
            delta.calls += calls
        }
    }

    /// Calls are no content, so their tokens have no log-probabilities.
    private mutating func give(_ token: AnswerToken, to delta: inout ChatDelta) {
        guard let parser else { return delta.tokens.append(token) }
        undecided.append(token)
        guard !parser.isUndecided || parser.isInCall else { return }
        if !parser.isInCall { delta.tokens += undecided }
        undecided = []
    }

    /// Keeps what the event adds, for the whole answer.
    mutating func append(_ delta: ChatDelta) {
        whole.reasoning += delta.reasoning
        whole.content += delta.content
        whole.tokens += delta.tokens
        whole.finish = delta.finish ?? whole.finish
        for piece in delta.calls {
            if let name = piece.name { begunCalls.append(AnsweredCall(name: name)) }
            begunCalls[piece.index].arguments += piece.arguments
            begunCalls[piece.index].isComplete = piece.isEnd
        }
    }
}
