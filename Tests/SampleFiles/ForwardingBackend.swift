import Sigma

/// A back end that passes everything on to the CPU's, but for what its type says itself: for tests and measurements.
package protocol ForwardingBackend: Backend, StepMemory, BackendReporting {
    var backend: CPUBackend { get }
}

extension ForwardingBackend {
    // MARK: - Backend

    package var headRowLimit: Int { backend.headRowLimit }
    package var rowsAreIndependent: Bool { backend.rowsAreIndependent }
    package var canSuspend: Bool { backend.canSuspend }
    package func suspend() { backend.suspend() }
    package func resume() { backend.resume() }
    package var stepBytes: Int { backend.stepBytes }
    package func makeSequence(kvType: KVType) throws -> SequenceState { try backend.makeSequence(kvType: kvType) }
    package func begin(_ batch: Batch) throws { try backend.begin(batch) }
    package func embed() { backend.embed() }
    package func attend(layer: Int) { backend.attend(layer: layer) }
    package func feedForward(layer: Int) throws { try backend.feedForward(layer: layer) }
    package func layerRouting() -> LayerRouting? { backend.layerRouting() }
    package func head(rows: Range<Int>) -> UnsafeBufferPointer<Float> { backend.head(rows: rows) }
    package func readLogits(_ requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void) {
        backend.readLogits(requests, body)
    }
    package func end() throws { try backend.end() }

    // MARK: - StepMemory

    package var rowLimit: Int { backend.rowLimit }
    package var batchRowLimit: Int { backend.batchRowLimit }
    package var sharedRowLimit: Int { backend.sharedRowLimit }
    package func positionLimit(kvType: KVType) -> Int? { backend.positionLimit(kvType: kvType) }
    package func room(for sequence: SequenceState, limit: Int, beside batch: Batch) -> Int {
        backend.room(for: sequence, limit: limit, beside: batch)
    }
    package func hasRoom(for sequence: SequenceState, positions: Int) -> Bool {
        backend.hasRoom(for: sequence, positions: positions)
    }
    package func reserve(_ positions: Int, of sequence: SequenceState) throws {
        try backend.reserve(positions, of: sequence)
    }

    // MARK: - BackendReporting

    package var report: BackendReport { backend.report }
    package var expertStatistics: ExpertStatistics { backend.expertStatistics }
    package var headStatistics: HeadStatistics { backend.headStatistics }
}
