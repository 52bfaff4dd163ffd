import Sigma

/// The CPU back end, which computes all that it is asked for; but the token that follows is always the next one of a text.
///
/// Steps of one sequence only.
final class ReplayingBackend: Backend, StepMemory, BackendReporting, @unchecked Sendable {
    /// The prompt, and what is replayed after it.
    var text: [Int32] = []
    /// The place of a token that its row's mask forbids, were it replayed.
    private(set) var refused: Int?
    private let backend: CPUBackend
    private var segment: Batch.Segment?

    init(_ backend: CPUBackend) { self.backend = backend }

    func begin(_ batch: Batch) throws {
        precondition(batch.segments.count == 1)
        segment = batch.segments[0]
        try backend.begin(batch)
    }

    func readLogits(_ requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void) {
        let segment = segment!
        backend.readLogits(requests) { index, _ in
            let place = segment.position + requests[index].row + 1
            let next = TokenLogit(id: place < text.count ? text[place] : text[text.count - 1], logit: 0)
            if !requests[index].mask.allows(Int(next.id)), refused == nil { refused = place }
            withUnsafePointer(to: next) { body(index, .largest(UnsafeBufferPointer(start: $0, count: 1))) }
        }
    }

    // MARK: - Passed on

    var headRowLimit: Int { backend.headRowLimit }
    var rowsAreIndependent: Bool { backend.rowsAreIndependent }
    var canSuspend: Bool { backend.canSuspend }
    func suspend() { backend.suspend() }
    func resume() { backend.resume() }
    var stepBytes: Int { backend.stepBytes }
    func makeSequence(kvType: KVType) throws -> SequenceState { try backend.makeSequence(kvType: kvType) }
    func embed() { backend.embed() }
    func attend(layer: Int) { backend.attend(layer: layer) }
    func feedForward(layer: Int) throws { try backend.feedForward(layer: layer) }
    func layerRouting() -> LayerRouting? { backend.layerRouting() }
    func head(rows: Range<Int>) -> UnsafeBufferPointer<Float> { backend.head(rows: rows) }
    func end() throws { try backend.end() }
    var rowLimit: Int { backend.rowLimit }
    var sharedRowLimit: Int { backend.sharedRowLimit }
    func positionLimit(kvType: KVType) -> Int? { backend.positionLimit(kvType: kvType) }
    func room(for sequence: SequenceState, limit: Int, beside batch: Batch) -> Int {
        backend.room(for: sequence, limit: limit, beside: batch)
    }
    func hasRoom(for sequence: SequenceState, positions: Int) -> Bool {
        backend.hasRoom(for: sequence, positions: positions)
    }
    func reserve(_ positions: Int, of sequence: SequenceState) throws { try backend.reserve(positions, of: sequence) }
    var report: BackendReport { backend.report }
    var expertStatistics: ExpertStatistics { backend.expertStatistics }
    var headStatistics: HeadStatistics { backend.headStatistics }
}
