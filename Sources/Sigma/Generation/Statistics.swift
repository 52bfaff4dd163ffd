/// Why a generation ended.
public enum FinishReason: String, Sendable {
    /// The model ended its answer, or a stop string appeared.
    case stop
    /// The answer's token limit.
    case length
    /// The sequence reached the context limit, or what the memory budget has room for.
    case context
    /// It was cancelled.
    case interrupted
}

/// What one answer did and what it cost. Times in seconds.
public struct Statistics: Sendable, Equatable {
    public var reason: FinishReason = .stop
    /// The token that ended the answer, which is no part of it; nil: something else ended it.
    public var stopToken: AnswerToken?
    /// The stop string that ended the answer, which is no part of it; nil: something else ended it.
    public var stopString: String?
    /// The thinking budget ended the thinking.
    public var thinkingWasCut = false
    /// The seed that was used: with it the same answer comes again.
    public var seed: UInt64 = 0
    /// Tokens of the whole prompt, and how many of them were still in the key-value cache.
    public var promptTokens = 0
    public var reusedPromptTokens = 0
    public var thinkingTokens = 0
    public var answerTokens = 0
    /// Until the prompt was processed and the first token chosen.
    public var timeToFirstToken = 0.0
    /// Time spent in steps of the prompt, and in steps of generation.
    public var promptTime = 0.0
    public var generationTime = 0.0
    /// Pieces in which the prompt was read.
    public var promptPieces = 0
    /// Steps of generation: the first token comes with the prompt.
    public var generationSteps = 0
    /// Guessed tokens that steps of generation computed, and those of them that were right.
    public var draftedTokens = 0
    public var acceptedDraftTokens = 0
    /// Whether the request predicted a text.
    package var hasPrediction = false
    /// Bytes of weights and cache that the generation's steps read, from memory.
    public var generationBytes = 0
    /// What the engine did meanwhile, for whatever request.
    public var engine = EngineActivity()

    package init() {}

    public var generatedTokens: Int { thinkingTokens + answerTokens }
    /// Prompt tokens processed per second.
    public var promptTokensPerSecond: Double {
        promptTime > 0 ? Double(promptTokens - reusedPromptTokens) / promptTime : 0
    }
    /// Tokens that the steps of generation made.
    public var steppedTokens: Int { generationSteps + acceptedDraftTokens }
    /// Generated tokens per second, the first not counted.
    public var generationTokensPerSecond: Double {
        generationTime > 0 ? Double(steppedTokens) / generationTime : 0
    }
    /// Bytes per second that generation read, in 10^9.
    public var generationGigabytesPerSecond: Double {
        generationTime > 0 ? Double(generationBytes) / generationTime / 1e9 : 0
    }
}
