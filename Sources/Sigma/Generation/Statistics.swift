/// Why a generation ended.
public enum FinishReason: String, Sendable {
    /// The model ended its answer, or a stop string appeared.
    case stop
    /// The answer's token limit.
    case length
    /// The sequence reached the context limit.
    case context
    /// It was cancelled.
    case interrupted
}

/// How an output head came to the logits that decide.
public enum OutputHead: String, Sendable {
    /// All of them were computed.
    case full
    /// Low-bit planes found the rows that can be among the largest, and those were computed exactly.
    case screened
}

/// What one generation did and what it cost. Times in seconds.
public struct Statistics: Sendable, Equatable {
    public var reason: FinishReason = .stop
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
    /// Steps of generation: the first token comes with the prompt.
    public var generationSteps = 0
    /// Bytes of weights and cache that the generation's steps read, from memory.
    public var generationBytes = 0
    /// Bytes that this process read from disk while the generation ran.
    public var diskBytes = 0
    /// The process's highest memory use so far (mapped weights that were used included).
    public var peakMemoryBytes = 0

    /// Pieces in which the prompt was read, and the experts that were read from disk for them.
    public var promptPieces = 0
    public var promptExpertReads = 0
    /// Experts that layers asked for while this generation ran (by whatever generation), once a step and layer; of them those that lay in memory,
    /// and those that a prediction or a sweep had begun to read before.
    public var expertRequests = 0
    public var expertHits = 0
    public var foretoldExperts = 0
    /// Bytes of experts that were read from disk, and seconds in which computation waited for them.
    public var expertBytesRead = 0
    public var expertStall = 0.0
    /// Predictions of experts, and those that were right.
    public var expertPredictions = 0
    public var rightExpertPredictions = 0

    /// The output head that chose tokens. The next numbers count rows of all steps that ran meanwhile, whatever generation's: those that the
    /// screen decided, those that it left to the full head, those that both computed (where log-probabilities were asked for), and of these
    /// where they disagreed, which should never be.
    public var head = OutputHead.full
    public var screenedRows = 0
    public var headFallbacks = 0
    public var headComparisons = 0
    public var headMisses = 0

    package init() {}

    mutating func setHead(_ counts: HeadStatistics) {
        head = counts.screenedRows > 0 ? .screened : .full
        screenedRows = counts.screenedRows
        headFallbacks = counts.fallbackRows
        headComparisons = counts.comparedRows
        headMisses = counts.misses
    }

    mutating func setExperts(_ experts: ExpertStatistics) {
        expertRequests = experts.requests
        expertHits = experts.hits
        foretoldExperts = experts.foretold
        expertBytesRead = experts.bytesRead
        expertStall = experts.stall
        expertPredictions = experts.predictions
        rightExpertPredictions = experts.rightPredictions
    }

    /// Share of the experts that lay in memory when they were asked for.
    public var expertHitRate: Double { expertRequests > 0 ? Double(expertHits) / Double(expertRequests) : 1 }

    public var generatedTokens: Int { thinkingTokens + answerTokens }
    /// Prompt tokens processed per second.
    public var promptTokensPerSecond: Double {
        promptTime > 0 ? Double(promptTokens - reusedPromptTokens) / promptTime : 0
    }
    /// Generated tokens per second, the first not counted.
    public var generationTokensPerSecond: Double {
        generationTime > 0 ? Double(generationSteps) / generationTime : 0
    }
    /// Bytes per second that generation read, in 10^9.
    public var generationGigabytesPerSecond: Double {
        generationTime > 0 ? Double(generationBytes) / generationTime / 1e9 : 0
    }
}
