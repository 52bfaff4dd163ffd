import CSigma

/// Element types of weights, with GGUF's numbers.
package enum WeightType: UInt32, Sendable, CaseIterable, BitwiseCopyable {
    case f32 = 0
    case f16 = 1
    case q4_0 = 2
    case q4_1 = 3
    case q5_0 = 6
    case q5_1 = 7
    case q8_0 = 8
    case q2_k = 10
    case q3_k = 11
    case q4_k = 12
    case q5_k = 13
    case q6_k = 14
    case iq4_nl = 20
    case iq4_xs = 23
    case bf16 = 30
    case mxfp4 = 39

    /// Weights per block: a row is a whole number of blocks.
    package var blockLength: Int {
        switch self {
        case .f32, .f16, .bf16: 1
        case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .iq4_nl, .mxfp4: 32
        case .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_xs: 256
        }
    }
    /// Bytes of a block as ggml has it.
    package var blockBytes: Int { ggml.blockBytes }
    /// Whether floats can be converted to it here. The others are only read from files that have them.
    package var isTarget: Bool {
        switch self {
        case .f32, .f16, .bf16, .q8_0, .q6_k, .q5_k, .q4_k, .q4_0, .q3_k: true
        case .q4_1, .q5_0, .q5_1, .q2_k, .iq4_nl, .iq4_xs, .mxfp4: false
        }
    }
    package var isQuantized: Bool { blockLength > 1 }
    package var name: String { "\(self)" }

    /// Bytes of a row of `columns` weights in ggml's blocks; `columns` must be a multiple of `blockLength`.
    package func rowBytes(_ columns: Int) -> Int { columns / blockLength * blockBytes }

    /// Rows that lie together in a model file: quantized matrices are packed in groups of interleaved rows.
    package var groupRows: Int { isQuantized ? Int(SIGMA_GROUP) : 1 }
    /// Bytes of a group of `groupRows` rows in a model file.
    package func groupBytes(_ columns: Int) -> Int {
        isQuantized ? sigma_group_bytes(Int32(rawValue), columns) : rowBytes(columns)
    }
    /// Bytes of a matrix in a model file: whole groups.
    package func matrixBytes(rows: Int, columns: Int) -> Int {
        (rows + groupRows - 1) / groupRows * groupBytes(columns)
    }
}

/// A matrix [rows, columns] somewhere in mapped memory: `y = W x` has `rows` outputs. Float types are row-major, quantized ones packed in
/// groups of 16 rows (`docs/model-file.md`). The data is 64-byte aligned.
package struct WeightMatrix: @unchecked Sendable, BitwiseCopyable {
    package var type: WeightType
    package var rows: Int
    package var columns: Int
    package var data: UnsafeRawPointer

    package init(type: WeightType, rows: Int, columns: Int, data: UnsafeRawPointer) {
        self.type = type
        self.rows = rows
        self.columns = columns
        self.data = data
    }

    package var byteCount: Int { type.matrixBytes(rows: rows, columns: columns) }
    /// Where `row` begins; for quantized types it must be the first of its group.
    package func data(row: Int) -> UnsafeRawPointer { data + row / type.groupRows * type.groupBytes(columns) }
}

/// The experts of one layer: `count` records of equal `stride`, each holding gate and up [intermediate, hidden] and down
/// [hidden, intermediate] one after the other, each 64-byte aligned inside the record.
package struct ExpertRecords: @unchecked Sendable {
    package var base: UnsafeRawPointer
    package var count: Int
    package var layout: ExpertLayout

    package init(base: UnsafeRawPointer, count: Int, layout: ExpertLayout) {
        self.base = base
        self.count = count
        self.layout = layout
    }

    package func gate(_ expert: Int) -> WeightMatrix { layout.gate(at: record(expert)) }
    package func up(_ expert: Int) -> WeightMatrix { layout.up(at: record(expert)) }
    package func down(_ expert: Int) -> WeightMatrix { layout.down(at: record(expert)) }
    package func record(_ expert: Int) -> UnsafeRawPointer { base + expert * layout.stride }
}

/// Where the three matrices lie in an expert record. The same for every expert of a layer.
package struct ExpertLayout: Sendable, Equatable {
    package let hidden: Int
    package let intermediate: Int
    package let gateType: WeightType
    package let upType: WeightType
    package let downType: WeightType
    package let upOffset: Int
    package let downOffset: Int
    /// Bytes of the record without the padding at its end.
    package let usedBytes: Int
    /// Bytes from one record to the next: `usedBytes` rounded up to a multiple of 16384.
    package let stride: Int

    package init(hidden: Int, intermediate: Int, gateType: WeightType, upType: WeightType, downType: WeightType) {
        func roundUp(_ value: Int, _ multiple: Int) -> Int { (value + multiple - 1) / multiple * multiple }
        self.hidden = hidden
        self.intermediate = intermediate
        self.gateType = gateType
        self.upType = upType
        self.downType = downType
        upOffset = roundUp(gateType.matrixBytes(rows: intermediate, columns: hidden), 64)
        downOffset = roundUp(upOffset + upType.matrixBytes(rows: intermediate, columns: hidden), 64)
        usedBytes = downOffset + downType.matrixBytes(rows: hidden, columns: intermediate)
        stride = roundUp(usedBytes, 16384)
    }

    // The matrices of a record that lies at `record`.
    func gate(at record: UnsafeRawPointer) -> WeightMatrix {
        WeightMatrix(type: gateType, rows: intermediate, columns: hidden, data: record)
    }
    func up(at record: UnsafeRawPointer) -> WeightMatrix {
        WeightMatrix(type: upType, rows: intermediate, columns: hidden, data: record + upOffset)
    }
    func down(at record: UnsafeRawPointer) -> WeightMatrix {
        WeightMatrix(type: downType, rows: hidden, columns: intermediate, data: record + downOffset)
    }
}

