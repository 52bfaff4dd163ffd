/// Work on a sequence that goes on step by step: an answer, or tokens whose logits somebody wants. Called on the engine's thread.
protocol StepWork: AnyObject, Sendable {
    var timeline: Timeline { get }
    var isCancelled: Bool { get }
    /// Whether its reader cannot take more: it has no step until the scheduler is woken.
    var isPaused: Bool { get }
    var routingObserver: (any RoutingObserver)? { get }
    /// Whether somebody waits for its next token; until then it reads a prompt, which may take its time.
    var isGenerating: Bool { get }

    /// How many tokens have no keys and values yet, beyond the timeline's; 0: the work has ended. Asked before every step.
    func pendingCount() -> Int
    /// The first of them: the piece of the next step.
    func takePiece(_ count: Int) -> ArraySlice<Int32>
    /// Guesses for the tokens behind the piece, which is all that is pending; nil: none. Asked before a step in which no prompt is read.
    func proposeDraft() -> DraftPlanner.Candidate?
    /// The piece with at most `count` of them behind it.
    func takeDraft(_ count: Int) -> ArraySlice<Int32>
    /// Of the piece, the rows whose logits are wanted.
    var wishedRows: Range<Int> { get }
    /// What one of them wants; `row` counts from the piece's first.
    func wish(row: Int) -> (wish: LogitRequest.Wish, mask: TokenMask)
    /// Takes what it asked for. Rows come in any order.
    func take(row: Int, _ logits: RowLogits)
    /// When all were taken: of the piece, the first so many rows become part of the sequence.
    var keptRows: Int { get }
    /// Tells whoever watches a long prompt how much of the piece's work is done.
    func showProgress(share: Double)
    /// Takes the step's result in: the kept tokens are in the timeline.
    /// - Returns: whether there is more to do.
    func finishStep(_ cost: StepCost) throws -> Bool

    /// The end of work that was cancelled before or in a step.
    func endInterrupted()
    /// The end of work whose next token has no room in the engine's memory, though it has all of it.
    /// - Throws: `SigmaError(.unavailable)` where nothing has been made of it.
    func endForWantOfMemory() throws
}

extension StepWork {
    func proposeDraft() -> DraftPlanner.Candidate? { nil }
    func takeDraft(_ count: Int) -> ArraySlice<Int32> { preconditionFailure("there is no draft") }
}

/// What a step cost.
struct StepCost {
    var seconds: Double
    /// Weights and cache that it read.
    var bytes: Int
}
