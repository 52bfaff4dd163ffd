/// A token of an answer.
public struct AnswerToken: Sendable, Equatable {
    public enum Phase: String, Sendable { case thinking, answer }

    public var id: Int32
    public var phase: Phase
    /// What became certain with this token, without tags and stop strings. May be empty.
    public var text: String
    /// In the model's own distribution, before temperature and cuts; nil: not asked for.
    public var logProbability: Double?
    /// The likeliest tokens there, as many as were asked for.
    public var top: [TokenLogProbability]

    package init(
        id: Int32, phase: Phase, text: String, logProbability: Double? = nil, top: [TokenLogProbability] = []
    ) {
        self.id = id
        self.phase = phase
        self.text = text
        self.logProbability = logProbability
        self.top = top
    }
}

/// A prompt position's distribution over what follows it.
public struct PromptPosition: Sendable, Equatable {
    /// The token that follows and its log-probability; nil at the last position.
    public var next: TokenLogProbability?
    public var top: [TokenLogProbability]

    package init(next: TokenLogProbability?, top: [TokenLogProbability]) {
        self.next = next
        self.top = top
    }
}

/// What happens while an answer is made, in this order.
public enum AnswerEvent: Sendable {
    /// Prompt tokens that are in the key-value cache, of all.
    case prefill(done: Int, total: Int)
    case promptLogProbabilities([PromptPosition])
    case token(AnswerToken)
    /// The thinking budget has ended: these tokens were put in.
    case closing(ids: [Int32], text: String)
    /// The end, with text that was held back until now (it could have become a tag or a stop string); the remainder has no id.
    case finished(Statistics, remainder: AnswerToken?)
}
