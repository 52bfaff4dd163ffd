import CCUDA

/// One layer's weights on the device. Addresses are 0 where the model has no such vector.
struct CUDALayer {
    /// Gate, up and down of a dense or shared MLP.
    struct MLP {
        let gate: sigma_cuda_matrix
        let up: sigma_cuda_matrix
        let down: sigma_cuda_matrix
    }

    /// A router and what it chooses from.
    struct Mixture {
        let router: sigma_cuda_matrix
        let selectionBias: DeviceAddress
        let layout: ExpertLayout
        let expertCount: Int
        let choices: Int
        /// Whether weights are divided by their sum.
        let normalizes: Bool

        // `data` is the offset in the expert's record.
        var gate: sigma_cuda_matrix { matrix(layout.gateType, layout.intermediate, layout.hidden, 0) }
        var up: sigma_cuda_matrix { matrix(layout.upType, layout.intermediate, layout.hidden, layout.upOffset) }
        var down: sigma_cuda_matrix { matrix(layout.downType, layout.hidden, layout.intermediate, layout.downOffset) }

        private func matrix(_ type: WeightType, _ rows: Int, _ columns: Int, _ offset: Int) -> sigma_cuda_matrix {
            sigma_cuda_matrix(
                WeightMatrix(type: type, rows: rows, columns: columns, data: UnsafeRawPointer(bitPattern: 64)!),
                at: DeviceAddress(offset))
        }
    }

    let attentionNorm: DeviceAddress
    let query: sigma_cuda_matrix
    let key: sigma_cuda_matrix
    let value: sigma_cuda_matrix
    let output: sigma_cuda_matrix
    let queryBias: DeviceAddress
    let keyBias: DeviceAddress
    let valueBias: DeviceAddress
    let outputBias: DeviceAddress
    let queryNorm: DeviceAddress
    let keyNorm: DeviceAddress
    let feedForwardNorm: DeviceAddress
    /// nil in a dense layer.
    let mixture: Mixture?
    /// The dense MLP, or the shared experts.
    let alwaysOn: MLP?
}

extension WeightType {
    package var hasCUDAKernels: Bool { !isQuantized || sigma_cuda_is_packed(Int32(rawValue)) != 0 }
}

extension sigma_cuda_matrix {
    init(_ matrix: WeightMatrix, at address: DeviceAddress) {
        self.init(
            data: address, type: Int32(matrix.type.rawValue), rows: Int32(matrix.rows), columns: Int32(matrix.columns),
            padding: 0)
    }
    var isPacked: Bool { sigma_cuda_is_packed(type) != 0 }
}

/// Where the weights that every token needs lie on the device: matrices as in the file, each once, and vectors in fp32.
struct CUDADenseLayout {
    private(set) var byteCount = 0
    private(set) var matrices: [(data: UnsafeRawPointer, byteCount: Int, offset: Int)] = []
    private(set) var vectors: [(vector: FloatVector, offset: Int)] = []
    private var offsets: [UnsafeRawPointer: Int] = [:]

    init(_ weights: ModelWeights) {
        var used = weights
        // The device computes all logits.
        used.screen = nil
        _ = used.mapMemory { data, count in
            if offsets[data] == nil {
                offsets[data] = byteCount
                matrices.append((data, count, byteCount))
                add(count)
            }
            return data
        }
        for layer in weights.layers {
            var all = [
                layer.attentionNorm, layer.queryBias, layer.keyBias, layer.valueBias, layer.outputBias,
                layer.queryNorm, layer.keyNorm, layer.feedForwardNorm,
            ]
            if case .mixture(_, let bias, _, _) = layer.feedForward { all.append(bias) }
            for vector in all.compactMap({ $0 }) { add(vector) }
        }
        add(weights.finalNorm)
    }

    private mutating func add(_ bytes: Int) { byteCount = (byteCount + bytes + 255) & ~255 }
    private mutating func add(_ vector: FloatVector) {
        offsets[UnsafeRawPointer(vector.pointer)] = byteCount
        vectors.append((vector, byteCount))
        add(vector.values.count * 4)
    }

    func offset(of data: UnsafeRawPointer) -> Int { offsets[data]! }
}

/// The weights that every token needs, on the device.
struct CUDAWeights {
    let layers: [CUDALayer]
    let embedding: sigma_cuda_matrix
    let finalNorm: DeviceAddress
    let head: sigma_cuda_matrix
    private let memory: DeviceMemory

    /// - Parameter memory: of the layout's size; its contents come by `items` and `copyVectors`.
    init(_ model: ModelFile, _ layout: CUDADenseLayout, in memory: DeviceMemory) {
        self.memory = memory
        let weights = model.weights
        let c = model.configuration
        func place(_ matrix: WeightMatrix) -> sigma_cuda_matrix {
            sigma_cuda_matrix(matrix, at: memory.address + DeviceAddress(layout.offset(of: matrix.data)))
        }
        func place(_ vector: FloatVector?) -> DeviceAddress {
            vector.map { memory.address + DeviceAddress(layout.offset(of: UnsafeRawPointer($0.pointer))) } ?? 0
        }
        func place(_ mlp: MLPWeights) -> CUDALayer.MLP {
            CUDALayer.MLP(gate: place(mlp.gate), up: place(mlp.up), down: place(mlp.down))
        }
        layers = weights.layers.enumerated().map { index, layer in
            var mixture: CUDALayer.Mixture?
            var alwaysOn: CUDALayer.MLP?
            switch layer.feedForward {
            case .dense(let mlp): alwaysOn = place(mlp)
            case .mixture(let router, let bias, let experts, let shared):
                let choices = c.expertsPerToken[index]
                mixture = CUDALayer.Mixture(
                    router: place(router), selectionBias: place(bias), layout: experts.layout,
                    expertCount: experts.count, choices: choices,
                    normalizes: c.normalizesWeights(choices: choices))
                alwaysOn = shared.map(place)
            }
            return CUDALayer(
                attentionNorm: place(layer.attentionNorm), query: place(layer.query), key: place(layer.key),
                value: place(layer.value), output: place(layer.output), queryBias: place(layer.queryBias),
                keyBias: place(layer.keyBias), valueBias: place(layer.valueBias), outputBias: place(layer.outputBias),
                queryNorm: place(layer.queryNorm), keyNorm: place(layer.keyNorm),
                feedForwardNorm: place(layer.feedForwardNorm), mixture: mixture, alwaysOn: alwaysOn)
        }
        embedding = place(weights.embedding)
        finalNorm = place(weights.finalNorm)
        head = place(weights.head)
    }

    /// The matrices' records in the file.
    func items(_ model: ModelFile, _ layout: CUDADenseLayout) -> [WeightUpload.Item] {
        let base = model.gguf.file.bytes.baseAddress!
        let checksums = model.checksumsByOffset
        var names: [Int: String] = [:]
        for tensor in model.gguf.tensors { names[tensor.offset] = tensor.name }
        return layout.matrices.map { data, byteCount, offset in
            let place = data - base
            return WeightUpload.Item(
                name: names[place] ?? "", offset: place, byteCount: byteCount, checksum: checksums[place]!,
                target: .device(memory.address + DeviceAddress(offset)))
        }
    }

    func copyVectors(_ layout: CUDADenseLayout) throws(CUDAStatus) {
        for (vector, offset) in layout.vectors {
            try memory.device.copy(
                vector.values.count * 4, from: vector.pointer, to: memory.address + DeviceAddress(offset))
        }
    }
}
