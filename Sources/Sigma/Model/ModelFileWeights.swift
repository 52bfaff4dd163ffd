/// Finds every weight that a configuration asks for in a native model file and checks its shape and type.
struct ModelFileWeights {
    private typealias Names = ModelFileFormat
    private let gguf: GGUFFile
    private let configuration: ModelConfiguration

    init(_ gguf: GGUFFile, _ configuration: ModelConfiguration) {
        self.gguf = gguf
        self.configuration = configuration
    }

    /// - Throws: `SigmaError` (`.damaged`) naming the tensor: missing, of another shape or type, or one too many.
    func weights() throws -> ModelWeights {
        let c = configuration
        var finder = Finder(gguf: gguf)
        let hasExperts = c.expertsPerToken.contains { $0 > 0 }
        let expertLayout = try hasExperts ? self.expertLayout() : nil
        let embedding = try finder.matrix(Names.embedding, c.vocabularySize, c.hiddenSize)
        let layers = try (0..<c.layerCount).map { try layer($0, expertLayout, &finder) }
        let finalNorm = try finder.vector(Names.finalNorm, c.hiddenSize)
        let head = try c.tiedEmbeddings ? embedding : finder.matrix(Names.head, c.vocabularySize, c.hiddenSize)
        try finder.checkNothingLeft()
        return ModelWeights(embedding: embedding, layers: layers, finalNorm: finalNorm, head: head)
    }

    private func layer(_ index: Int, _ expertLayout: ExpertLayout?, _ finder: inout Finder) throws -> LayerWeights {
        let c = configuration
        func name(_ part: String) -> String { Names.layer(index, part) }
        func weight(_ part: String) -> String { name(part + ".weight") }
        func bias(_ part: String) -> String { name(part + ".bias") }
        let feedForward: LayerWeights.FeedForward
        if c.isDense(layer: index) {
            feedForward = .dense(try finder.mlp(prefix: name(""), suffix: "", c.hiddenSize, c.denseIntermediateSize))
        } else {
            feedForward = .mixture(
                router: try finder.matrix(name(Names.router), c.expertCount, c.hiddenSize, floatOnly: true),
                selectionBias: try finder.optionalVector(name(Names.selectionBias), c.expertCount),
                experts: try finder.experts(name(Names.experts), count: c.expertCount, expertLayout!),
                shared: c.sharedExpertCount == 0
                    ? nil
                    : try finder.mlp(
                        prefix: name(""), suffix: Names.sharedSuffix, c.hiddenSize, c.sharedIntermediateSize))
        }
        return LayerWeights(
            attentionNorm: try finder.vector(name(Names.attentionNorm), c.hiddenSize),
            query: try finder.matrix(weight(Names.query), c.queryWidth, c.hiddenSize),
            key: try finder.matrix(weight(Names.key), c.kvWidth, c.hiddenSize),
            value: try finder.matrix(weight(Names.value), c.kvWidth, c.hiddenSize),
            output: try finder.matrix(weight(Names.output), c.hiddenSize, c.queryWidth),
            queryBias: try finder.optionalVector(bias(Names.query), c.queryWidth),
            keyBias: try finder.optionalVector(bias(Names.key), c.kvWidth),
            valueBias: try finder.optionalVector(bias(Names.value), c.kvWidth),
            outputBias: try finder.optionalVector(bias(Names.output), c.hiddenSize),
            queryNorm: try c.qkNorm ? finder.vector(name(Names.queryNorm), c.headDim) : nil,
            keyNorm: try c.qkNorm ? finder.vector(name(Names.keyNorm), c.headDim) : nil,
            feedForwardNorm: try finder.vector(name(Names.feedForwardNorm), c.hiddenSize), feedForward: feedForward)
    }

    private func expertLayout() throws -> ExpertLayout {
        let keys = KeyReader(file: gguf)
        func type(_ key: String, columns: Int) throws -> WeightType {
            let number = try keys.integer(key)
            guard let type = UInt32(exactly: number).flatMap(WeightType.init) else {
                throw keys.failure(key, "expected the number of a supported weight type, found \(number)")
            }
            guard columns % type.blockLength == 0 else {
                throw keys.failure(key, "rows of \(columns) weights are no whole number of \(type.name) blocks")
            }
            return type
        }
        let hidden = configuration.hiddenSize
        let intermediate = configuration.expertIntermediateSize
        return ExpertLayout(
            hidden: hidden, intermediate: intermediate, gateType: try type(Names.Key.gateType, columns: hidden),
            upType: try type(Names.Key.upType, columns: hidden),
            downType: try type(Names.Key.downType, columns: intermediate))
    }
}

