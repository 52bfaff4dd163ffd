import CCUDA

/// Where a step's intermediate results lie on the device, sized once for the largest step: a captured graph has their addresses in it.
///
/// fp32 and row-major unless stated; R is the row limit, S = R times the most choices of a layer.
struct CUDAWorkspace {
    let rowLimit: Int
    let headRowLimit: Int
    /// Splits of attention times tiles of queries that `states` has room for.
    let stateCapacity: Int

    /// [R, hidden]
    private(set) var residual: DeviceAddress = 0
    /// [R, queryWidth + 2 kvWidth]
    private(set) var projections: DeviceAddress = 0
    /// Queries as attention takes them, for each type of the key-value cache.
    private(set) var queries: [KVType: DeviceAddress] = [:]
    /// [R, queryWidth]
    private(set) var attended: DeviceAddress = 0
    /// Prepared inputs of products, [R, widest]: fp32; and blocks of 32 in 8 bits.
    private(set) var floats: DeviceAddress = 0
    private(set) var blocks: DeviceAddress = 0
    /// [R, experts]
    private(set) var routerLogits: DeviceAddress = 0
    /// int32 [layers][rows * choices of the layer] of a step's rows, without gaps: one copy brings them all.
    private(set) var chosen: DeviceAddress = 0
    private(set) var chosenBytes = 0
    /// [S]
    private(set) var weights: DeviceAddress = 0
    /// int32 [S]; sigma_cuda_expert_tile
    private(set) var order: DeviceAddress = 0
    private(set) var expertTiles: DeviceAddress = 0
    /// [S, intermediate]; their products in 8 bits or fp32; [S, hidden]
    private(set) var gate: DeviceAddress = 0
    private(set) var up: DeviceAddress = 0
    private(set) var gatedFloats: DeviceAddress = 0
    private(set) var gatedBlocks: DeviceAddress = 0
    private(set) var expertOutputs: DeviceAddress = 0
    /// The same of dense and shared MLPs, [R, width] and [R, hidden].
    private(set) var sharedGate: DeviceAddress = 0
    private(set) var sharedUp: DeviceAddress = 0
    private(set) var sharedFloats: DeviceAddress = 0
    private(set) var sharedBlocks: DeviceAddress = 0
    private(set) var sharedOutputs: DeviceAddress = 0
    /// Softmax states of splits; counters, zero between launches.
    private(set) var states: DeviceAddress = 0
    private(set) var counters: DeviceAddress = 0
    private(set) var counterBytes = 0
    private(set) var routeCounter: DeviceAddress = 0
    /// [head rows, hidden] likewise; [head rows, vocabulary]; keys of the largest logits, from launch to launch.
    private(set) var headFloats: DeviceAddress = 0
    private(set) var headBlocks: DeviceAddress = 0
    private(set) var logits: DeviceAddress = 0
    private(set) var keys: (DeviceAddress, DeviceAddress) = (0, 0)
    /// A bit for each id.
    private(set) var allowed: DeviceAddress = 0
    /// The step's rows, sequences and tiles of queries.
    private(set) var record: DeviceAddress = 0
    private(set) var recordBytes = 0

    private(set) var byteCount = 0

