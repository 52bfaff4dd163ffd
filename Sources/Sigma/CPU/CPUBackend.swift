import CSigma

/// The CPU back end: weights used where they are mapped, one thread team, kernels chosen for the processor.
package final class CPUBackend: Backend, @unchecked Sendable {
    package let configuration: ModelConfiguration
    /// Mapped, or the process's own.
    private(set) var weights: ModelWeights
    private(set) var layers: [CPULayer]
    let model: ModelFile
    let team: ThreadTeam
    let paging: WeightPaging
    // What memory is used for; where not all experts stay, their cache.
    package internal(set) var memoryPlan: MemoryPlan
    var budget: MemoryBudget?
    var ownedWeights: OwnedWeights? { didSet { if let ownedWeights { use(ownedWeights.weights) } } }
    var expertCache: ExpertCache?
    var foresight: ExpertForesight?
    let residentRowLimit: Int
    /// Bytes of keys and values of a position, of the largest type of the sequences that were made.
    var kvPositionBytes = 0
    package let instructionSet: InstructionSet
    let rotary: RotaryEmbedding
    /// Queries and outputs of attention are this wide per head.
    let paddedHeadDim: Int
    /// Float products go through OpenBLAS (macOS: Accelerate) only where no weight is quantized: its sums depend on the shape of the call.
    /// Without the library our own kernels do them.
    let usesBLAS: Bool
    var workspace = Workspace()
    /// Floats of scratch that each member has.
    let scratchLength: Int
    /// The widest MLP of the model.
    let gatedWidth: Int

    // What the members of the team work on in the current operation.
    var batch = Batch()
    var rowCount = 0
    var operation = Operation.head
    var layerIndex = 0
    var headRows = 0..<0
    var attentionItems: [AttentionItem] = []
    var mergeItems: [MergeItem] = []
    var splitStateCount = 0
    /// [members]
    let plans: UnsafeMutablePointer<FeedForwardPlan>
    var wave = FeedForwardWave()
    package internal(set) var stepBytes = 0
    /// Nil: the file has no planes, or they are not to be used.
    private(set) var screen: HeadScreen?
    var headCounts = HeadStatistics()
    var fullSelection = LargestLogits()

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
        model: ModelFile, threadCount: Int? = nil, instructionSet: InstructionSet? = nil, rowLimit: Int = 1024,
        limits: MemoryLimits = .none, fullHead: Bool = false,
        makeReader: ((ModelFile) throws -> any RecordReader)? = nil
    ) throws {
        self.model = model
        residentRowLimit = rowLimit
        configuration = model.configuration
        var used = model.weights
        if fullHead { used.screen = nil }
        weights = used
        layers = model.weights.layers.map(CPULayer.init)
        team = try ThreadTeam(memberCount: threadCount.map { max(1, $0) })
        self.instructionSet = instructionSet ?? .best
        paging = WeightPaging(model)
        rotary = RotaryEmbedding(
            headDim: configuration.headDim, theta: configuration.ropeTheta, scaling: configuration.ropeScaling)
        paddedHeadDim = (configuration.headDim + 15) & ~15
        usesBLAS = !model.weights.hasQuantizedMatrix && hasFloatProduct
        gatedWidth = model.weights.widestMLP
        scratchLength = Self.scratchLength(configuration, gatedWidth: gatedWidth, paddedHeadDim: paddedHeadDim)
        plans = .allocate(capacity: team.memberCount)
        memoryPlan = MemoryPlan(model, used, limits: limits)
        try setUpMemory(limits, makeReader)
        screen = weights.screen.map {
            HeadScreen($0, head: weights.head, memberCount: team.memberCount, rowLimit: headRowLimit)
        }
    }

    private func use(_ weights: ModelWeights) {
        self.weights = weights
        layers = weights.layers.map(CPULayer.init)
    }

    deinit {
        expertCache?.close()
        workspace.release()
        plans.deallocate()
    }

    package var name: String { "cpu" }
    package var headRowLimit: Int { 32 }
    package var threadCount: Int { team.memberCount }
    package var rowsAreIndependent: Bool { !usesBLAS }

    package func makeSequence(kvType: KVType) throws -> any SequenceState {
        guard kvType != .q8_0 || configuration.headDim % 32 == 0 else {
            throw SigmaError(
                .unavailable,
                "an 8-bit key-value cache needs a head_dim that is a multiple of 32, and this model's is \(configuration.headDim)",
                remedy: "Use --kv-type f16.")
        }
        let cache = KVCache(
            kvType: kvType, layerCount: configuration.layerCount, kvHeadCount: configuration.kvHeadCount,
            headDim: configuration.headDim, budget: budget)
        kvPositionBytes = max(kvPositionBytes, cache.blockBytes / KVCache.blockLength)
        return cache
    }

    // MARK: - The step

    package func begin(_ batch: Batch) throws {
        self.batch = batch
        rowCount = batch.tokens.count
        stepBytes = rowCount * weights.embedding.type.rowBytes(configuration.hiddenSize)
        planAttention()
        try makeRoom()
        for segment in batch.segments {
            try cache(of: segment).reserve(segment.position + segment.count)
        }
        try reserve(&workspace, rows: rowCount)
        layPlans()
        expertCache?.beginStep(rows: rowCount)
        foresight?.beginStep(rows: rowCount)
        for segment in batch.segments {
            for index in 0..<segment.count {
                let offset = (segment.firstRow + index) * configuration.headDim / 2
                rotary.write(
                    position: segment.position + index, cosines: workspace.cosines.base + offset,
                    sines: workspace.sines.base + offset)
            }
        }
    }

    package func embed() {
        let embedding = weights.embedding
        for row in 0..<rowCount {
            embedding.copyRow(
                Int(batch.tokens[row]), to: workspace.residual.base + row * configuration.hiddenSize, kernels)
        }
    }

    package func head(rows: Range<Int>) -> UnsafeBufferPointer<Float> {
        precondition(rows.lowerBound >= 0 && rows.upperBound <= rowCount && rows.count <= headRowLimit)
        headRows = rows
        stepBytes += weights.head.byteCount
        headCounts.fullRows += rows.count
        headCounts.bytes += weights.head.byteCount
        run(.head)
        return UnsafeBufferPointer(start: workspace.logits.base, count: rows.count * configuration.vocabularySize)
    }

    package func end() throws {
        try model.checkIntact()
        foresight?.endStep()
        for segment in batch.segments { cache(of: segment).advance(by: segment.count) }
    }

    // MARK: - For the operations

    var kernels: sigma_kernels { @inline(__always) get { instructionSet.kernels.pointee } }

    func cache(of segment: Batch.Segment) -> KVCache { unsafeDowncast(segment.sequence, to: KVCache.self) }

    enum Operation { case attention, feedForward, expertWaves, head, screen, fullRows }

    /// Runs an operation on every member of the team.
    func run(_ operation: Operation) {
        self.operation = operation
        team.run(Unmanaged.passUnretained(self).toOpaque()) { context, member in
            let backend = Unmanaged<CPUBackend>.fromOpaque(context!).takeUnretainedValue()
            switch backend.operation {
            case .attention: backend.attentionBody(member)
            case .feedForward: backend.feedForwardBody(member)
            case .expertWaves: backend.expertWavesBody(member)
            case .head: backend.headBody(member)
            case .screen: backend.screenBody(member)
            case .fullRows: backend.fullRowsBody(member)
            }
        }
    }

    func scratch(_ member: Int32) -> UnsafeMutablePointer<Float> {
        workspace.scratch.base + Int(member) * scratchLength
    }

    /// normed = rmsnorm(residual) for one row, and its 8-bit form where a product needs it.
    func normalize(row: Int, to normedRow: Int, _ norm: UnsafePointer<Float>, quantized: Bool) {
        let hidden = configuration.hiddenSize
        let normed = workspace.normed.base + normedRow * hidden
        kernels.rms_norm(
            workspace.residual.base + row * hidden, norm, configuration.rmsNormEpsilon, normed, Int32(hidden))
        if quantized {
            kernels.quantize_activations(
                normed, workspace.normedQuantized.base + normedRow * (hidden / 32), Int32(hidden))
        }
    }

    /// Normalises the batch's rows; afterwards the member may read them. Of very few rows each member makes its own copy, which takes less
    /// time than to wait for the others.
    func normalizeRows(
        _ norm: UnsafePointer<Float>, quantized: Bool, list: Int32, _ member: Int32
    ) -> sigma_activations {
        if normalizesAlone {
            for row in 0..<rowCount {
                normalize(row: row, to: Int(member) * rowCount + row, norm, quantized: quantized)
            }
        } else {
            while let row = team.take(list, of: rowCount, member) {
                normalize(row: row, to: row, norm, quantized: quantized)
            }
            team.barrier(member)
        }
        return normedRows(member)
    }

    /// What `normalizeRows` made for the member.
    func normedRows(_ member: Int32) -> sigma_activations {
        activations(
            workspace.normed.base, workspace.normedQuantized, width: configuration.hiddenSize,
            first: normalizesAlone ? Int(member) * rowCount : 0)
    }

    var normalizesAlone: Bool { rowCount <= Self.rowsNormalizedAlone }
    /// Whether a step waits for weights and for other members rather than for arithmetic.
    var isFewRows: Bool { rowCount <= 8 }

    /// Has the first weights that a member will read from `row` on come to its cache while it waits for the others: they would else begin with a
    /// memory's latency.
    func prefetch(_ matrix: WeightMatrix, _ row: Int) {
        let data = matrix.data(row: min(row, matrix.rows - 1) / Int(SIGMA_GROUP) * Int(SIGMA_GROUP))
        sigma_prefetch(data, min(Self.prefetchBytes, matrix.byteCount - (data - matrix.data)))
    }

    /// Rows of fp32 values with their 8-bit form, as a product's input.
    func activations(
        _ values: UnsafePointer<Float>, _ quantized: Workspace.Buffer<sigma_activation_block>, width: Int,
        first: Int = 0
    ) -> sigma_activations {
        sigma_activations(
            values: values + first * width, value_stride: width, blocks: quantized.base + first * (width / 32),
            block_stride: width / 32, index: nil)
    }

    var headTiles: Int { (weights.head.rows + Self.headTile - 1) / Self.headTile }

    func headBody(_ member: Int32) {
        let head = weights.head
        while let index = team.take(0, of: headRows.count, member) {
            normalize(
                row: headRows.lowerBound + index, to: index, weights.finalNorm.pointer,
                quantized: head.type.isQuantized)
        }
        team.barrier(member)
        let input = activations(workspace.normed.base, workspace.normedQuantized, width: configuration.hiddenSize)
        multiplyHead(input, rows: headRows.count, list: 1, member)
    }

    /// All logits of `rows` activation rows.
    func multiplyHead(_ input: sigma_activations, rows: Int, list: Int32, _ member: Int32) {
        let head = weights.head
        while let tile = team.take(list, of: headTiles, member) {
            let first = tile * Self.headTile
            multiply(
                head, first, min(Self.headTile, head.rows - first), input, rows: rows,
                workspace.logits.base + first, stride: configuration.vocabularySize, member)
        }
    }

    // MARK: - Memory

    /// Outputs of a product that one member computes at a time.
    static let outputTile = 64
    static let headTile = 256
    /// Rows that every member normalises and routes for itself.
    static let rowsNormalizedAlone = 2
    /// What a member has brought before a barrier: somewhat more than a product's kernel looks ahead.
    static let prefetchBytes = 32 << 10
    /// Rows that go through OpenBLAS at a time.
    static let blasRows = 256
    /// Rows from which a float product goes through OpenBLAS.
    static let blasMinimum = 8

    private static func scratchLength(
        _ configuration: ModelConfiguration, gatedWidth: Int, paddedHeadDim: Int
    ) -> Int {
        let widest = max(configuration.hiddenSize, configuration.queryWidth, gatedWidth)
        // A float product: gathered rows and a widened tile of weights; beside it the tiles that its caller holds.
        let product = (blasRows + headTile) * widest + 2 * rowPiece * outputTile
        let attention = attentionScratch(configuration, paddedHeadDim: paddedHeadDim)
        return (max(product, attention, configuration.expertCount) + 15) & ~15
    }

    /// Sizes that depend on the batch's positions are those that were planned last.
    func reserve(_ workspace: inout Workspace, rows: Int) throws {
        let c = configuration
        try workspace.residual.reserve(rows * c.hiddenSize)
        let normedRows = max(rows, headRowLimit, rows <= Self.rowsNormalizedAlone ? rows * team.memberCount : 0)
        try workspace.normed.reserve(normedRows * c.hiddenSize)
        try workspace.normedQuantized.reserve(normedRows * (c.hiddenSize / 32))
        try workspace.cosines.reserve(rows * c.headDim / 2)
        try workspace.sines.reserve(rows * c.headDim / 2)
        try workspace.projections.reserve(rows * (c.queryWidth + 2 * c.kvWidth))
        try workspace.queries.reserve(rows * c.headCount * paddedHeadDim)
        try workspace.attended.reserve(rows * c.queryWidth)
        try workspace.attendedQuantized.reserve(rows * (c.queryWidth / 32))
        try workspace.logits.reserve(min(rows, headRowLimit) * c.vocabularySize)
        try workspace.splitStates.reserve(splitStateCount * headsPerGroup * 2)
        try workspace.splitOutputs.reserve(splitStateCount * headsPerGroup * paddedHeadDim)
        try workspace.progress.reserve(2 * configuration.kvHeadCount + mergeItems.count)
        try workspace.scratch.reserve(scratchLength * team.memberCount)
        try reserveFeedForward(&workspace, rows: rows)
    }
}

extension ModelWeights {
    /// Whether any of the large matrices (all but the routers) is quantized.
    var hasQuantizedMatrix: Bool {
        func isQuantized(_ mlp: MLPWeights) -> Bool {
            mlp.gate.type.isQuantized || mlp.up.type.isQuantized || mlp.down.type.isQuantized
        }
        return embedding.type.isQuantized || head.type.isQuantized
            || layers.contains { layer in
                if [layer.query, layer.key, layer.value, layer.output].contains(where: { $0.type.isQuantized }) {
                    return true
                }
                switch layer.feedForward {
                case .dense(let mlp): return isQuantized(mlp)
                case .mixture(_, _, let experts, let shared):
                    let layout = experts.layout
                    return layout.gateType.isQuantized || layout.upType.isQuantized || layout.downType.isQuantized
                        || (shared.map(isQuantized) ?? false)
                }
            }
    }

    /// Outputs of the widest gate projection.
    var widestMLP: Int {
        layers.map { layer in
            switch layer.feedForward {
            case .dense(let mlp): mlp.gate.rows
            case .mixture(_, _, let experts, let shared): max(experts.layout.intermediate, shared?.gate.rows ?? 0)
            }
        }.max() ?? 0
    }
}
