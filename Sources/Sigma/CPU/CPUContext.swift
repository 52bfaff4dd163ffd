import CSigma

/// What every operation of the CPU back end works with: the model, the threads and their kernels, and the activations that operations hand on.
final class CPUContext: @unchecked Sendable {
    let configuration: ModelConfiguration
    let team: ThreadTeam
    let instructionSet: InstructionSet
    /// Mapped, or the process's own.
    private(set) var weights: ModelWeights
    private(set) var layers: [CPULayer]
    /// Float products go through OpenBLAS (macOS: Accelerate) only where no weight is quantized: its sums depend on the shape of the call.
    /// Without the library our own kernels do them.
    let usesBLAS: Bool
    /// Queries and outputs of attention are this wide per head.
    let paddedHeadDim: Int
    let headsPerGroup: Int
    /// The widest MLP of the model.
    let gatedWidth: Int
    /// Floats of scratch that each member has.
    let scratchLength: Int

    // The current step.
    var batch = Batch()
    var rowCount = 0
    /// Bytes of weights and cache that it has read.
    var stepBytes = 0
    var activations = SharedActivations()

    init(_ model: ModelFile, weights: ModelWeights, team: ThreadTeam, instructionSet: InstructionSet) {
        let c = model.configuration
        configuration = c
        self.team = team
        self.instructionSet = instructionSet
        self.weights = weights
        layers = weights.layers.map(CPULayer.init)
        usesBLAS = !weights.hasQuantizedMatrix && hasFloatProduct
        paddedHeadDim = (c.headDim + 15) & ~15
        headsPerGroup = c.headCount / c.kvHeadCount
        gatedWidth = weights.widestMLP
        let widest = max(c.hiddenSize, c.queryWidth, gatedWidth)
        // A float product: gathered rows and a widened tile of weights; beside it the tiles that its caller holds.
        let product = (StepPath.blasRows + Self.headTile) * widest + 2 * StepPath.rowPiece * Self.outputTile
        let attention = CPUAttention.scratchLength(c, paddedHeadDim: paddedHeadDim)
        scratchLength = (max(product, attention, c.expertCount) + 15) & ~15
        activations.hidden = c.hiddenSize
        activations.members = team.memberCount
        activations.scratchLength = scratchLength
    }

    /// The batch of the step that is computed now.
    func use(_ batch: Batch) {
        self.batch = batch
        rowCount = batch.tokens.count
    }

    /// The same weights elsewhere, or others of the same shapes; between steps.
    func use(_ moved: ModelWeights) {
        weights = moved
        layers = moved.layers.map(CPULayer.init)
    }

    var kernels: sigma_kernels { @inline(__always) get { instructionSet.kernels.pointee } }

    var normalizesAlone: Bool { rowCount <= StepPath.rowsNormalizedAlone }
    /// Whether a step waits for weights and for other members rather than for arithmetic.
    var isFewRows: Bool { rowCount <= StepPath.fewRows }

    func scratch(_ member: Int32) -> UnsafeMutablePointer<Float> {
        activations.scratch.base + Int(member) * scratchLength
    }

    // MARK: - Tiles

    /// Outputs of a product that one member computes at a time.
    static let outputTile = 64
    static let headTile = 256
    static func tiles(_ outputs: Int) -> Int { (outputs + outputTile - 1) / outputTile }

    // MARK: - Norms

    /// normed = rmsnorm(residual) for one row, and its 8-bit form where a product needs it.
    func normalize(row: Int, to normedRow: Int, _ norm: UnsafePointer<Float>, quantized: Bool) {
        let hidden = configuration.hiddenSize
        let normed = activations.normed.base + normedRow * hidden
        kernels.rms_norm(
            activations.residual.base + row * hidden, norm, configuration.rmsNormEpsilon, normed, Int32(hidden))
        if quantized {
            kernels.quantize_activations(
                normed, activations.normedQuantized.base + normedRow * (hidden / 32), Int32(hidden))
        }
    }

    /// Normalises the step's rows; afterwards the member may read them.
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
        input(
            activations.normed.base, activations.normedQuantized, width: configuration.hiddenSize,
            first: normalizesAlone ? Int(member) * rowCount : 0)
    }

    /// Rows of fp32 values with their 8-bit form, as a product's input.
    func input(
        _ values: UnsafePointer<Float>, _ quantized: CPUBuffer<sigma_activation_block>, width: Int, first: Int = 0
    ) -> sigma_activations {
        sigma_activations(
            values: values + first * width, value_stride: width, blocks: quantized.base + first * (width / 32),
            block_stride: width / 32, index: nil)
    }

    // MARK: - Prefetch

    /// What a member prefetches before a barrier: somewhat more than a product's kernel looks ahead.
    private static let prefetchBytes = 32 << 10

    /// Prefetches the first weights that a member will read from `row` on while it waits for the others: they would else begin with a memory's
    /// latency.
    func prefetch(_ matrix: WeightMatrix, _ row: Int) {
        let data = matrix.data(row: min(row, matrix.rows - 1) / Int(SIGMA_GROUP) * Int(SIGMA_GROUP))
        sigma_prefetch(data, min(Self.prefetchBytes, matrix.byteCount - (data - matrix.data)))
    }
}

/// Activations that one operation hands to the next, row-major fp32 unless stated. They grow when a step begins, never during one.
struct SharedActivations: CPUBuffers {
    /// [rows, hidden]: the residual stream.
    var residual = CPUBuffer<Float>()
    /// Of the step that is suspended.
    private var suspendedResidual = CPUBuffer<Float>()
    /// [rows, hidden]: after the norm; input of attention, feed-forward or head. With very few rows: of each member.
    var normed = CPUBuffer<Float>()
    /// [rows, hidden / 32]: the same in 8 bits.
    var normedQuantized = CPUBuffer<sigma_activation_block>()
    /// Scratch of the team's members, side by side.
    var scratch = CPUBuffer<Float>()
    /// Sizes that do not depend on the step.
    var hidden = 0
    var members = 0
    var scratchLength = 0

    /// Lays the residual stream aside, or takes it up again. All else lives within a layer.
    mutating func layAside() { swap(&residual, &suspendedResidual) }

    mutating func visit(_ shape: StepShape, _ visitor: inout some BufferVisitor) throws {
        let own = shape.rows <= StepPath.rowsNormalizedAlone ? shape.rows * members : 0
        let normedRows = max(shape.rows, StepPath.headRows, own)
        try visitor.visit(&residual, shape.rows * hidden)
        try visitor.visit(&suspendedResidual, shape.suspendedRows * hidden)
        try visitor.visit(&normed, normedRows * hidden)
        try visitor.visit(&normedQuantized, normedRows * (hidden / 32))
        try visitor.visit(&scratch, scratchLength * members)
    }
}
