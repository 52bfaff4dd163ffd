import Sigma
import SystemLibrary

/// What `config.json` (with overrides) and the tensors' shapes say about a model, with every open point settled.
package struct CheckpointConfiguration: Sendable {
    package enum Family: Sendable {
        case sigma
        case qwen3MoE
    }

    package let family: Family
    /// The first of `architectures`.
    package let architecture: String
    package let model: ModelConfiguration
    /// End-of-text tokens that the config names.
    package let endTokens: [Int]
    package let bosToken: Int?
    /// Choices that the user should know of; each once.
    package let warnings: [String]

    /// - Throws: `SigmaError`: `.damaged` naming the key, with the override that settles it where one does; `.usage` for overrides that
    ///   have no meaning here.
    package init(_ checkpoint: Checkpoint, overrides: Overrides) throws {
        var reader = ConfigReader(config: overrides.applied(to: checkpoint.config), path: checkpoint.configPath)
        (family, architecture) = try Self.family(reader)
        try overrides.check(isQwen: family == .qwen3MoE)
        try Self.refuseUnsupported(reader, family)

        // Shapes win over the config: they cannot be stale.
        let embedding = try Self.shape(checkpoint, "model.embed_tokens.weight")
        let query = try Self.shape(checkpoint, "model.layers.0.self_attn.q_proj.weight")
        let headCount = try reader.count("num_attention_heads")
        guard query[0] % headCount == 0 else {
            throw reader.failure(
                "num_attention_heads", "\(query[0]) rows of q_proj are no multiple of \(headCount) heads")
        }
        let headDim = query[0] / headCount
        try reader.warnIfDifferent(
            "vocab_size", from: embedding[0], "the embedding has \(embedding[0]) rows; these count")
        try reader.warnIfDifferent("head_dim", from: headDim, "q_proj has \(query[0]) rows, so it is \(headDim)")

        let layerCount = try reader.count("num_hidden_layers")
        // Before any list of that length is made.
        guard layerCount <= 1024 else {
            throw reader.failure("num_hidden_layers", "expected at most 1024, found \(layerCount)")
        }
        let expertCount = try reader.count(
            family == .sigma
                ? "n_routed_experts" : reader.has("num_local_experts") ? "num_local_experts" : "num_experts")
        let perLayer = try Self.expertsPerToken(&reader, family, layerCount: layerCount, expertCount: expertCount)
        let normalises: Bool
        if let given = try reader.bool("norm_topk_prob") {
            normalises = given
        } else {
            normalises = false
            if perLayer.contains(where: { $0 > 1 }) {
                reader.warnings.append("norm_topk_prob is missing: false is used (--override norm_topk_prob=true)")
            }
        }
        let contextLength = try reader.integer("max_position_embeddings") ?? 4096
        let (theta, scaling) = try Self.rope(
            &reader, family, turnedOn: overrides.text("rope_scaling").map { $0 != "off" } ?? (family == .qwen3MoE),
            contextLength: contextLength)
        if family == .sigma {
            // The paper: a context of 4K with base 10,000 before post-training, then 1,000,000.
            if contextLength > 4096, theta <= 10_000 {
                reader.warnings.append(
                    "rope_theta \(theta) belongs to the base model's context of 4096, but max_position_embeddings is \(contextLength)"
                        + " (--override rope_theta=1000000 if this is a post-trained model)")
            }
            if let window = try reader.integer("sliding_window") {
                reader.warnings.append(
                    "sliding_window \(window) is ignored: attention is full, as in the authors' code")
            }
        }
        let tied = try reader.bool("tie_word_embeddings") ?? false
        if !tied, checkpoint.tensor("lm_head.weight") == nil {
            reader.warnings.append("there is no lm_head.weight: the embedding is the output head")
        }
        if !reader.has("rms_norm_eps") { reader.warnings.append("rms_norm_eps is missing: 1e-6 is used") }

        let hiddenSize = try reader.count("hidden_size")
        let moeIntermediateSize = try reader.count("moe_intermediate_size")
        model = ModelConfiguration(
            vocabularySize: embedding[0], hiddenSize: hiddenSize, layerCount: layerCount, headCount: headCount,
            kvHeadCount: try reader.integer("num_key_value_heads") ?? headCount, headDim: headDim,
            expertCount: expertCount, expertIntermediateSize: moeIntermediateSize,
            sharedExpertCount: family == .sigma ? try reader.integer("n_shared_experts") ?? 0 : 0,
            denseIntermediateSize: perLayer.contains(0) ? try reader.count("intermediate_size") : 0,
            expertsPerToken: perLayer, scoring: try Self.scoring(reader, family),
            weightNormalization: !normalises ? .never : family == .sigma ? .whenSeveral : .always,
            routedScalingFactor: family == .sigma ? Float(try reader.number("routed_scaling_factor") ?? 1) : 1,
            qkNorm: family == .sigma ? try reader.bool("qk_layernorm") ?? true : true,
            rmsNormEpsilon: Float(try reader.number("rms_norm_eps") ?? 1e-6), ropeTheta: theta, ropeScaling: scaling,
            contextLength: contextLength, tiedEmbeddings: tied || checkpoint.tensor("lm_head.weight") == nil)
        if let problem = model.problem { throw SigmaError(.damaged, problem, path: checkpoint.configPath) }
        endTokens = try reader.integers("eos_token_id")
        bosToken = try reader.integer("bos_token_id")
        warnings = reader.warnings
    }

    private static func family(_ reader: ConfigReader) throws -> (Family, String) {
        let name = reader.value("architectures")?.array?.first?.string ?? reader.value("architectures")?.string
        let type = reader.value("model_type")?.string
        switch name ?? type {
        case "SigmaForCausalLM"?, "SigmaV2ForCausalLM"?, "sigma"?: return (.sigma, name ?? "SigmaForCausalLM")
        case "Qwen3MoeForCausalLM"?, "qwen3_moe"?: return (.qwen3MoE, name ?? "Qwen3MoeForCausalLM")
        default:
            throw reader.failure(
                "architectures",
                "expected SigmaForCausalLM, SigmaV2ForCausalLM or Qwen3MoeForCausalLM, found \(name ?? type ?? "none")")
        }
    }

    /// Anything that would compute something else than we do.
    private static func refuseUnsupported(_ reader: ConfigReader, _ family: Family) throws {
        if let activation = reader.value("hidden_act"), activation.string != "silu" {
            throw reader.failure("hidden_act", "expected silu, found \(activation.kind)")
        }
        if reader.has("quantization_config") {
            throw reader.failure("quantization_config", "quantized checkpoints are not read; convert the original one")
        }
        if let share = try reader.number("partial_rotary_factor"), share != 1 {
            throw reader.failure("partial_rotary_factor", "expected 1, found \(share)")
        }
        if family == .qwen3MoE {
            if try reader.bool("use_sliding_window") == true {
                throw reader.failure(
                    "use_sliding_window", "sliding-window attention is not supported",
                    remedy: "For full attention all the same: --override use_sliding_window=false")
            }
            return
        }
        if let method = reader.value("topk_method"), method.string != "noaux_tc", method.string != "greedy" {
            throw reader.failure(
                "topk_method", "expected noaux_tc or greedy, found \(method.kind)",
                remedy: "If the experts are chosen by score and bias all the same: --override topk_method=noaux_tc")
        }
        if let groups = try reader.integer("n_group"), groups > 1, try reader.integer("topk_group") ?? groups < groups {
            throw reader.failure("n_group", "choosing groups of experts first is not supported, found \(groups) groups")
        }
    }

    private static func shape(_ checkpoint: Checkpoint, _ name: String) throws -> [Int] {
        guard let tensor = checkpoint.tensor(name) else { throw checkpoint.missing(name) }
        guard tensor.shape.count == 2, tensor.shape.allSatisfy({ $0 > 0 }) else {
            throw tensor.failure("expected a matrix, found shape \(tensor.shape)")
        }
        return tensor.shape
    }

    private static func scoring(_ reader: ConfigReader, _ family: Family) throws -> ModelConfiguration.RouterScoring {
        if family == .qwen3MoE { return .softmax }
        switch reader.value("scoring_func") {
        case nil, .string("sigmoid")?: return .sigmoid
        case .string("softmax")?: return .softmax
        case let other?: throw reader.failure("scoring_func", "expected sigmoid or softmax, found \(other.kind)")
        }
    }

    /// One entry per layer; 0 marks dense layers.
    private static func expertsPerToken(
        _ reader: inout ConfigReader, _ family: Family, layerCount: Int, expertCount: Int
    ) throws -> [Int] {
        let common = try reader.count("num_experts_per_tok")
        func check(_ count: Int, _ key: String) throws {
            guard (1...max(expertCount, 1)).contains(count) else {
                throw reader.failure(key, "expected 1 to \(expertCount) experts, found \(count)")
            }
        }
        if family == .qwen3MoE {
            let dense = try reader.integers("mlp_only_layers")
            let step = try reader.integer("decoder_sparse_step") ?? 1
            guard step >= 1 else { throw reader.failure("decoder_sparse_step", "expected 1 or more, found \(step)") }
            try check(common, "num_experts_per_tok")
            return (0..<layerCount).map { dense.contains($0) || ($0 + 1) % step != 0 ? 0 : common }
        }
        // By absolute index, dense layers counted; where the list ends, the common number goes on.
        let key = "num_experts_per_tok_layer_wise"
        let listed = try reader.integers(key)
        if listed.count > layerCount {
            reader.warnings.append("\(key) has \(listed.count) entries for \(layerCount) layers; the rest is ignored")
        }
        let firstMixture = try reader.integer("first_k_dense_replace") ?? 0
        guard (0...layerCount).contains(firstMixture) else {
            throw reader.failure("first_k_dense_replace", "expected 0 to \(layerCount), found \(firstMixture)")
        }
        return try (0..<layerCount).map { layer in
            if layer < firstMixture { return 0 }
            let isListed = layer < listed.count
            let count = isListed ? listed[layer] : common
            try check(count, isListed ? key : "num_experts_per_tok")
            return count
        }
    }

    /// RoPE's base and scaling. Newer transformers write both into `rope_parameters`.
    private static func rope(
        _ reader: inout ConfigReader, _ family: Family, turnedOn: Bool, contextLength: Int
    ) throws -> (Float, ModelConfiguration.RopeScaling) {
        let parameters = reader.value("rope_parameters")
        let section = reader.value("rope_scaling") != nil ? "rope_scaling" : "rope_parameters"
        let inner = parameters?["rope_theta"]?.double
        let outer = try reader.number("rope_theta")
        if let inner, let outer, inner != outer {
            reader.warnings.append("rope_theta is \(outer), but rope_parameters say \(inner); \(outer) is used")
        }
        if inner == nil, outer == nil { reader.warnings.append("rope_theta is missing: 10000 is used") }
        let theta = Float(outer ?? inner ?? 10_000)

        guard let scaling = reader.value("rope_scaling") ?? parameters else { return (theta, .none) }
        guard scaling.object != nil else { throw reader.failure(section, "expected an object, found \(scaling.kind)") }
        let kind = (scaling["rope_type"] ?? scaling["type"])?.string ?? "default"
        if kind == "default" { return (theta, .none) }
        guard turnedOn else {
            reader.warnings.append(
                "\(section) (\(kind)) is ignored, as in the authors' code (--override rope_scaling=on turns it on)")
            return (theta, .none)
        }
        func number(_ key: String) throws -> Double? {
            guard let value = scaling[key], !value.isNull else { return nil }
            guard let number = value.double else {
                throw reader.failure("\(section).\(key)", "expected a number, found \(value.kind)")
            }
            return number
        }
        guard kind == "linear" || kind == "yarn" else {
            throw reader.failure(section, "expected linear or yarn, found \(kind)")
        }
        guard let factor = try number("factor"), factor > 0 else {
            throw reader.failure("\(section).factor", "expected a number above 0")
        }
        if kind == "linear" { return (theta, .linear(factor: Float(factor))) }
        let original = try number("original_max_position_embeddings") ?? Double(contextLength)
        guard let originalContext = Int(exactly: original) else {
            throw reader.failure(
                "\(section).original_max_position_embeddings", "expected an integer, found \(original)")
        }
        var attention = try number("attention_factor")
        if attention == nil, let over = try number("mscale"), let under = try number("mscale_all_dim"), over != 0,
            under != 0
        {
            attention = yarnMagnitude(factor, over) / yarnMagnitude(factor, under)
        }
        if let truncate = scaling["truncate"], truncate.bool == nil {
            throw reader.failure("\(section).truncate", "expected true or false, found \(truncate.kind)")
        }
        return (
            theta,
            .yarn(
                factor: Float(factor), originalContext: originalContext, betaFast: Float(try number("beta_fast") ?? 32),
                betaSlow: Float(try number("beta_slow") ?? 1), attentionFactor: attention.map { Float($0) },
                truncate: scaling["truncate"]?.bool ?? true)
        )
    }
}

