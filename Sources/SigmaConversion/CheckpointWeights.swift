import Sigma

/// The weights of a Hugging Face checkpoint by role.
package struct CheckpointWeights: WeightSources {
    private let checkpoint: Checkpoint
    private let experts: ExpertTensors
    private let float8Block: Float8Block?

    package init(_ checkpoint: Checkpoint, _ configuration: CheckpointConfiguration) {
        self.checkpoint = checkpoint
        experts = ExpertTensors(checkpoint: checkpoint, configuration: configuration.model)
        float8Block = configuration.float8Block
    }

    package func find(_ role: WeightRole, rows: Int, columns: Int) throws -> (any MatrixSource)? {
        if let matrix = try float8(name(role), [rows, columns]) { return matrix }
        if case .expert(let layer, let expert, let part) = role {
            return try experts.find(layer: layer, expert, part, rows: rows, columns: columns)
        }
        guard let tensor = try checkpoint.find(name(role)) else { return nil }
        try tensor.check(shape: role.isVector ? [columns] : [rows, columns])
        return tensor
    }

    /// Nil for a tensor that is not of 8-bit floats.
    private func float8(_ name: String, _ shape: [Int]) throws -> Float8Matrix? {
        guard let float8Block, let tensor = try checkpoint.find(name), tensor.tensor.type == "F8_E4M3" else {
            return nil
        }
        guard tensor.shape == shape else { throw tensor.failure("expected shape \(shape), found \(tensor.shape)") }
        guard let scales = try checkpoint.find(name + Self.scaleSuffix) else {
            throw checkpoint.missing(name + Self.scaleSuffix)
        }
        return try Float8Matrix(tensor, scales: scales, float8Block)
    }

    /// Behind the name of a matrix of 8-bit floats.
    private static let scaleSuffix = "_scale_inv"

    package func missing(_ role: WeightRole) -> SigmaError { checkpoint.missing(name(role)) }

    package func leftovers(_ roles: Set<WeightRole>, of configuration: ModelConfiguration) -> Leftovers {
        let used = Set(roles.map { ByteKey(text: name($0)) })
        let unused = checkpoint.names.filter { name in
            if used.contains(ByteKey(text: name)) { return false }
            // Precomputed tables that old checkpoints carry, and a head that is the embedding again.
            if name.hasSuffix("rotary_emb.inv_freq") { return false }
            if float8Block != nil, name.hasSuffix(Self.scaleSuffix),
                used.contains(ByteKey(text: String(name.dropLast(Self.scaleSuffix.count))))
            {
                return false
            }
            if name == "lm_head.weight", configuration.tiedEmbeddings { return false }
            return true
        }
        let normNames = ["q_layernorm.weight", "k_layernorm.weight", "q_norm.weight", "k_norm.weight"]
        let norms = unused.filter { name in
            !configuration.qkNorm && normNames.contains { name.hasSuffix("self_attn." + $0) }
        }
        var leftovers = Leftovers()
        if !norms.isEmpty {
            leftovers.warnings.append(
                "qk_layernorm is false: \(norms.count) tensors such as \(norms[0]) are ignored")
        }
        // What the model needs was looked for, and an error if it is not there.
        let absent = checkpoint.absentNames
        if !absent.isEmpty {
            let list = absent.prefix(4).joined(separator: ", ")
            leftovers.warnings.append(
                "the index names tensors that no file has and the model has no place for: \(list)"
                    + (absent.count > 4 ? ", ... (\(absent.count) in all)" : ""))
        }
        let known = Set(norms.map { ByteKey(text: $0) })
        leftovers.unknown = unused.filter { !known.contains(ByteKey(text: $0)) }
        leftovers.path = leftovers.unknown.first.flatMap { checkpoint.tensor($0)?.shard.file.path }
        return leftovers
    }

    /// The tensor's name; of two spellings the one that is there.
    private func name(_ role: WeightRole) -> String {
        switch role {
        case .embedding: return "model.embed_tokens.weight"
        case .finalNorm: return "model.norm.weight"
        case .head: return "lm_head.weight"
        case .expert(let layer, let expert, let part): return experts.name(layer: layer, expert, part)
        case .layer(let layer, let part):
            let prefix = "model.layers.\(layer)."
            switch part {
            case .attentionNorm: return prefix + "input_layernorm.weight"
            case .attention(let part): return prefix + "self_attn.\(Self.letter(part))_proj.weight"
            case .attentionBias(let part): return prefix + "self_attn.\(Self.letter(part))_proj.bias"
            case .queryNorm: return norm(prefix + "self_attn.q")
            case .keyNorm: return norm(prefix + "self_attn.k")
            case .feedForwardNorm: return prefix + "post_attention_layernorm.weight"
            case .router: return prefix + "mlp.gate.weight"
            case .selectionBias: return prefix + "mlp.gate.e_score_correction_bias"
            case .dense(let part): return prefix + "mlp.\(part)_proj.weight"
            case .shared(let part): return prefix + "mlp.shared_experts.\(part)_proj.weight"
            }
        }
    }

    private func norm(_ prefix: String) -> String {
        let long = prefix + "_layernorm.weight"
        let short = prefix + "_norm.weight"
        return checkpoint.tensor(long) == nil && checkpoint.tensor(short) != nil ? short : long
    }

    private static func letter(_ part: WeightRole.AttentionPart) -> String {
        switch part {
        case .query: "q"
        case .key: "k"
        case .value: "v"
        case .output: "o"
        }
    }
}
