import Sigma

/// What the metadata and the tensors' shapes of a plain GGUF file say about a model: llama.cpp's keys for `qwen3moe`, the same keys and a few
/// more (those of our own files) for `sigma`.
package struct GGUFConfiguration: Sendable {
    package static let architectures = ["qwen3moe", "sigma"]

    package let architecture: String
    package let model: ModelConfiguration
    /// Choices that the user should know of; each once.
    package private(set) var warnings: [String] = []

    /// - Throws: `SigmaError` (`.damaged`) naming the key that is missing, makes no sense, or asks for what we don't compute.
    package init(_ file: GGUFParts) throws {
        let keys = try MetadataReader(file.first)
        architecture = keys.architecture
        let isSigma = architecture == "sigma"
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
        let expertCount = try keys.optionalInteger("expert_count") ?? 0
        let perLayer = try Self.expertsPerToken(keys, layerCount: layerCount)
        let dense = try keys.optionalUniform("feed_forward_length", layerCount: layerCount) ?? 0
        // llama.cpp's rule where the experts' own width is missing.
        let intermediate =
            try keys.optionalUniform("expert_feed_forward_length", layerCount: layerCount)
            ?? dense / max(1, perLayer.max() ?? 1)
        let contextLength = try keys.integer("context_length")
        let (scoring, normalization) = try Self.router(keys)
        var scale = try keys.optionalFloat("expert_weights_scale") ?? 1
        // llama.cpp's own mark for "none".
        if scale == 0 { scale = 1 }
        let hasQueryNorm = file.tensor(ModelFileFormat.name(.layer(0, .queryNorm))) != nil
        model = ModelConfiguration(
            vocabularySize: try Self.vocabularySize(file), hiddenSize: hiddenSize, layerCount: layerCount,
            headCount: headCount,
            kvHeadCount: try keys.optionalUniform("attention.head_count_kv", layerCount: layerCount) ?? headCount,
            headDim: headDim, expertCount: expertCount, expertIntermediateSize: intermediate,
            sharedExpertCount: isSigma ? try keys.optionalInteger("expert_shared_count") ?? 0 : 0,
            denseIntermediateSize: perLayer.contains(0) ? dense : 0, expertsPerToken: perLayer, scoring: scoring,
            weightNormalization: normalization, routedScalingFactor: scale,
            qkNorm: isSigma ? try keys.optionalBool("attention.qk_norm") ?? hasQueryNorm : true,
            rmsNormEpsilon: try keys.float("attention.layer_norm_rms_epsilon"),
            ropeTheta: try keys.optionalFloat("rope.freq_base") ?? 10_000,
            ropeScaling: try Self.ropeScaling(keys, contextLength: contextLength), contextLength: contextLength,
            tiedEmbeddings: file.tensor(ModelFileFormat.head) == nil)
        if let problem = model.problem {
            throw SigmaError(.damaged, "the configuration makes no sense: \(problem)", path: file.path)
        }
        let unknown = keys.unknown(Self.knownKeys)
        if !unknown.isEmpty {
            warnings.append("keys that mean nothing here are ignored: \(unknown.joined(separator: ", "))")
        }
        if model.tiedEmbeddings { warnings.append("there is no output.weight: the embedding is the output head") }
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
        "tied_embeddings", "source_architecture",
    ]

    /// The embedding's rows: they cannot be stale.
    private static func vocabularySize(_ file: GGUFParts) throws -> Int {
        guard let embedding = file.tensor(ModelFileFormat.embedding)?.tensor else {
            throw SigmaError(.damaged, "the tensor is missing", path: file.path, item: ModelFileFormat.embedding)
        }
        return embedding.dimensions.count >= 2 ? embedding.dimensions[1] : 1
    }

    /// One entry per layer; 0 marks dense layers.
    private static func expertsPerToken(_ keys: MetadataReader, layerCount: Int) throws -> [Int] {
        if keys.architecture == "sigma", let listed = try keys.optionalIntegers("expert_used_count_per_layer") {
            return listed
        }
        let dense = keys.architecture == "sigma" ? try keys.optionalInteger("leading_dense_block_count") ?? 0 : 0
        let used = try keys.list("expert_used_count", layerCount: layerCount)
        if keys.architecture == "qwen3moe", let bad = used.first(where: { $0 < 1 }) {
            throw keys.failure("expert_used_count", "expected 1 or more, found \(bad)")
        }
        return used.enumerated().map { $0 < dense ? 0 : $1 }
    }

    private static func router(
        _ keys: MetadataReader
    ) throws -> (ModelConfiguration.RouterScoring, ModelConfiguration.WeightNormalization) {
        let gating = try keys.optionalInteger("expert_gating_func")
        let normalizes = try keys.optionalBool("expert_weights_norm")
        guard keys.architecture == "sigma" else {
            // llama.cpp computes these whatever the keys say; a file that says otherwise was made for something else.
            guard gating ?? 1 == 1 else {
                throw keys.failure("expert_gating_func", "expected 1 (softmax) for qwen3moe, found \(gating!)")
            }
            guard normalizes ?? true else {
                throw keys.failure("expert_weights_norm", "expected true for qwen3moe, found false")
            }
            return (.softmax, .always)
        }
        guard let scoring = UInt32(exactly: gating ?? 2).flatMap(ModelConfiguration.RouterScoring.init) else {
            throw keys.failure("expert_gating_func", "expected 1 (softmax) or 2 (sigmoid), found \(gating!)")
        }
        if let name = try keys.optionalString("expert_weights_normalization") {
            guard let rule = ModelConfiguration.WeightNormalization(rawValue: name) else {
                throw keys.failure(
                    "expert_weights_normalization", "expected never, when-several or always, found '\(name)'")
            }
            return (scoring, rule)
        }
        return (scoring, normalizes ?? false ? .whenSeveral : .never)
    }

    /// llama.cpp's way of writing it: its `attn_factor` is multiplied with yarn's own 0.1 ln(factor) + 1. Our own files have the product.
    private static func ropeScaling(
        _ keys: MetadataReader, contextLength: Int
    ) throws -> ModelConfiguration.RopeScaling {
        let factor = try keys.optionalFloat("rope.scaling.factor") ?? keys.optionalFloat("rope.scale_linear") ?? 0
        let type = try keys.optionalString("rope.scaling.type") ?? (factor == 0 ? "none" : "linear")
        switch type {
        case "none": return .none
        case "linear": return factor == 0 || factor == 1 ? .none : .linear(factor: factor)
        case "yarn": break
        default: throw keys.failure("rope.scaling.type", "expected none, linear or yarn, found '\(type)'")
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
        let isOurs = keys.architecture == "sigma"
        return .yarn(
            factor: factor,
            originalContext: try keys.optionalInteger("rope.scaling.original_context_length") ?? contextLength,
            betaFast: try keys.optionalFloat("rope.scaling.yarn_beta_fast") ?? 32,
            betaSlow: try keys.optionalFloat("rope.scaling.yarn_beta_slow") ?? 1,
            attentionFactor: isOurs
                ? attention : attention.flatMap { $0 == 1 ? nil : $0 * Float(yarnMagnitude(Double(factor), 1)) },
            truncate: try keys.optionalBool("rope.scaling.yarn_truncate") ?? true)
    }
}

/// Keys of a model's architecture, some of which may be absent.
private struct MetadataReader {
    let keys: KeyReader
    let architecture: String

    init(_ file: GGUFFile) throws {
        keys = KeyReader(file: file)
        architecture = try keys.string("general.architecture")
        guard GGUFConfiguration.architectures.contains(architecture) else {
            throw keys.failure(
                "general.architecture",
                "expected a model of architecture \(GGUFConfiguration.architectures.joined(separator: " or ")), found '\(architecture)'"
            )
        }
    }

    private func full(_ key: String) -> String { architecture + "." + key }
    func failure(_ key: String, _ message: String) -> SigmaError { keys.failure(full(key), message) }

    func integer(_ key: String) throws -> Int { try keys.integer(full(key)) }
    func float(_ key: String) throws -> Float { try keys.float(full(key)) }
    func optionalInteger(_ key: String) throws -> Int? { keys.has(full(key)) ? try keys.integer(full(key)) : nil }
    func optionalFloat(_ key: String) throws -> Float? { keys.has(full(key)) ? try keys.float(full(key)) : nil }
    func optionalBool(_ key: String) throws -> Bool? { keys.has(full(key)) ? try keys.bool(full(key)) : nil }
    func optionalString(_ key: String) throws -> String? { keys.has(full(key)) ? try keys.string(full(key)) : nil }
    func optionalIntegers(_ key: String) throws -> [Int]? { keys.has(full(key)) ? try keys.integers(full(key)) : nil }

    /// One number, or an array with one for each layer.
    func list(_ key: String, layerCount: Int) throws -> [Int] {
        guard keys.file[full(key)]?.array != nil else { return Array(repeating: try integer(key), count: layerCount) }
        let list = try keys.integers(full(key))
        guard list.count == layerCount else {
            throw failure(key, "expected \(layerCount) entries, one for each layer, found \(list.count)")
        }
        return list
    }
    /// One number, or an array that says the same for each layer.
    func uniform(_ key: String, layerCount: Int) throws -> Int {
        let list = try list(key, layerCount: layerCount)
        guard let other = list.first(where: { $0 != list[0] }) else { return list[0] }
        throw failure(key, "expected the same number for all layers, found \(list[0]) and \(other)")
    }
    func optionalUniform(_ key: String, layerCount: Int) throws -> Int? {
        keys.has(full(key)) ? try uniform(key, layerCount: layerCount) : nil
    }

    /// At most a few names, for a message.
    func unknown(_ known: Set<String>) -> [String] {
        let prefix = architecture + "."
        let names = keys.file.entries.lazy.map(\.key).filter {
            $0.hasPrefix(prefix) && !known.contains(String($0.dropFirst(prefix.count)))
                && !$0.hasPrefix(prefix + "tokenizer.") && !$0.hasPrefix(prefix + "chat.")
        }
        return Array(names.prefix(8))
    }
}
