import CCUDA

/// The CUDA back end: weights on the device, and steps that are lists of kernels without the host in between.
///
/// Steps of few rows are captured as a graph once for each shape; then a step is one small upload and one launch. Larger steps are launched
/// kernel by kernel, ahead of the device. What fails in an operation that cannot throw is kept, and thrown by the next one that can: the step
/// is then void, and the sequences are unchanged.
package final class CUDABackend: Backend, @unchecked Sendable {
    let configuration: ModelConfiguration
    let model: ModelFile
    let device: CUDADevice
    let kernels: CUDAKernels
    let weights: CUDAWeights
    let experts: DeviceExperts
    let pool: KVBlockPool
    let rotary: DeviceRotary
    let workspace: CUDAWorkspace
    package let memoryPlan: DeviceMemoryPlan
    private let workspaceMemory: DeviceMemory

    let stream: CUDAStream
    private var graphs = GraphCache()

    // Pinned memory of the host.
    private let recordMemory: PinnedMemory
    private let chosenMemory: PinnedMemory
    private let logitsMemory: PinnedMemory
    private let keysMemory: PinnedMemory
    private var routingMemory: PinnedMemory?

    // The current step.
    var record = StepRecord()
    private var batch: Batch?
    private var segments: [Batch.Segment] = []
    private var usesGraph = false
    private var layerIndex = 0
    /// Whether something may still be running.
    private var isBusy = false
    private var failure: (any Error)?
    /// After a failure: counters may not be what kernels expect.
    private var mustReset = true
    /// What `workspace.allowed` allows; nil: nothing was uploaded yet.
    private var uploadedMask: TokenMask?
    package private(set) var stepBytes = 0

    /// Choices of a row in all layers before each, and in all.
    private let choicesBefore: [Int]
    /// Of the layers' matrices that every step reads; of an embedding's row.
    private let layerBytes: Int
    private let embeddingRowBytes: Int

    private static let headRows = 64
    /// Rows of the largest step that becomes a graph.
    private static let graphRows = 64

    /// - Parameters:
    ///   - limits: `memory` limits the device's memory; `cache` the slots of experts, where they are not all on the device.
    ///   - rowLimit: rows of a step at most; fewer where memory is scarce.
    ///   - environment: the libraries, and where compiled kernels are kept.
    ///   - makeReader: how weights are read; nil: past the page cache.
    ///   - progress: called with the share of weights that are in place; what it throws ends the loading.
    /// - Throws: `CUDAUnavailable`; `SigmaError`: `.inputOutput` and `.damaged` for weights that cannot be read, `.unavailable` if the device
    ///   fails; what `progress` throws.
    package init(
        model: ModelFile, limits: MemoryLimits = .none, rowLimit: Int = 2048,
        environment: CUDAEnvironment = CUDAEnvironment(), makeReader: ((ModelFile) throws -> any RecordReader)? = nil,
        progress: (Double) throws -> Void = { _ in }
    ) throws {
        let device = try CUDADevice(environment)
        self.device = device
        self.model = model
        let c = model.configuration
        configuration = c
        choicesBefore = c.expertsPerToken.reduce(into: [0]) { $0.append($0.last! + $1) }
        layerBytes = model.weights.layers.reduce(0) { $0 + $1.alwaysReadBytes }
        embeddingRowBytes = model.weights.embedding.type.rowBytes(c.hiddenSize)
        try Self.checkShape(c, path: model.path)
        let foreign = model.weights.types.filter { !$0.hasCUDAKernels }
        guard foreign.isEmpty else { throw CUDAUnavailable.weightTypes(foreign.map(\.name).sorted()) }
        kernels = try CUDAKernels(device, headDim: c.headDim, environment)
        do {
            let places = ExpertRecordTable(model)
            let dense = CUDADenseLayout(model.weights)
            let plan: DeviceMemoryPlan
            (plan, workspace, workspaceMemory) = try Self.plan(
                model, device, places, denseBytes: dense.byteCount, limits: limits, rowLimit: rowLimit)
            memoryPlan = plan
            stream = try CUDAStream(device)
            recordMemory = try PinnedMemory(device, byteCount: workspace.recordBytes)
            chosenMemory = try PinnedMemory(device, byteCount: workspace.chosenBytes)
            logitsMemory = try PinnedMemory(device, byteCount: Self.headRows * c.vocabularySize * 4)
            keysMemory = try PinnedMemory(device, byteCount: Self.headRows * Int(SIGMA_CUDA_MAX_TOP) * 8)
            rotary = try DeviceRotary(device, c)
            pool = KVBlockPool(device, stream, limit: plan.kvLimit)
            weights = CUDAWeights(model, dense, in: try DeviceMemory(device, byteCount: dense.byteCount))
            experts = try DeviceExperts(
                device, places, slotCount: plan.slotCount, policy: limits.policy,
                recordBytes: model.weights.layers.map(\.expertBytes))
            try weights.copyVectors(dense)
            let reader = try makeReader?(model) ?? DirectFileReader(model.gguf.file)
            try WeightUpload(
                weights.items(model, dense) + experts.items(), device: device, reader: reader, path: model.path
            ).run(progress: progress)
            try experts.fillSlots()
            // What opening the file brought in is not needed any more.
            model.gguf.file.release(model.gguf.dataOffset..<model.byteCount)
        } catch let status as CUDAStatus {
            throw device.failure(status, "loading the model")
        }
    }

    deinit {
        try? device.use()
        try? stream.synchronize()
    }

    /// What the kernels are not made for.
    private static func checkShape(_ c: ModelConfiguration, path: String) throws {
        func check(_ value: Int, _ limit: Int32, _ what: String) throws {
            guard value > Int(limit) else { return }
            throw SigmaError(
                .unavailable, "the CUDA back end takes \(what) up to \(limit), and this model has \(value)", path: path,
                remedy: .set(.backend, to: "cpu"))
        }
        try check(c.headDim, Int32(SIGMA_CUDA_MAX_HEAD_DIM), "a head_dim")
        try check(c.expertCount, Int32(SIGMA_CUDA_MAX_EXPERTS), "experts")
        try check(c.expertsPerToken.max() ?? 0, Int32(SIGMA_CUDA_MAX_CHOICES), "experts per token")
    }

    /// Decides where everything goes, and takes the workspace.
    private static func plan(
        _ model: ModelFile, _ device: CUDADevice, _ places: ExpertRecordTable, denseBytes: Int, limits: MemoryLimits,
        rowLimit: Int
    ) throws -> (DeviceMemoryPlan, CUDAWorkspace, DeviceMemory) {
        let c = model.configuration
        let free = try device.freeBytes()
        // The driver's own: code, local memory of threads, graphs, and what an allocator loses.
        let available = min(free - free / 32, limits.memory ?? .max)
        let sized = CUDAWorkspace.largest(
            c, model.weights, rowLimit: rowLimit, headRowLimit: headRows, availableBytes: available)
        var slotLimit: Int?
        if case .bytes(let bytes) = limits.cache { slotLimit = max(0, bytes) / max(1, places.slotBytes) }
        let plan = DeviceMemoryPlan(
            availableBytes: available, denseBytes: denseBytes,
            workspaceBytes: sized.byteCount + DeviceRotary.byteCount(c) + 8 * places.recordCount,
            expertBytes: places.totalBytes, slotBytes: places.slotBytes, recordsPerToken: places.recordsPerToken,
            recordCount: places.presentCount, slotLimit: slotLimit,
            stagingBytes: DeviceExperts.stagingBytes(places), kvBlockBytes: KVBlockLayout(device: .f16, c).byteCount,
            contextLength: c.contextLength)
        try plan.check(device: device.name)
        let memory = try DeviceMemory(device, byteCount: sized.byteCount)
        let workspace = CUDAWorkspace(
            c, model.weights, rowLimit: sized.rowLimit, headRowLimit: headRows, at: memory.address)
        return (plan, workspace, memory)
    }

    /// Whether the kernels were compiled when the back end was made, and not found in the cache.
    package var compiledKernels: Bool { kernels.wereCompiled }
    package var headRowLimit: Int { Self.headRows }
    package var rowsAreIndependent: Bool { true }

    package func makeSequence(kvType: KVType) throws -> SequenceState {
        try kvType.check(headDim: configuration.headDim)
        return SequenceState(layout: KVBlockLayout(device: kvType, configuration), store: pool)
    }

    // MARK: - The step

    package func begin(_ batch: Batch) throws {
        precondition(batch.tokens.count <= rowLimit)
        failure = nil
        self.batch = batch
        segments = batch.segments
        stepBytes = 0
        do {
            try device.use()
            if isBusy { try stream.synchronize() }
            isBusy = false
            if mustReset {
                try stream.fill(workspace.counters, with: 0, count: workspace.counterBytes)
                try stream.fill(workspace.routeCounter, with: 0, count: 4)
                mustReset = false
            }
            for segment in segments {
                try segment.sequence.reserve(segment.position + segment.count)
                try segment.sequence.deviceTable.update(segment.sequence, device)
            }
            let positions = segments.map { $0.position + $0.count }.max() ?? 0
            if try rotary.extend(to: positions) { graphs.removeAll() }
            record.write(batch, configuration, to: recordMemory.base)
            isBusy = true
            try experts.begin(rows: record.rowCount, in: stream)
            try stream.copy(record.byteCount, from: recordMemory.base, to: workspace.record)
        } catch {
            throw fail(error)
        }
        usesGraph =
            record.rowCount <= Self.graphRows && batch.routing == nil && record.runs.count == 1 && !experts.isStaged
    }

    package func embed() {
        if !usesGraph { attempt { try enqueueEmbedding(in: stream) } }
    }

    package func attend(layer: Int) {
        if !usesGraph { attempt { try enqueueAttention(layer, in: stream) } }
    }

    package func feedForward(layer: Int) throws {
        layerIndex = layer
        attempt {
            if !usesGraph {
                try experts.beginLayer(layer, in: stream)
                try enqueueFeedForward(layer, in: stream)
                try experts.endLayer(layer, in: stream)
            } else if layer == configuration.layerCount - 1 {
                try launchGraph()
            }
        }
        if let failure { throw fail(failure) }
    }

    package func layerRouting() -> LayerRouting? {
        guard let mixture = weights.layers[layerIndex].mixture else { return nil }
        let logitBytes = record.rowCount * mixture.expertCount * 4
        let chosenBytes = record.rowCount * mixture.choices * 4
        attempt {
            if (routingMemory?.byteCount ?? 0) < logitBytes + chosenBytes {
                routingMemory = nil
                routingMemory = try PinnedMemory(device, byteCount: logitBytes + chosenBytes)
            }
            try stream.copy(logitBytes, from: workspace.routerLogits, to: routingMemory!.base)
            try stream.copy(chosenBytes, from: chosenAddress(layerIndex), to: routingMemory!.base + logitBytes)
            try stream.synchronize()
        }
        // After a failure the step ends without a result, and nobody looks at its routing.
        guard failure == nil, let base = routingMemory?.base else { return nil }
        return LayerRouting(
            rows: record.rowCount, logits: base.assumingMemoryBound(to: Float.self),
            chosen: (base + logitBytes).assumingMemoryBound(to: Int32.self))
    }

    package func head(rows: Range<Int>) -> UnsafeBufferPointer<Float> {
        let count = rows.count * configuration.vocabularySize
        let logits = logitsMemory.base.assumingMemoryBound(to: Float.self)
        attempt {
            isBusy = true
            try enqueueHead(rows, in: stream)
            try stream.copy(count * 4, from: workspace.logits, to: logits)
            try settle()
        }
        // Nothing is chosen from a step that failed; numbers all the same.
        if failure != nil { logits.update(repeating: 0, count: count) }
        return UnsafeBufferPointer(start: logits, count: count)
    }

    /// Keys of the largest logits that the mask allows [rows, count], zero where there are no more; none once the step has failed.
    func largestKeys(_ count: Int, _ rows: Range<Int>, _ mask: TokenMask) -> UnsafeBufferPointer<UInt64> {
        let keys = keysMemory.base.assumingMemoryBound(to: UInt64.self)
        attempt {
            try upload(mask)
            isBusy = true
            try enqueueHead(rows, in: stream)
            let source = try enqueueTop(rows: rows.count, count: count, isLimited: !mask.allowsAll, in: stream)
            try stream.copy(rows.count * count * 8, from: source, to: keys)
            try settle()
        }
        return UnsafeBufferPointer(start: keys, count: failure == nil ? rows.count * count : 0)
    }

    package func end() throws {
        attempt { if isBusy { try settle() } }
        if let failure { throw fail(failure) }
        do {
            let kept = (batch?.segments ?? []).map { $0.firstRow..<$0.firstRow + $0.kept }
            let expertBytes = try experts.end(kept: kept) { layer in chosen(layer: layer) }
            stepBytes += denseStepBytes() + expertBytes
        } catch {
            throw fail(error)
        }
        for segment in batch?.segments ?? [] { segment.sequence.advance(by: segment.kept) }
        segments.removeAll()
        batch = nil
    }

    /// Waits for what was enqueued; the choices come along, so that the step's end need not wait again.
    private func settle() throws(CUDAStatus) {
        try stream.copy(record.rowCount * choicesBefore.last! * 4, from: workspace.chosen, to: chosenMemory.base)
        try stream.synchronize()
        isBusy = false
    }

    /// Where a layer's choices of the step's rows are.
    func chosenAddress(_ layer: Int) -> DeviceAddress {
        workspace.chosen + DeviceAddress(record.rowCount * choicesBefore[layer] * 4)
    }

    private func chosen(layer: Int) -> UnsafeBufferPointer<Int32> {
        let all = chosenMemory.base.assumingMemoryBound(to: Int32.self)
        let rows = record.rowCount
        return UnsafeBufferPointer(
            start: all + rows * choicesBefore[layer], count: rows * (choicesBefore[layer + 1] - choicesBefore[layer]))
    }

    /// Bytes of weights and cache that the step read, but for routed experts and the head.
    private func denseStepBytes() -> Int {
        var bytes = layerBytes + record.rowCount * embeddingRowBytes
        for segment in segments {
            let positions = segment.position + segment.count
            bytes += positions * segment.sequence.layout.positionBytes
        }
        return bytes
    }

    /// To be counted by whoever enqueues the head.
    func countHead() { stepBytes += model.weights.head.byteCount }

    // MARK: - Failures

    /// Does nothing once the step has failed.
    private func attempt(_ body: () throws -> Void) {
        guard failure == nil else { return }
        do { try body() } catch { failure = error }
    }

    /// The step is void: nothing of it may be used, and the next one begins from a clean state.
    private func fail(_ error: any Error) -> any Error {
        mustReset = true
        segments.removeAll()
        batch = nil
        return (error as? CUDAStatus).map { device.failure($0, "a step of the model") } ?? error
    }

    // MARK: - Graphs

    private func launchGraph() throws(CUDAStatus) {
        let run = record.runs[0]
        let splits = Self.bucket(run.splits)
        let key = GraphCache.Key(
            rows: record.rowCount, tiles: run.tiles, splits: splits, kvType: run.kvType)
        if let graph = graphs.find(key) {
            try graph.launch(in: stream)
            return
        }
        record.setSplits(splits)
        let graph = try CUDAGraph(device) { stream throws(CUDAStatus) in
            try enqueueEmbedding(in: stream)
            for layer in 0..<configuration.layerCount {
                try enqueueAttention(layer, in: stream)
                try enqueueFeedForward(layer, in: stream)
            }
        }
        graphs.store(graph, for: key)
        try graph.launch(in: stream)
    }

    /// The next power of two: a graph is good for all steps up to so many splits.
    private static func bucket(_ splits: Int) -> Int {
        splits <= 1 ? 1 : 1 << (Int.bitWidth - (splits - 1).leadingZeroBitCount)
    }

    /// Uploads which tokens may be chosen, where that has changed.
    private func upload(_ mask: TokenMask) throws(CUDAStatus) {
        guard !mask.allowsAll, uploadedMask !== mask else { return }
        uploadedMask = nil
        // Not in the stream: nothing that runs there reads it yet. Words of 32 bits lie in those of 64 in their order.
        try stream.synchronize()
        try device.copy((configuration.vocabularySize + 31) / 32 * 4, from: mask.words, to: workspace.allowed)
        uploadedMask = mask
    }
}

extension MLPWeights {
    fileprivate var byteCount: Int { gate.byteCount + up.byteCount + down.byteCount }
}

extension LayerWeights {
    /// Bytes of the matrices that every step reads.
    fileprivate var alwaysReadBytes: Int {
        let attention = query.byteCount + key.byteCount + value.byteCount + output.byteCount
        switch feedForward {
        case .dense(let mlp): return attention + mlp.byteCount
        case .mixture(let router, _, _, let shared): return attention + router.byteCount + (shared?.byteCount ?? 0)
        }
    }

    /// Bytes of one expert's matrices, without the padding of its record; 0 in a dense layer.
    fileprivate var expertBytes: Int {
        guard case .mixture(_, _, let experts, _) = feedForward else { return 0 }
        return experts.gate(0).byteCount + experts.up(0).byteCount + experts.down(0).byteCount
    }
}
