/// What experts cost since the model was loaded.
package struct ExpertStatistics: Sendable, Equatable {
    /// Records asked for, each once a layer and step.
    package var requests = 0
    /// Of them: those that lay in memory, and those that a prediction or a sweep had begun to read.
    package var hits = 0
    package var prefetched = 0
    /// Records read from the disk, and their bytes; reads that began and were given up count with what was read.
    package var reads = 0
    package var bytesRead = 0
    /// Predictions of single experts that were computed, and those that were right.
    package var predictions = 0
    package var rightPredictions = 0
    /// Seconds in which computation waited for a record.
    package var stall = 0.0

    package init() {}

    package var hitRate: Double { requests == 0 ? 1 : Double(hits) / Double(requests) }
    package static func + (a: Self, b: Self) -> Self { a - (Self() - b) }
    package static func - (a: Self, b: Self) -> Self {
        var difference = a
        difference.requests -= b.requests
        difference.hits -= b.hits
        difference.prefetched -= b.prefetched
        difference.reads -= b.reads
        difference.bytesRead -= b.bytesRead
        difference.predictions -= b.predictions
        difference.rightPredictions -= b.rightPredictions
        difference.stall -= b.stall
        return difference
    }
}