    /// - Parameter base: where the memory begins; 0 to learn its size.
    init(_ c: ModelConfiguration, _ weights: ModelWeights, rowLimit: Int, headRowLimit: Int, at base: DeviceAddress) {
        self.rowLimit = rowLimit
        self.headRowLimit = headRowLimit
        let blockBytes = MemoryLayout<sigma_cuda_block>.stride
        func blocks(_ columns: Int) -> Int { (columns + 31) / 32 * blockBytes }
        var next = base
        func take(_ bytes: Int) -> DeviceAddress {
            let address = next
            next += DeviceAddress((max(bytes, 16) + 255) & ~255)
            return address
        }
        let choices = c.expertsPerToken.max() ?? 0
        let slots = rowLimit * choices
        let hidden = c.hiddenSize
        let widest = max(hidden, c.queryWidth)
        let intermediate = c.expertIntermediateSize
        let always = weights.widestAlwaysOn

        residual = take(rowLimit * hidden * 4)
        projections = take(rowLimit * (c.queryWidth + 2 * c.kvWidth) * 4)
        for type in KVType.allCases {
            queries[type] = take(
                rowLimit * c.headCount * Int(sigma_cuda_query_bytes(type.kernelType, Int32(c.headDim))))
        }
        attended = take(rowLimit * c.queryWidth * 4)
        floats = take(rowLimit * widest * 4)
        self.blocks = take(rowLimit * blocks(widest))
        routerLogits = take(rowLimit * c.expertCount * 4)
        chosenBytes = rowLimit * c.expertsPerToken.reduce(0, +) * 4
        chosen = take(chosenBytes)
        self.weights = take(slots * 4)
        order = take(slots * 4)
        expertTiles = take(
            Int(sigma_cuda_expert_tile_count(Int32(slots), Int32(c.expertCount)))
                * MemoryLayout<sigma_cuda_expert_tile>.stride)
        gate = take(slots * intermediate * 4)
        up = take(slots * intermediate * 4)
        gatedFloats = take(slots * intermediate * 4)
        gatedBlocks = take(slots * blocks(intermediate))
        expertOutputs = take(slots * hidden * 4)
        sharedGate = take(rowLimit * always * 4)
        sharedUp = take(rowLimit * always * 4)
        sharedFloats = take(rowLimit * always * 4)
        sharedBlocks = take(rowLimit * blocks(always))
        sharedOutputs = take(always == 0 ? 0 : rowLimit * hidden * 4)

        let splits = (c.contextLength + KVBlockLayout.length - 1) / KVBlockLayout.length
        stateCapacity = max(Int(SIGMA_CUDA_FEW_ROWS) * splits, min(64 * splits, 4096))
        let stateBytes = Int(sigma_cuda_state_bytes(Int32(c.headDim)))
        states = take(stateCapacity * c.kvHeadCount * stateBytes)
        counterBytes = stateCapacity * c.kvHeadCount * 4
        counters = take(counterBytes)
        routeCounter = take(4)

        headFloats = take(headRowLimit * hidden * 4)
        headBlocks = take(headRowLimit * blocks(hidden))
        logits = take(headRowLimit * c.vocabularySize * 4)
        let top = Int(SIGMA_CUDA_MAX_TOP)
        let first = Int(sigma_cuda_slices(Int32(c.vocabularySize)))
        let second = Int(sigma_cuda_slices(Int32(first * top)))
        keys = (take(headRowLimit * first * top * 8), take(headRowLimit * second * top * 8))
        allowed = take((c.vocabularySize + 31) / 32 * 4)
        recordBytes = StepRecord.capacity(rows: rowLimit, c)
        record = take(recordBytes)
        byteCount = Int(next - base)
    }

    /// The same, of a model's largest row limit whose workspace is at most an eighth of what there is; 64 rows at least.
    static func largest(
        _ c: ModelConfiguration, _ weights: ModelWeights, rowLimit: Int, headRowLimit: Int, availableBytes: Int
    ) -> CUDAWorkspace {
        var rows = rowLimit
        while true {
            let workspace = CUDAWorkspace(c, weights, rowLimit: rows, headRowLimit: headRowLimit, at: 0)
            if rows <= 64 || workspace.byteCount <= availableBytes / 8 { return workspace }
            rows /= 2
        }
    }
}

extension ModelWeights {
    /// Outputs of the widest gate projection of a dense or shared MLP; 0: there is none.
    var widestAlwaysOn: Int {
        layers.map { layer in
            switch layer.feedForward {
            case .dense(let mlp): mlp.gate.rows
            case .mixture(_, _, _, let shared): shared?.gate.rows ?? 0
            }
        }.max() ?? 0
    }
}
