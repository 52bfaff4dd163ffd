import Sigma

/// What the metadata and the tensors' shapes of a plain GGUF file say about a model: llama.cpp's keys for the public families, the same
/// keys and a few more (those of our own files) for `sigma`.
package struct GGUFConfiguration: Sendable {
    package let family: any ModelFamily
    package let model: ModelConfiguration
    /// Choices that the user should know of; each once.
    package private(set) var warnings: [String] = []

    package var architecture: String { family.ggufArchitecture }

    /// - Throws: `SigmaError` (`.damaged`) naming the key that is missing, makes no sense, or asks for what we don't compute.
    package init(_ file: GGUFParts, overrides: Overrides = .none) throws {
        let keys = try GGUFMetadata(file.first)
        family = keys.family
        let layerCount = try keys.integer("block_count")
        // Before any list of that length is made.
        guard (1...1024).contains(layerCount) else {
            throw keys.failure("block_count", "expected 1 to 1024, found \(layerCount)")
        }
        let hiddenSize = try keys.integer("embedding_length")
        let headCount = try keys.uniform("attention.head_count", layerCount: layerCount)
        guard headCount > 0 else { throw keys.failure("attention.head_count", "expected heads, found \(headCount)") }
        let headDim = try keys.optionalInteger("attention.key_length") ?? hiddenSize / headCount
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let length = try keys.optionalInteger(key), length != headDim {
                throw keys.failure(key, "expected the key length, \(headDim), found \(length)")
            }
        }
        let hasQueryNorm = file.tensor(ModelFileFormat.name(.layer(0, .queryNorm))) != nil
        let rules = try family.rules(of: keys, layerCount: layerCount, hasQueryNorm: hasQueryNorm)
        let dense = try keys.optionalUniform("feed_forward_length", layerCount: layerCount) ?? 0
        // llama.cpp's rule where the experts' own width is missing.
        let intermediate =
            rules.expertCount == 0
            ? 0
            : try keys.optionalUniform("expert_feed_forward_length", layerCount: layerCount)
                ?? dense / max(1, rules.expertsPerToken.max() ?? 1)
        let stated = try keys.integer("context_length")
        let scaling = try Self.ropeScaling(file, keys, headDim: headDim, contextLength: stated)
        let isTied = file.tensor(ModelFileFormat.head) == nil
        model = ModelConfiguration(
            vocabularySize: try Self.vocabularySize(file), hiddenSize: hiddenSize, layerCount: layerCount,
            headCount: headCount,
            kvHeadCount: try keys.optionalUniform("attention.head_count_kv", layerCount: layerCount) ?? headCount,
            headDim: headDim, expertCount: rules.expertCount, expertIntermediateSize: intermediate,
            sharedExpertCount: rules.sharedExpertCount,
            denseIntermediateSize: rules.expertsPerToken.contains(0) ? dense : 0,
            expertsPerToken: rules.expertsPerToken, scoring: rules.scoring, weightNormalization: rules.normalization,
            routedScalingFactor: rules.routedScalingFactor, qkNorm: rules.qkNorm,
            rmsNormEpsilon: try keys.float("attention.layer_norm_rms_epsilon"),
            ropeTheta: try Self.ropeTheta(keys, overrides, &warnings), ropeScaling: scaling,
            contextLength: try Self.contextLength(stated, scaling, keys, overrides, &warnings),
            tiedEmbeddings: isTied)
        if let problem = model.problem {
            throw SigmaError(.damaged, "the configuration makes no sense: \(problem)", path: file.path)
        }
        let unknown = keys.unknown(Self.knownKeys)
        if !unknown.isEmpty {
            warnings.append("keys without a meaning here are ignored: \(unknown.joined(separator: ", "))")
        }
        if isTied {
            warnings.append("there is no output.weight: the embedding is the output head")
        } else if try keys.optionalBool("tied_embeddings") == true {
            warnings.append("\(architecture).tied_embeddings is true, but there is an output.weight, which is used")
        }
    }

    /// Without the architecture's name.
    private static let knownKeys: Set<String> = [
        "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        "attention.layer_norm_rms_epsilon", "attention.qk_norm", "expert_count", "expert_used_count",
        "expert_used_count_per_layer", "expert_feed_forward_length", "expert_shared_count", "expert_gating_func",
        "expert_weights_norm", "expert_weights_normalization", "expert_weights_scale", "leading_dense_block_count",
        "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
        "rope.scaling.original_context_length", "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_truncate", "rope.scaling.yarn_ext_factor",
        "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_log_multiplier", "rope.scaling.finetuned",
        "rope.scaling.divisors",
        "tied_embeddings", "source_architecture",
    ]

    /// The embedding's rows: they cannot be stale.
    private static func vocabularySize(_ file: GGUFParts) throws -> Int {
        guard let embedding = file.tensor(ModelFileFormat.embedding)?.tensor else {
            throw SigmaError(.damaged, "the tensor is missing", path: file.path, item: ModelFileFormat.embedding)
        }
        return embedding.dimensions.count >= 2 ? embedding.dimensions[1] : 1
    }

    private static func ropeTheta(
        _ keys: GGUFMetadata, _ overrides: Overrides, _ warnings: inout [String]
    ) throws -> Float {
        if let given = try overrides.number("rope_theta") { return Float(given) }
        if let stated = try keys.optionalFloat("rope.freq_base") { return stated }
        warnings.append("\(keys.architecture).rope.freq_base is missing: 10000 is used (--override rope_theta=N)")
        return 10_000
    }

    /// llama.cpp's converter copies a checkpoint's `max_position_embeddings`, which with yarn is not the limit.
    private static func contextLength(
        _ stated: Int, _ scaling: ModelConfiguration.RopeScaling, _ keys: GGUFMetadata, _ overrides: Overrides,
        _ warnings: inout [String]
    ) throws -> Int {
        let name = "max_position_embeddings"
        if let given = try overrides.number(name) {
            guard let length = Int(exactly: given) else {
                throw SigmaError(.usage, "expected --override \(name)=N, found \(given)")
            }
            return length
        }
        guard case .yarn(let factor, let original, _, _, _, _) = scaling, !keys.statesContextItself,
            let scaled = yarnContext(factor: Double(factor), original: original), scaled != stated
        else { return stated }
        warnings.append(
            "with yarn the context is \(scaled), factor times original length; \(keys.architecture).context_length, "
                + "\(stated), is not used (--override \(name)=N sets a limit)")
        return scaled
    }

    /// What llama.cpp's converter makes of Llama 3's scaling: a tensor with a divisor of each pair's frequency. Nil if there is none.
    private static func ropeDivisors(_ file: GGUFParts, headDim: Int) throws -> [Float]? {
        guard let (part, tensor) = file.tensor(GGUFWeights.ropeDivisors) else { return nil }
        guard tensor.type == .f32, tensor.dimensions == [headDim / 2] else {
            throw SigmaError(
                .damaged,
                "expected F32 of dimensions [\(headDim / 2)], found \(tensor.type.name) of \(tensor.dimensions)",
                path: part.file.path, item: tensor.name, offset: UInt64(tensor.headerOffset))
        }
        let bytes = part.bytes(tensor)
        return (0..<headDim / 2).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
    }

    /// llama.cpp's way of writing it: its `attn_factor` is multiplied with yarn's own 0.1 ln(factor) + 1. Our own files have the product.
    private static func ropeScaling(
        _ file: GGUFParts, _ keys: GGUFMetadata, headDim: Int, contextLength: Int
    ) throws -> ModelConfiguration.RopeScaling {
        if let divisors = try ropeDivisors(file, headDim: headDim) { return .divided(by: divisors) }
        let factor = try keys.optionalFloat("rope.scaling.factor") ?? keys.optionalFloat("rope.scale_linear") ?? 0
        let type = try keys.optionalString("rope.scaling.type") ?? (factor == 0 ? "none" : "linear")
        switch type {
        case "none": return .none
        // Of our own files.
        case "divided": return try ModelFileMetadata.ropeScaling(keys.keys)
        case "linear": return factor == 0 || factor == 1 ? .none : .linear(factor: factor)
        case "yarn": break
        default: throw keys.failure("rope.scaling.type", "expected none, linear, yarn or divided, found '\(type)'")
        }
        for (key, standard) in [
            ("rope.scaling.yarn_log_multiplier", Float(0)), ("rope.scaling.yarn_ext_factor", 1),
            ("rope.scaling.yarn_attn_factor", 1),
        ] {
            if let value = try keys.optionalFloat(key), value != standard {
                throw keys.failure(key, "expected \(standard), found \(value)")
            }
        }
        guard factor > 0 else { throw keys.failure("rope.scaling.factor", "expected a number above 0") }
        let attention = try keys.optionalFloat("rope.scaling.attn_factor")
        return .yarn(
            factor: factor,
            originalContext: try keys.optionalInteger("rope.scaling.original_context_length") ?? contextLength,
            betaFast: try keys.optionalFloat("rope.scaling.yarn_beta_fast") ?? 32,
            betaSlow: try keys.optionalFloat("rope.scaling.yarn_beta_slow") ?? 1,
            attentionFactor: attention.flatMap { keys.family.yarnAttentionFactor(ofFile: $0, factor: factor) },
            truncate: try keys.optionalBool("rope.scaling.yarn_truncate") ?? true)
    }
}