/// A small vector (a norm's weight, a bias) as fp32, owned by the model.
package final class FloatVector: @unchecked Sendable {
    package let values: UnsafeMutableBufferPointer<Float>

    package init(count: Int) {
        values = .allocate(capacity: count)
        values.initialize(repeating: 0)
    }
    deinit { values.deallocate() }
    package var pointer: UnsafePointer<Float> { UnsafePointer(values.baseAddress!) }
}

/// Gate, up and down projections of a dense or shared MLP.
package struct MLPWeights: Sendable {
    package var gate: WeightMatrix
    package var up: WeightMatrix
    package var down: WeightMatrix
    package init(gate: WeightMatrix, up: WeightMatrix, down: WeightMatrix) {
        self.gate = gate
        self.up = up
        self.down = down
    }
}

/// One layer's weights. `W` shapes are [outputs, inputs].
package struct LayerWeights: Sendable {
    package enum FeedForward: Sendable {
        case dense(MLPWeights)
        /// `router` [experts, hidden] in f32, bf16 or f16; `selectionBias` [experts] or nil.
        case mixture(router: WeightMatrix, selectionBias: FloatVector?, experts: ExpertRecords, shared: MLPWeights?)
    }

    package var attentionNorm: FloatVector
    package var query: WeightMatrix
    package var key: WeightMatrix
    package var value: WeightMatrix
    package var output: WeightMatrix
    package var queryBias: FloatVector?
    package var keyBias: FloatVector?
    package var valueBias: FloatVector?
    package var outputBias: FloatVector?
    /// [headDim]; nil where the model has no q/k norm.
    package var queryNorm: FloatVector?
    package var keyNorm: FloatVector?
    package var feedForwardNorm: FloatVector
    package var feedForward: FeedForward

    package init(
        attentionNorm: FloatVector, query: WeightMatrix, key: WeightMatrix, value: WeightMatrix, output: WeightMatrix,
        queryBias: FloatVector?, keyBias: FloatVector?, valueBias: FloatVector?, outputBias: FloatVector?,
        queryNorm: FloatVector?, keyNorm: FloatVector?, feedForwardNorm: FloatVector, feedForward: FeedForward
    ) {
        self.attentionNorm = attentionNorm
        self.query = query
        self.key = key
        self.value = value
        self.output = output
        self.queryBias = queryBias
        self.keyBias = keyBias
        self.valueBias = valueBias
        self.outputBias = outputBias
        self.queryNorm = queryNorm
        self.keyNorm = keyNorm
        self.feedForwardNorm = feedForwardNorm
        self.feedForward = feedForward
    }
}

/// All weights of a model: views into its mapped file, plus the small vectors.
package struct ModelWeights: Sendable {
    /// [vocabulary, hidden]
    package var embedding: WeightMatrix
    package var layers: [LayerWeights]
    package var finalNorm: FloatVector
    /// [vocabulary, hidden]; the embedding itself where they are tied.
    package var head: WeightMatrix
    /// Nil where the file has no planes.
    package var screen: ScreenPlanes?

    package init(
        embedding: WeightMatrix, layers: [LayerWeights], finalNorm: FloatVector, head: WeightMatrix,
        screen: ScreenPlanes? = nil
    ) {
        self.embedding = embedding
        self.layers = layers
        self.finalNorm = finalNorm
        self.head = head
        self.screen = screen
    }

    /// Of all matrices.
    package var types: Set<WeightType> {
        var types: Set<WeightType> = [embedding.type, head.type]
        for layer in layers {
            types.formUnion([layer.query, layer.key, layer.value, layer.output].map(\.type))
            switch layer.feedForward {
            case .dense(let mlp): types.formUnion([mlp.gate, mlp.up, mlp.down].map(\.type))
            case .mixture(let router, _, let experts, let shared):
                types.formUnion([router.type, experts.layout.gateType, experts.layout.upType, experts.layout.downType])
                if let shared { types.formUnion([shared.gate, shared.up, shared.down].map(\.type)) }
            }
        }
        return types
    }

    /// Bytes of all expert records, padding included.
    package var expertBytes: Int {
        layers.reduce(0) { sum, layer in
            guard case .mixture(_, _, let experts, _) = layer.feedForward else { return sum }
            return sum + experts.count * experts.layout.stride
        }
    }
}
