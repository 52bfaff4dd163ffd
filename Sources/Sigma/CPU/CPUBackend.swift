import CSigma

/// The CPU back end: weights used where they are mapped, one thread team, kernels chosen for the processor. Its parts own what they work with.
package final class CPUBackend: @unchecked Sendable {
    let context: CPUContext
    private let parts: CPUParts
    private let model: ModelFile
    private let memory: CPUMemory
    private let store: HostBlockStore
    /// Where not all experts stay in memory: the matrices that do, and what computes with the others.
    private var ownedWeights: OwnedWeights?
    private var expertWaves: CPUExpertWaves?
    /// The step that was laid aside, and the bytes that it had read.
    private var suspended: (batch: Batch, stepBytes: Int)?

    var attention: CPUAttention { parts.attention }
    var feedForward: CPUFeedForward { parts.feedForward }
    var head: CPUHead { parts.head }

    /// - Parameters:
    ///   - threadCount: members of the team; nil: one for each fast core of one memory node, and only there.
    ///   - instructionSet: nil: the best one.
    ///   - rowLimit: rows of a step where all experts are in memory; more need more memory. Where they are read, a step has as many rows as fit.
    ///   - limits: the memory that the back end may use.
    ///   - fullHead: whether all logits are computed where the largest would do, and the file's screening planes are left alone.
    ///   - makeReader: how experts are read; nil: past the page cache.
    /// - Throws: `SigmaError`: `.unavailable` if memory or threads cannot be had, or the limits are too small; `.inputOutput` and `.damaged`
    ///   for weights that cannot be read.
    package init(
        model: ModelFile, threadCount: Int? = nil, instructionSet: InstructionSet? = nil,
        rowLimit: Int = StepPath.residentRows, limits: MemoryLimits = .none, fullHead: Bool = false,
        makeReader: ((ModelFile) throws -> any RecordReader)? = nil
    ) throws {
        self.model = model
        var used = model.weights
        if fullHead { used.screen = nil }
        let team = try ThreadTeam(memberCount: threadCount.map { max(1, $0) })
        let paging = WeightPaging(model)
        context = CPUContext(model, weights: used, team: team, instructionSet: instructionSet ?? .best)
        var reader: (any RecordReader)?
        var parts = CPUParts(context, paging)
        let plan = try MemoryPlan(model, used, limits: limits, parts: parts)
        if plan.isResident {
            paging.requestDenseWeights(used)
        } else {
            let opened = try makeReader?(model) ?? DirectFileReader(model.gguf.file)
            let owned = try OwnedWeights(model, used, reader: opened)
            reader = opened
            ownedWeights = owned
            context.use(owned.weights)
            // The head's planes have moved, too.
            parts = CPUParts(context, paging)
            // What opening the file brought in.
            model.gguf.file.release(model.gguf.dataOffset..<model.byteCount)
        }
        self.parts = parts
        memory = CPUMemory(plan, context, parts, residentRowLimit: rowLimit)
        store = HostBlockStore(memory.budget)
        if let reader {
            let cache = try ExpertCache(
                table: ExpertRecordTable(model), reader: reader,
                slotCapacity: plan.slots(kv: 0, activations: plan.activationBytes), policy: limits.policy)
            expertWaves = CPUExpertWaves(
                context, parts.feedForward, cache,
                ExpertPrefetcher(cache, model.configuration, mode: limits.prediction))
        }
    }

    deinit {
        expertWaves?.cache.close()
        parts.release()
    }

    package var configuration: ModelConfiguration { context.configuration }
    package var instructionSet: InstructionSet { context.instructionSet }
    package var threadCount: Int { context.team.memberCount }
    package var memoryPlan: MemoryPlan { memory.plan }
    /// Bytes of the slots that experts may use now; of all experts where they are mapped.
    package var expertCacheBytes: Int {
        expertWaves.map { $0.cache.slotCount * $0.cache.slotBytes } ?? memoryPlan.expertBytes
    }
    /// Whether the file has planes and they are used.
    package var screensHead: Bool { head.screened != nil }

    /// What the model would use under other limits.
    /// - Throws: `SigmaError(.unavailable)` if they are too small.
    package func memoryPlan(for limits: MemoryLimits) throws -> MemoryPlan {
        try MemoryPlan(model, context.weights, limits: limits, parts: parts)
    }

    func reserveBuffers(_ shape: StepShape) throws { try parts.reserve(shape) }
}

