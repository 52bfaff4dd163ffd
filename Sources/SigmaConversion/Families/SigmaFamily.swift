import Sigma

/// Sigma-MoE (paper, section 2; config keys as in the authors' code).
struct SigmaFamily: ModelFamily {
    let architectures = ["SigmaForCausalLM", "SigmaV2ForCausalLM"]
    let modelType = "sigma"
    let ggufArchitecture = "sigma"
    let overrideKeys: Set<String> = [
        "n_routed_experts", "n_shared_experts", "num_experts_per_tok_layer_wise", "routed_scaling_factor",
        "scoring_func", "topk_method", "first_k_dense_replace", "qk_layernorm", "sliding_window",
    ]
    let chatStyle = ChatFormat.Style.sigma
    let readsTiktoken = true
    let endOfText: String? = "<|endoftext|>"

    // MARK: checkpoints

    func rules(of config: inout ConfigReader, layerCount: Int) throws -> FamilyRules {
        if let method = config.value("topk_method"), method.string != "noaux_tc", method.string != "greedy" {
            throw config.failure(
                "topk_method", "expected noaux_tc or greedy, found \(method.kind)",
                remedy: "If the experts are chosen by score and bias all the same: --override topk_method=noaux_tc")
        }
        if let groups = try config.integer("n_group"), groups > 1, try config.integer("topk_group") ?? groups < groups {
            throw config.failure("n_group", "choosing groups of experts first is not supported, found \(groups) groups")
        }
        let expertCount = try config.count("n_routed_experts")
        let choices = try expertsPerToken(&config, layerCount: layerCount, expertCount: expertCount)
        return FamilyRules(
            expertCount: expertCount, expertsPerToken: choices, scoring: try scoring(config),
            normalization: try config.normalizesWeights(choices) ? .whenSeveral : .never,
            sharedExpertCount: try config.integer("n_shared_experts") ?? 0,
            routedScalingFactor: Float(try config.number("routed_scaling_factor") ?? 1),
            qkNorm: try config.bool("qk_layernorm") ?? true, scalesRope: false)
    }

    private func scoring(_ config: ConfigReader) throws -> ModelConfiguration.RouterScoring {
        switch config.value("scoring_func") {
        case nil, .string("sigmoid")?: return .sigmoid
        case .string("softmax")?: return .softmax
        case let other?: throw config.failure("scoring_func", "expected sigmoid or softmax, found \(other.kind)")
        }
    }

    /// By absolute index, dense layers counted; where the list ends, the common number goes on.
    private func expertsPerToken(_ config: inout ConfigReader, layerCount: Int, expertCount: Int) throws -> [Int] {
        let common = try config.count("num_experts_per_tok")
        let key = "num_experts_per_tok_layer_wise"
        let listed = try config.integers(key)
        if listed.count > layerCount {
            config.warnings.append("\(key) has \(listed.count) entries for \(layerCount) layers; the rest is ignored")
        }
        let firstMixture = try config.integer("first_k_dense_replace") ?? 0
        guard (0...layerCount).contains(firstMixture) else {
            throw config.failure("first_k_dense_replace", "expected 0 to \(layerCount), found \(firstMixture)")
        }
        return try (0..<layerCount).map { layer in
            if layer < firstMixture { return 0 }
            let isListed = layer < listed.count
            let count = isListed ? listed[layer] : common
            try config.checkChoices(count, of: expertCount, isListed ? key : "num_experts_per_tok")
            return count
        }
    }

    func doubts(about model: ModelConfiguration, _ config: ConfigReader) throws -> [String] {
        var doubts: [String] = []
        // The paper: a context of 4K with base 10,000 before post-training, then 1,000,000.
        if model.contextLength > 4096, model.ropeTheta <= 10_000 {
            doubts.append(
                "rope_theta \(model.ropeTheta) belongs to the base model's context of 4096, but max_position_embeddings is \(model.contextLength)"
                    + " (--override rope_theta=1000000 if this is a post-trained model)")
        }
        if let window = try config.integer("sliding_window") {
            doubts.append("sliding_window \(window) is ignored: attention is full, as in the authors' code")
        }
        return doubts
    }

    // MARK: GGUF files

    func rules(of keys: GGUFMetadata, layerCount: Int, hasQueryNorm: Bool) throws -> FamilyRules {
        let gating = try keys.optionalInteger("expert_gating_func") ?? 2
        guard let scoring = UInt32(exactly: gating).flatMap(ModelConfiguration.RouterScoring.init) else {
            throw keys.failure("expert_gating_func", "expected 1 (softmax) or 2 (sigmoid), found \(gating)")
        }
        return FamilyRules(
            expertCount: try keys.optionalInteger("expert_count") ?? 0,
            expertsPerToken: try expertsPerToken(keys, layerCount: layerCount), scoring: scoring,
            normalization: try normalization(keys),
            sharedExpertCount: try keys.optionalInteger("expert_shared_count") ?? 0,
            routedScalingFactor: try keys.expertScale(),
            qkNorm: try keys.optionalBool("attention.qk_norm") ?? hasQueryNorm)
    }

    private func expertsPerToken(_ keys: GGUFMetadata, layerCount: Int) throws -> [Int] {
        if let listed = try keys.optionalIntegers("expert_used_count_per_layer") { return listed }
        let dense = try keys.optionalInteger("leading_dense_block_count") ?? 0
        let used = try keys.list("expert_used_count", layerCount: layerCount)
        return used.enumerated().map { $0 < dense ? 0 : $1 }
    }

    /// Our own files' key, or llama.cpp's.
    private func normalization(_ keys: GGUFMetadata) throws -> ModelConfiguration.WeightNormalization {
        let key = "expert_weights_normalization"
        guard let name = try keys.optionalString(key) else {
            return try keys.optionalBool("expert_weights_norm") ?? false ? .whenSeveral : .never
        }
        guard let rule = ModelConfiguration.WeightNormalization(rawValue: name) else {
            throw keys.failure(key, "expected never, when-several or always, found '\(name)'")
        }
        return rule
    }

    /// Our files have the whole factor.
    func yarnAttentionFactor(ofFile stated: Float, factor: Float) -> Float? { stated }
}
