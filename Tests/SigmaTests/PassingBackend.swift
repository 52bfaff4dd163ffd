import Sigma

/// Passes everything on to the CPU back end: tests override what they need to be otherwise.
class PassingBackend: Backend, StepMemory, BackendReporting, @unchecked Sendable {
    let backend: CPUBackend

    init(_ backend: CPUBackend) { self.backend = backend }

    // MARK: - Backend

    var headRowLimit: Int { backend.headRowLimit }
    var rowsAreIndependent: Bool { backend.rowsAreIndependent }
    var canSuspend: Bool { backend.canSuspend }
    func suspend() { backend.suspend() }
    func resume() { backend.resume() }
    var stepBytes: Int { backend.stepBytes }
    func makeSequence(kvType: KVType) throws -> SequenceState { try backend.makeSequence(kvType: kvType) }
    func begin(_ batch: Batch) throws { try backend.begin(batch) }
    func embed() { backend.embed() }
    func attend(layer: Int) { backend.attend(layer: layer) }
    func feedForward(layer: Int) throws { try backend.feedForward(layer: layer) }
    func layerRouting() -> LayerRouting? { backend.layerRouting() }
    func head(rows: Range<Int>) -> UnsafeBufferPointer<Float> { backend.head(rows: rows) }
    func readLogits(_ requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void) {
        backend.readLogits(requests, body)
    }
    func end() throws { try backend.end() }

    // MARK: - StepMemory

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

    // MARK: - BackendReporting

    var report: BackendReport { backend.report }
    var expertStatistics: ExpertStatistics { backend.expertStatistics }
    var headStatistics: HeadStatistics { backend.headStatistics }
}
