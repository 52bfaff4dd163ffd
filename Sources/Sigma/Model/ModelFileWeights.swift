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
        var finder = try Finder(gguf: gguf, types: types(Names.Key.tensorTypes, count: gguf.tensors.count))
        let layouts = try expertLayouts()
        let embedding = try finder.matrix(Names.embedding, c.vocabularySize, c.hiddenSize)
        let layers = try (0..<c.layerCount).map { try layer($0, layouts[$0], &finder) }
        let finalNorm = try finder.vector(Names.finalNorm, c.hiddenSize)
        let head = try c.tiedEmbeddings ? embedding : finder.matrix(Names.head, c.vocabularySize, c.hiddenSize)
        let screen = try finder.screenPlanes(c.vocabularySize, c.hiddenSize)
        try finder.checkNothingLeft()
        return ModelWeights(embedding: embedding, layers: layers, finalNorm: finalNorm, head: head, screen: screen)
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

    /// An array of type numbers.
    private func types(_ key: String, count: Int) throws -> [UInt32] {
        let keys = KeyReader(file: gguf)
        guard let array = gguf[key]?.array, array.kind == .uint32, array.count == count else {
            throw keys.failure(key, "expected an array of \(count) uint32")
        }
        return (0..<count).map { UInt32(truncatingIfNeeded: array.integer($0)!) }
    }

    /// The records' layout in every layer; nil in dense ones.
    private func expertLayouts() throws -> [ExpertLayout?] {
        let c = configuration
        guard c.expertsPerToken.contains(where: { $0 > 0 }) else { return Array(repeating: nil, count: c.layerCount) }
        func types(_ key: String, columns: Int) throws -> [WeightType] {
            try self.types(key, count: c.layerCount).enumerated().map { layer, number in
                func failure(_ message: String) -> SigmaError {
                    KeyReader(file: gguf).failure(key, "layer \(layer): " + message)
                }
                guard let type = WeightType(rawValue: number) else {
                    throw failure("expected the number of a supported weight type, found \(number)")
                }
                guard c.isDense(layer: layer) || columns % type.blockLength == 0 else {
                    throw failure("rows of \(columns) weights are no whole number of \(type.name) blocks")
                }
                return type
            }
        }
        let gate = try types(Names.Key.gateTypes, columns: c.hiddenSize)
        let up = try types(Names.Key.upTypes, columns: c.hiddenSize)
        let down = try types(Names.Key.downTypes, columns: c.expertIntermediateSize)
        return (0..<c.layerCount).map { layer in
            c.isDense(layer: layer)
                ? nil
                : ExpertLayout(
                    hidden: c.hiddenSize, intermediate: c.expertIntermediateSize, gateType: gate[layer],
                    upType: up[layer], downType: down[layer])
        }
    }
}

/// Looks tensors up by name and remembers which were asked for.
private struct Finder {
    let gguf: GGUFFile
    /// What each tensor holds, by name.
    let types: [ByteKey: UInt32]
    var taken: Set<ByteKey> = []

    init(gguf: GGUFFile, types: [UInt32]) {
        self.gguf = gguf
        self.types = Dictionary(
            uniqueKeysWithValues: zip(gguf.tensors.map { ByteKey(text: $0.name) }, types))
    }

    private func failure(_ tensor: GGUFFile.Tensor, _ message: String) -> SigmaError {
        SigmaError(
            .damaged, message, path: gguf.file.path, item: tensor.name, offset: UInt64(tensor.headerOffset))
    }

    private mutating func tensor(_ name: String) throws -> GGUFFile.Tensor {
        guard let tensor = gguf.tensor(name) else {
            throw SigmaError(.damaged, "the tensor is missing", path: gguf.file.path, item: name)
        }
        taken.insert(ByteKey(text: name))
        return tensor
    }

    /// That the tensor is described as what it holds must look like.
    private func check(_ tensor: GGUFFile.Tensor, dimensions: [Int], as type: GGMLType) throws {
        guard tensor.dimensions == dimensions else {
            throw failure(tensor, "expected dimensions \(dimensions), found \(tensor.dimensions)")
        }
        guard tensor.type == type else {
            throw failure(tensor, "expected type \(type.name), found \(tensor.type.name)")
        }
    }

