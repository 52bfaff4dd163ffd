/// Which way a step of so many rows goes: every threshold that chooses among ways which give the same bytes.
enum StepPath {
    /// Rows of a step at most where all experts are in memory: activations of more would leave the caches.
    static let residentRows = 1024
    /// Such steps that are one where a batch's prompts are read together.
    static let batchSteps = 2
    /// Where experts are read from the disk a sweep over many rows reads each once: rows of such a step at most.
    static let sweepRows = 4096
    /// Rows of a step where other sequences wait for its end, and experts that are in memory can be met again soon.
    static let sharedRows = 256

    /// Up to so many rows a step waits for weights and for other members rather than for arithmetic: weights are prefetched before barriers, and
    /// q, k and v are computed head by head.
    static let fewRows = 8
    /// Rows that every member normalises and routes for itself, which takes less time than to wait for the others.
    static let rowsNormalizedAlone = 2
    /// Segments of up to so many rows are split over positions, so that all members have work at depth; longer ones over rows.
    static let rowsSplitOverPositions = 2
    /// Rows from which a float product goes through OpenBLAS, and rows that go through it at a time.
    static let blasMinimum = 8
    static let blasRows = 256
    /// Rows of a product that are held beside each other before they are used up.
    static let rowPiece = 256
    /// Steps with more rows find enough experts to read at once without predictions. Drafts are seldom longer.
    static let predictedRows = 8
    /// A row whose allowed tokens need at most this part of what else would be read of the head is computed of them alone. Less than all,
    /// because groups that lie apart are read more slowly, and because the screen is read once for all rows of a step.
    static let allowedHeadShare = 2
    /// Up to so many rows of a step have their largest logits looked for by the screen, which reads fewer bytes; more are the full head's, which
    /// reads its bytes once for all (docs/screened-head.md has what was measured).
    static let screenedRows = 4
    /// Rows whose logits are computed at once.
    static let headRows = 32
}