/// Looks tensors up by name and remembers which were asked for.
private struct Finder {
    let gguf: GGUFFile
    var taken: Set<String> = []

    init(gguf: GGUFFile) { self.gguf = gguf }

    private func failure(_ tensor: GGUFFile.Tensor, _ message: String) -> SigmaError {
        SigmaError(
            .damaged, message, path: gguf.file.path, item: tensor.name, offset: UInt64(tensor.headerOffset))
    }

    private mutating func tensor(_ name: String, dimensions: [Int]) throws -> GGUFFile.Tensor {
        guard let tensor = gguf.tensor(name) else {
            throw SigmaError(.damaged, "the tensor is missing", path: gguf.file.path, item: name)
        }
        guard tensor.dimensions == dimensions else {
            throw failure(tensor, "expected dimensions \(dimensions), found \(tensor.dimensions)")
        }
        taken.insert(name)
        return tensor
    }

    private func type(_ tensor: GGUFFile.Tensor, floatOnly: Bool) throws -> WeightType {
        guard let type = WeightType(rawValue: tensor.type.number), !(floatOnly && type.isQuantized) else {
            let expected = WeightType.allCases.filter { !(floatOnly && $0.isQuantized) }.map(\.name).joined(
                separator: ", ")
            throw failure(tensor, "expected type \(expected), found \(tensor.type.name)")
        }
        return type
    }

    mutating func matrix(_ name: String, _ rows: Int, _ columns: Int, floatOnly: Bool = false) throws -> WeightMatrix {
        let tensor = try tensor(name, dimensions: [columns, rows])
        return WeightMatrix(
            type: try type(tensor, floatOnly: floatOnly), rows: rows, columns: columns,
            data: gguf.bytes(tensor).baseAddress!)
    }

    mutating func mlp(prefix: String, suffix: String, _ hidden: Int, _ intermediate: Int) throws -> MLPWeights {
        func name(_ part: String) -> String { prefix + part + suffix + ".weight" }
        return MLPWeights(
            gate: try matrix(name(ModelFileFormat.gate), intermediate, hidden),
            up: try matrix(name(ModelFileFormat.up), intermediate, hidden),
            down: try matrix(name(ModelFileFormat.down), hidden, intermediate))
    }

    mutating func experts(_ name: String, count: Int, _ layout: ExpertLayout) throws -> ExpertRecords {
        let tensor = try tensor(name, dimensions: [layout.stride, count])
        guard tensor.type == .int8 else { throw failure(tensor, "expected type I8, found \(tensor.type.name)") }
        return ExpertRecords(base: gguf.bytes(tensor).baseAddress!, count: count, layout: layout)
    }

    /// A vector, widened to fp32. All its values must be finite.
    mutating func vector(_ name: String, _ count: Int) throws -> FloatVector {
        let tensor = try tensor(name, dimensions: [count])
        let type = try type(tensor, floatOnly: true)
        let bytes = gguf.bytes(tensor)
        let vector = FloatVector(count: count)
        for i in 0..<count {
            let value: Float =
                switch type {
                case .f32: bytes.loadUnaligned(fromByteOffset: 4 * i, as: Float.self)
                case .f16: FloatBits.float(f16: bytes.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self))
                default: FloatBits.float(bf16: bytes.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self))
                }
            guard value.isFinite else {
                throw SigmaError(
                    .damaged, "expected finite numbers, found \(value) as element \(i)", path: gguf.file.path,
                    item: name,
                    offset: UInt64(tensor.offset + i * type.blockBytes))
            }
            vector.values[i] = value
        }
        return vector
    }

    mutating func optionalVector(_ name: String, _ count: Int) throws -> FloatVector? {
        try gguf.tensor(name) == nil ? nil : vector(name, count)
    }

    /// A tensor that nobody asked for means that the model computes something that we would leave out.
    func checkNothingLeft() throws {
        guard let extra = gguf.tensors.first(where: { !taken.contains($0.name) }) else { return }
        throw failure(extra, "the configuration has no place for this tensor")
    }
}