    private func type(_ tensor: GGUFFile.Tensor, floatOnly: Bool) throws -> WeightType {
        let number = types[ByteKey(text: tensor.name)]!
        guard let type = WeightType(rawValue: number), !(floatOnly && type.isQuantized) else {
            let expected = WeightType.allCases.filter { !(floatOnly && $0.isQuantized) }.map(\.name).joined(
                separator: ", ")
            let found = GGMLType.number(number)?.name ?? "\(number)"
            throw failure(tensor, "\(ModelFileFormat.Key.tensorTypes): expected \(expected), found \(found)")
        }
        return type
    }

    mutating func matrix(_ name: String, _ rows: Int, _ columns: Int, floatOnly: Bool = false) throws -> WeightMatrix {
        let tensor = try tensor(name)
        let type = try type(tensor, floatOnly: floatOnly)
        guard columns % type.blockLength == 0 else {
            throw failure(tensor, "rows of \(columns) weights are no whole number of \(type.name) blocks")
        }
        try check(
            tensor, dimensions: ModelFileFormat.dimensions(type, rows, columns), as: ModelFileFormat.carrier(type))
        return WeightMatrix(type: type, rows: rows, columns: columns, data: gguf.bytes(tensor).baseAddress!)
    }

    mutating func mlp(prefix: String, suffix: String, _ hidden: Int, _ intermediate: Int) throws -> MLPWeights {
        func name(_ part: String) -> String { prefix + part + suffix + ".weight" }
        return MLPWeights(
            gate: try matrix(name(ModelFileFormat.gate), intermediate, hidden),
            up: try matrix(name(ModelFileFormat.up), intermediate, hidden),
            down: try matrix(name(ModelFileFormat.down), hidden, intermediate))
    }

    mutating func experts(_ name: String, count: Int, _ layout: ExpertLayout) throws -> ExpertRecords {
        let tensor = try tensor(name)
        try check(tensor, dimensions: [layout.stride, count], as: .int8)
        return ExpertRecords(base: gguf.bytes(tensor).baseAddress!, count: count, layout: layout)
    }

    /// All three tensors, or none.
    mutating func screenPlanes(_ rows: Int, _ hidden: Int) throws -> ScreenPlanes? {
        typealias Names = ModelFileFormat
        let names = [Names.screenMean, Names.screenCoarse, Names.screenFine]
        guard let first = gguf.tensors.first(where: { names.contains($0.name) }) else { return nil }
        guard ScreenPlanes.fits(hidden: hidden) else {
            throw failure(first, "rows of \(hidden) weights cannot be screened: expected a multiple of 32")
        }
        let mean = try vector(Names.screenMean, hidden)
        return ScreenPlanes(
            rows: rows, hidden: hidden, mean: mean,
            coarse: try plane(
                Names.screenCoarse, [ScreenPlanes.groupBytes(hidden), ScreenPlanes.groups(rows)]),
            fine: try plane(Names.screenFine, [ScreenPlanes.rowBytes(hidden), rows]))
    }

    private mutating func plane(_ name: String, _ dimensions: [Int]) throws -> UnsafeRawPointer {
        let tensor = try tensor(name)
        try check(tensor, dimensions: dimensions, as: .int8)
        guard types[ByteKey(text: name)] == GGMLType.int8.number else {
            throw failure(
                tensor,
                "\(ModelFileFormat.Key.tensorTypes): expected \(GGMLType.int8.number), found \(types[ByteKey(text: name)]!)"
            )
        }
        return gguf.bytes(tensor).baseAddress!
    }

    /// A vector, widened to fp32. All its values must be finite.
    mutating func vector(_ name: String, _ count: Int) throws -> FloatVector {
        let tensor = try tensor(name)
        let type = try type(tensor, floatOnly: true)
        try check(tensor, dimensions: [count], as: type.ggml)
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
        guard let extra = gguf.tensors.first(where: { !taken.contains(ByteKey(text: $0.name)) }) else { return }
        throw failure(extra, "the configuration has no place for this tensor")
    }
}
