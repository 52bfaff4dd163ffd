/// How an output head came to the logits that decide.
public enum OutputHead: String, Sendable {
    /// All of them were computed.
    case full
    /// Low-bit planes found the rows that can be among the largest, and those were computed exactly.
    case screened
}

/// What an engine did in a stretch of time: experts, output head, disk and memory. It belongs to no request: others may have run meanwhile.
public struct EngineActivity: Sendable, Equatable {
    /// Bytes that this process read from disk.
    public var diskBytes = 0
    /// The process's highest memory use so far (mapped weights that were used included).
    public var peakMemoryBytes = 0

    /// Experts that layers asked for, once a step and layer; of them those that lay in memory, and those that a prediction or a sweep had begun to
    /// read before.
    public var expertRequests = 0
    public var expertHits = 0
    public var prefetchedExperts = 0
    /// Experts read from disk, their bytes, and seconds in which computation waited for them.
    public var expertReads = 0
    public var expertBytesRead = 0
    public var expertStall = 0.0
    /// Of them, those that were read until the prompt of the request was processed.
    public var promptExpertReads = 0
    /// Predictions of experts, and those that were right.
    public var expertPredictions = 0
    public var rightExpertPredictions = 0

    /// The output head that chose tokens. The next numbers count rows: all of them, those whose constraint allowed so few tokens that only
    /// these were computed, those that the screen decided, those that it left to the full head, those that both computed (where log-probabilities were asked for), and of these where they disagreed, which should never be.
    public var head = OutputHead.full
    public var headRows = 0
    public var cutHeadRows = 0
    public var screenedRows = 0
    public var headFallbacks = 0
    public var headComparisons = 0
    public var headMisses = 0

    package init() {}

    /// Share of the experts that lay in memory when they were asked for.
    public var expertHitRate: Double { expertRequests > 0 ? Double(expertHits) / Double(expertRequests) : 1 }
}

/// Measures an engine's activity from a moment on.
struct ActivityMeter {
    private let reporter: any BackendReporting
    private let diskBytes: Int
    private let experts: ExpertStatistics
    private let head: HeadStatistics

    init(_ reporter: any BackendReporting) {
        self.reporter = reporter
        diskBytes = ProcessUsage.diskBytes
        experts = reporter.expertStatistics
        head = reporter.headStatistics
    }

    /// Experts read since.
    var expertReads: Int { (reporter.expertStatistics - experts).reads }

    /// All since.
    func activity(promptExpertReads: Int) -> EngineActivity {
        var activity = EngineActivity()
        activity.diskBytes = ProcessUsage.diskBytes - diskBytes
        activity.peakMemoryBytes = ProcessUsage.peakMemory
        let experts = reporter.expertStatistics - experts
        activity.expertRequests = experts.requests
        activity.expertHits = experts.hits
        activity.prefetchedExperts = experts.prefetched
        activity.expertReads = experts.reads
        activity.expertBytesRead = experts.bytesRead
        activity.expertStall = experts.stall
        activity.promptExpertReads = promptExpertReads
        activity.expertPredictions = experts.predictions
        activity.rightExpertPredictions = experts.rightPredictions
        let head = reporter.headStatistics - head
        activity.head = head.screenedRows > 0 ? .screened : .full
        activity.headRows = head.allowedRows + head.screenedRows + head.fallbackRows + head.fullRows
        activity.cutHeadRows = head.allowedRows
        activity.screenedRows = head.screenedRows
        activity.headFallbacks = head.fallbackRows
        activity.headComparisons = head.comparedRows
        activity.headMisses = head.misses
        return activity
    }
}
