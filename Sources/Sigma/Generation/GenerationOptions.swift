/// How an answer is made. The defaults are the paper's (section 4.3).
public struct GenerationOptions: Sendable, Equatable {
    /// Divides the logits; 0 always takes the likeliest token (ties to the lowest id).
    public var temperature: Double
    /// Only the `topK` likeliest tokens may be chosen; 0: all.
    public var topK: Int
    /// Only the likeliest tokens that together have this probability may be chosen; 1: all.
    public var topP: Double
    /// Only tokens at least this likely, relative to the likeliest, may be chosen; 0: all.
    public var minP: Double
    /// The same seed gives the same answer; nil: a random one, reported in the statistics.
    public var seed: UInt64?
    /// Whether the model thinks before it answers (paper, Table 5).
    public var thinks: Bool
    /// Whether the thinking of earlier answers stays in the history. Reasoning models expect that it does not.
    public var keepsThinking: Bool
    /// Tokens of thinking after which the closing phrase and `</think>` are put in.
    public var thinkingBudget: Int
    /// Tokens of the answer.
    public var maximumTokens: Int
    /// Put before `</think>` when the thinking budget ends; nil: the model file's.
    public var closingPhrase: String?
    /// The answer ends before the first of these strings.
    public var stopStrings: [String]
    /// Added to the logits of these tokens.
    public var logitBias: [Int32: Double]
    /// Taken off a token's logit for each time that it was generated before, and once if it was at all.
    public var frequencyPenalty: Double
    public var presencePenalty: Double
    /// Whether likely next tokens are guessed and verified several at a time: faster where text repeats, and never another answer.
    public var drafts: DraftMode

    public init(
        temperature: Double = 0.6, topK: Int = 20, topP: Double = 0.95, minP: Double = 0, seed: UInt64? = nil,
        thinks: Bool = true, keepsThinking: Bool = false, thinkingBudget: Int = 32768, maximumTokens: Int = 4096,
        closingPhrase: String? = nil, stopStrings: [String] = [], logitBias: [Int32: Double] = [:],
        frequencyPenalty: Double = 0, presencePenalty: Double = 0, drafts: DraftMode = .auto
    ) {
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.minP = minP
        self.seed = seed
        self.thinks = thinks
        self.keepsThinking = keepsThinking
        self.thinkingBudget = thinkingBudget
        self.maximumTokens = maximumTokens
        self.closingPhrase = closingPhrase
        self.stopStrings = stopStrings
        self.logitBias = logitBias
        self.frequencyPenalty = frequencyPenalty
        self.presencePenalty = presencePenalty
        self.drafts = drafts
    }

    /// - Throws: `SigmaError(.usage)` naming the first option that makes no sense.
    package func check() throws {
        func require(_ condition: Bool, _ message: @autoclosure () -> String) throws {
            if !condition { throw SigmaError(.usage, message()) }
        }
        try require(
            temperature >= 0 && temperature.isFinite, "the temperature must be 0 or more, and is \(temperature)")
        try require(topK >= 0, "top-k must be 0 (off) or more, and is \(topK)")
        try require(topP > 0 && topP <= 1, "top-p must be above 0 and at most 1, and is \(topP)")
        try require(minP >= 0 && minP <= 1, "min-p must be from 0 to 1, and is \(minP)")
        try require(thinkingBudget >= 0, "the thinking budget must be 0 or more, and is \(thinkingBudget)")
        try require(
            !(closingPhrase ?? "").contains("<think>") && !(closingPhrase ?? "").contains("</think>"),
            "the closing phrase must not contain <think> or </think>: the end of thinking is put behind it")
        try require(
            // As logits are.
            ([frequencyPenalty, presencePenalty] + logitBias.values).allSatisfy { Float($0).isFinite },
            "penalties and biases must be numbers")
        try require(maximumTokens >= 0, "the number of tokens must be 0 or more, and is \(maximumTokens)")
    }
}
