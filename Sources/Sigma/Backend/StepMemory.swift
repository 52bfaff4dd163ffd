/// What a back end's memory has room for. `begin` grants what these promise: one function of the back end decides.
package protocol StepMemory: AnyObject, Sendable {
    /// Rows of the largest step: of any, of one where nobody waits for a single prompt, and of one where other sequences wait for its end.
    var rowLimit: Int { get }
    var batchRowLimit: Int { get }
    var sharedRowLimit: Int { get }
    /// Positions that a sequence of this type, alone, can have; nil: as many as the model states.
    func positionLimit(kvType: KVType) -> Int?
    /// Rows, at most `limit`, by which `sequence` can grow in a step that has the rows of `batch` already; 0: none.
    func room(for sequence: SequenceState, limit: Int, beside batch: Batch) -> Int
    /// Whether `sequence` could have keys and values of `positions` positions in all, one row at a time.
    func hasRoom(for sequence: SequenceState, positions: Int) -> Bool
    /// Between steps, where there is room: takes the memory of `positions` positions in all for `sequence`, and what it needs from others first.
    /// - Throws: `SigmaError(.unavailable)` if memory ends.
    func reserve(_ positions: Int, of sequence: SequenceState) throws
}