/// yarn's factor on attention scores, as its authors have it.
func yarnMagnitude(_ factor: Double, _ weight: Double) -> Double {
    factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1
}

/// Typed access to a config's keys, with errors that name the key. `null` counts as absent.
struct ConfigReader {
    let config: JSONObject
    let path: String
    var warnings: [String] = []

    init(config: JSONObject, path: String) {
        self.config = config
        self.path = path
    }

    func failure(_ key: String, _ message: String, remedy: String? = nil) -> SigmaError {
        SigmaError(.damaged, message, path: path, item: key, remedy: remedy)
    }

    func value(_ key: String) -> JSONValue? { config[key].flatMap { $0.isNull ? nil : $0 } }
    func has(_ key: String) -> Bool { value(key) != nil }

    func integer(_ key: String) throws -> Int? {
        guard let value = value(key) else { return nil }
        guard let integer = value.integer else { throw failure(key, "expected an integer, found \(value.kind)") }
        return Int(integer)
    }
    /// A number that must be there, from 1 to 2^31 - 1.
    func count(_ key: String) throws -> Int {
        guard let value = try integer(key) else {
            throw failure(key, "the key is missing", remedy: "Give it with --override \(key)=N")
        }
        guard (1...Int(Int32.max)).contains(value) else {
            throw failure(key, "expected a number from 1 to \(Int32.max), found \(value)")
        }
        return value
    }
    func number(_ key: String) throws -> Double? {
        guard let value = value(key) else { return nil }
        guard let number = value.double else { throw failure(key, "expected a number, found \(value.kind)") }
        return number
    }
    func bool(_ key: String) throws -> Bool? {
        guard let value = value(key) else { return nil }
        guard let bool = value.bool else { throw failure(key, "expected true or false, found \(value.kind)") }
        return bool
    }
    /// A list of integers, one integer, or nothing.
    func integers(_ key: String) throws -> [Int] {
        guard let value = value(key) else { return [] }
        if let one = value.integer { return [Int(one)] }
        guard let list = value.array else { throw failure(key, "expected integers, found \(value.kind)") }
        return try list.map { item in
            guard let integer = item.integer else { throw failure(key, "expected integers, found \(item.kind)") }
            return Int(integer)
        }
    }
    mutating func warnIfDifferent(_ key: String, from actual: Int, _ reason: String) throws {
        if let value = try integer(key), value != actual { warnings.append("\(key) is \(value), but \(reason)") }
    }
}
