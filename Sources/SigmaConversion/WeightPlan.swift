import Sigma

/// Which tensor of the model file comes from which tensors of the checkpoint, and as what type: the whole conversion of weights before
/// any is read.
package struct WeightPlan: Sendable {
    package enum Content: Sendable {
        /// `rows` rows of `columns` weights; a vector is one row.
        case rows(any MatrixSource, rows: Int, columns: Int, type: WeightType, isVector: Bool)
        /// One record for each expert.
        case experts([Expert], ExpertLayout)
    }

    package struct Expert: Sendable {
        package let gate: any MatrixSource
        package let up: any MatrixSource
        package let down: any MatrixSource
    }

    package struct Output: Sendable {
        package let name: String
        package let content: Content
    }

    package private(set) var outputs: [Output] = []
    /// One for each layer; nil where there are no experts.
    package private(set) var expertLayouts: [ExpertLayout?] = []
    package private(set) var warnings: [String] = []

    private let checkpoint: Checkpoint
    private let configuration: ModelConfiguration
    private let type: WeightType
    private var used: Set<ByteKey> = []
    /// Names of tensors whose rows the type's block doesn't divide, layers as `*`, by what they became.
    private var fallbacks: [(name: String, columns: Int, type: WeightType)] = []

    /// - Parameters:
    ///   - type: of experts, dense layers, attention and embedding.
    ///   - outputType: of the head, and of an embedding that is the head too.
    ///   - ignoresUnknown: whether tensors that have no place in the model are left out with a warning.
    /// - Throws: `SigmaError` (`.damaged`) naming the tensor that is missing, has another shape or type, or has no place.
    package init(
        _ checkpoint: Checkpoint, _ configuration: ModelConfiguration, type: WeightType, outputType: WeightType,
        ignoresUnknown: Bool
    ) throws {
        self.checkpoint = checkpoint
        self.configuration = configuration
        self.type = type
        let c = configuration
        try addMatrix(
            ModelFileFormat.embedding, "model.embed_tokens.weight", c.vocabularySize, c.hiddenSize,
            c.tiedEmbeddings ? outputType : type)
        for layer in 0..<c.layerCount { try addLayer(layer) }
        try addVector(ModelFileFormat.finalNorm, "model.norm.weight", c.hiddenSize)
        if !c.tiedEmbeddings {
            try addMatrix(ModelFileFormat.head, "lm_head.weight", c.vocabularySize, c.hiddenSize, outputType)
        }
        try checkUnused(ignoresUnknown: ignoresUnknown)
        for (type, group) in Dictionary(grouping: fallbacks, by: \.type.name).sorted(by: { $0.key < $1.key }) {
            let list = group.map { "\($0.name) (\($0.columns) columns)" }.joined(separator: ", ")
            warnings.append("rows that \(self.type.name)'s blocks don't divide are \(type): \(list)")
        }
    }

    private mutating func addLayer(_ layer: Int) throws {
        let c = configuration
        let source = "model.layers.\(layer)."
        expertLayouts.append(nil)
        func name(_ part: String) -> String { ModelFileFormat.layer(layer, part) }
        try addVector(name(ModelFileFormat.attentionNorm), source + "input_layernorm.weight", c.hiddenSize)
        for (part, target, rows, columns) in [
            ("q", ModelFileFormat.query, c.queryWidth, c.hiddenSize),
            ("k", ModelFileFormat.key, c.kvWidth, c.hiddenSize),
            ("v", ModelFileFormat.value, c.kvWidth, c.hiddenSize),
            ("o", ModelFileFormat.output, c.hiddenSize, c.queryWidth),
        ] {
            let projection = source + "self_attn.\(part)_proj"
            try addMatrix(name(target + ".weight"), projection + ".weight", rows, columns, type)
            if checkpoint.tensor(projection + ".bias") != nil {
                try addVector(name(target + ".bias"), projection + ".bias", rows)
            }
        }
        if c.qkNorm {
            for (part, target) in [("q", ModelFileFormat.queryNorm), ("k", ModelFileFormat.keyNorm)] {
                let long = source + "self_attn.\(part)_layernorm.weight"
                let short = source + "self_attn.\(part)_norm.weight"
                try addVector(
                    name(target), checkpoint.tensor(long) == nil && checkpoint.tensor(short) != nil ? short : long,
                    c.headDim)
            }
        }
        try addVector(name(ModelFileFormat.feedForwardNorm), source + "post_attention_layernorm.weight", c.hiddenSize)
        if c.isDense(layer: layer) {
            return try addMLP(layer, source + "mlp.", suffix: "", intermediate: c.denseIntermediateSize)
        }
        let router = try take(source + "mlp.gate.weight", [c.expertCount, c.hiddenSize])
        outputs.append(
            Output(
                name: name(ModelFileFormat.router),
                content: .rows(router, rows: c.expertCount, columns: c.hiddenSize, type: router.type, isVector: false))
        )
        let bias = source + "mlp.gate.e_score_correction_bias"
        if checkpoint.tensor(bias) != nil { try addVector(name(ModelFileFormat.selectionBias), bias, c.expertCount) }
        try addExperts(layer, source)
        if c.sharedExpertCount > 0 {
            try addMLP(
                layer, source + "mlp.shared_experts.", suffix: ModelFileFormat.sharedSuffix,
                intermediate: c.sharedIntermediateSize)
        }
    }

    private mutating func addExperts(_ layer: Int, _ source: String) throws {
        let c = configuration
        let wide = [c.expertIntermediateSize, c.hiddenSize]
        var experts: [Expert] = []
        for expert in 0..<c.expertCount {
            let prefix = source + "mlp.experts.\(expert)."
            experts.append(
                Expert(
                    gate: try take(prefix + "gate_proj.weight", wide), up: try take(prefix + "up_proj.weight", wide),
                    down: try take(prefix + "down_proj.weight", [c.hiddenSize, c.expertIntermediateSize])))
        }
        // One layout for the whole layer, so the first expert's precision decides what a fallback is.
        let first = experts[0]
        let layout = ExpertLayout(
            hidden: c.hiddenSize, intermediate: c.expertIntermediateSize,
            gateType: fallback("blk.*.ffn_experts gate", first.gate, c.hiddenSize),
            upType: fallback("blk.*.ffn_experts up", first.up, c.hiddenSize),
            downType: fallback("blk.*.ffn_experts down", first.down, c.expertIntermediateSize))
        expertLayouts[layer] = layout
        outputs.append(
            Output(name: ModelFileFormat.layer(layer, ModelFileFormat.experts), content: .experts(experts, layout)))
    }

    private mutating func addMLP(_ layer: Int, _ source: String, suffix: String, intermediate: Int) throws {
        let hidden = configuration.hiddenSize
        for (part, target, rows, columns) in [
            ("gate", ModelFileFormat.gate, intermediate, hidden), ("up", ModelFileFormat.up, intermediate, hidden),
            ("down", ModelFileFormat.down, hidden, intermediate),
        ] {
            try addMatrix(
                ModelFileFormat.layer(layer, target + suffix + ".weight"), source + part + "_proj.weight", rows,
                columns, type)
        }
    }

    private mutating func addMatrix(
        _ name: String, _ source: String, _ rows: Int, _ columns: Int, _ wanted: WeightType
    ) throws {
        let tensor = try take(source, [rows, columns])
        let parts = name.split(separator: ".")
        let pattern = parts.first == "blk" ? "blk.*." + parts.dropFirst(2).joined(separator: ".") : name
        let type = fallback(pattern, tensor, columns, wanted)
        outputs.append(
            Output(name: name, content: .rows(tensor, rows: rows, columns: columns, type: type, isVector: false)))
    }

    /// A norm or a bias: its own precision.
    private mutating func addVector(_ name: String, _ source: String, _ count: Int) throws {
        let tensor = try take(source, [count])
        outputs.append(
            Output(name: name, content: .rows(tensor, rows: 1, columns: count, type: tensor.type, isVector: true)))
    }

    private mutating func take(_ name: String, _ shape: [Int]) throws -> SourceTensor {
        used.insert(ByteKey(text: name))
        return try checkpoint.tensor(name, shape: shape)
    }

    /// `wanted`, or q8_0, or a float type, where the blocks don't divide a row.
    private mutating func fallback(
        _ pattern: String, _ source: any MatrixSource, _ columns: Int, _ wanted: WeightType? = nil
    ) -> WeightType {
        let wanted = wanted ?? type
        if columns % wanted.blockLength == 0 { return wanted }
        let type: WeightType = columns % WeightType.q8_0.blockLength == 0 ? .q8_0 : source.type == .f32 ? .f32 : .bf16
        if !fallbacks.contains(where: { $0.name == pattern && $0.type == type }) {
            fallbacks.append((pattern, columns, type))
        }
        return type
    }

    /// Tensors that nothing asked for mean that the model computes something that we would leave out.
    private mutating func checkUnused(ignoresUnknown: Bool) throws {
        let unused = checkpoint.names.filter { name in
            if used.contains(ByteKey(text: name)) { return false }
            // Precomputed tables that old checkpoints carry, and a head that is the embedding again.
            if name.hasSuffix("rotary_emb.inv_freq") { return false }
            if name == "lm_head.weight", configuration.tiedEmbeddings { return false }
            return true
        }
        let normNames = ["q_layernorm.weight", "k_layernorm.weight", "q_norm.weight", "k_norm.weight"]
        let norms = unused.filter { name in
            !configuration.qkNorm && normNames.contains { name.hasSuffix("self_attn." + $0) }
        }
        if !norms.isEmpty {
            warnings.append("qk_layernorm is false: \(norms.count) tensors such as \(norms[0]) are ignored")
        }
        let unknown = unused.filter { !norms.contains($0) }
        guard let first = unknown.first else { return }
        var list = unknown.prefix(4).joined(separator: ", ")
        if unknown.count > 4 { list += ", ... (\(unknown.count) in all)" }
        guard ignoresUnknown else {
            throw SigmaError(
                .damaged, "tensors that this model has no place for: \(list)",
                path: checkpoint.tensor(first)?.shard.file.path, item: first,
                remedy: "To leave them out: --override unknown_tensors=ignore")
        }
        warnings.append("tensors without a place in the model are left out: \(list)")
    }
}