extension CPUBackend: Backend {
    package var headRowLimit: Int { StepPath.headRows }
    package var rowsAreIndependent: Bool { !context.usesBLAS }
    package var stepBytes: Int { context.stepBytes }

    package func makeSequence(kvType: KVType) throws -> SequenceState {
        try kvType.check(headDim: configuration.headDim)
        return SequenceState(layout: KVBlockLayout(host: kvType, configuration), store: store)
    }

    package func begin(_ batch: Batch) throws {
        context.use(batch)
        context.stepBytes = context.rowCount * context.weights.embedding.type.rowBytes(configuration.hiddenSize)
        try memory.grant(batch, cache: expertWaves?.cache)
        for segment in batch.segments { try segment.sequence.reserve(segment.position + segment.count) }
        planStep()
        expertWaves?.beginStep()
    }

    private func planStep() {
        attention.begin()
        feedForward.begin()
    }

    /// Where experts are read from the disk, a step's reads are under way between its layers.
    package var canSuspend: Bool { memoryPlan.isResident }

    package func suspend() {
        precondition(suspended == nil)
        suspended = (context.batch, context.stepBytes)
        memory.layAside(context.batch)
    }

    package func resume() {
        guard let step = suspended else { preconditionFailure("no step is suspended") }
        suspended = nil
        memory.layAside(nil)
        context.use(step.batch)
        context.stepBytes = step.stepBytes
        planStep()
    }

    package func embed() {
        let embedding = context.weights.embedding
        let hidden = configuration.hiddenSize
        for row in 0..<context.rowCount {
            embedding.copyRow(
                Int(context.batch.tokens[row]), to: context.activations.residual.base + row * hidden, context.kernels)
        }
    }

    package func attend(layer: Int) { attention.attend(layer: layer) }

    package func feedForward(layer: Int) throws {
        if let expertWaves, context.layers[layer].experts != nil {
            try expertWaves.compute(layer: layer)
        } else {
            feedForward.compute(layer: layer)
        }
        // Whatever the last layer is.
        if layer == configuration.layerCount - 1 { try expertWaves?.cache.confirm() }
    }

    package func layerRouting() -> LayerRouting? { feedForward.routing }

    package func head(rows: Range<Int>) -> UnsafeBufferPointer<Float> { head.logits(rows.map { Int32($0) }) }

    package func readLogits(_ requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void) {
        head.read(requests, body)
    }

    package func end() throws {
        try model.checkIntact()
        expertWaves?.endStep()
        for segment in context.batch.segments { segment.sequence.advance(by: segment.kept) }
    }
}

extension CPUBackend: StepMemory {
    package var rowLimit: Int { memory.rowLimit }
    package var batchRowLimit: Int { memory.batchRowLimit }
    package var sharedRowLimit: Int { memory.sharedRowLimit }

    package func positionLimit(kvType: KVType) -> Int? {
        memoryPlan.positionLimit(blockBytes: configuration.kvBlockBytes(kvType))
    }

    package func room(for sequence: SequenceState, limit: Int, beside batch: Batch) -> Int {
        memory.room(for: sequence, limit: limit, beside: batch)
    }

    package func hasRoom(for sequence: SequenceState, positions: Int) -> Bool {
        memory.hasRoom(for: sequence, positions: positions)
    }

    package func reserve(_ positions: Int, of sequence: SequenceState) throws {
        try memory.reserve(positions, of: sequence, cache: expertWaves?.cache)
    }
}

extension CPUBackend: BackendReporting {
    package var expertStatistics: ExpertStatistics { expertWaves?.cache.statistics ?? ExpertStatistics() }
    package var headStatistics: HeadStatistics { head.counts }

    package var report: BackendReport {
        BackendReport(
            name: "cpu", instructionSet: instructionSet.name, threads: threadCount, experts: expertStatistics,
            head: headStatistics,
            screensHead: screensHead, expertCacheBytes: expertCacheBytes, memory: .host(memoryPlan))
    }
}
