import Sigma

/// Qwen3-MoE: a softmax router whose weights are normalised at one expert too.
struct Qwen3MoEFamily: ModelFamily {
    let architectures = ["Qwen3MoeForCausalLM"]
    let modelType = "qwen3_moe"
    let ggufArchitecture = "qwen3moe"
    let overrideKeys: Set<String> = ["num_experts", "mlp_only_layers", "decoder_sparse_step", "use_sliding_window"]
    let chatStyle = ChatFormat.Style.chatml
    let readsTiktoken = false
    let endOfText: String? = nil

    // MARK: checkpoints

    func rules(of config: inout ConfigReader, layerCount: Int) throws -> FamilyRules {
        try config.checkFullAttention()
        let expertCount = try config.count(config.has("num_local_experts") ? "num_local_experts" : "num_experts")
        let common = try config.count("num_experts_per_tok")
        let dense = try config.integers("mlp_only_layers")
        let step = try config.integer("decoder_sparse_step") ?? 1
        guard step >= 1 else { throw config.failure("decoder_sparse_step", "expected 1 or more, found \(step)") }
        try config.checkChoices(common, of: expertCount, "num_experts_per_tok")
        let choices = (0..<layerCount).map { dense.contains($0) || ($0 + 1) % step != 0 ? 0 : common }
        return FamilyRules(
            expertCount: expertCount, expertsPerToken: choices, scoring: .softmax,
            normalization: try config.normalizesWeights(choices) ? .always : .never)
    }

    func doubts(about model: ModelConfiguration, _ config: ConfigReader) -> [String] { [] }

    // MARK: GGUF files

    /// llama.cpp computes softmax and normalised weights whatever the keys say; a file that says otherwise was made for something else.
    func rules(of keys: GGUFMetadata, layerCount: Int, hasQueryNorm: Bool) throws -> FamilyRules {
        let gating = try keys.optionalInteger("expert_gating_func") ?? 1
        guard gating == 1 else {
            throw keys.failure("expert_gating_func", "expected 1 (softmax) for qwen3moe, found \(gating)")
        }
        guard try keys.optionalBool("expert_weights_norm") ?? true else {
            throw keys.failure("expert_weights_norm", "expected true for qwen3moe, found false")
        }
        let used = try keys.list("expert_used_count", layerCount: layerCount)
        if let bad = used.first(where: { $0 < 1 }) {
            throw keys.failure("expert_used_count", "expected 1 or more, found \(bad)")
        }
        return FamilyRules(
            expertCount: try keys.optionalInteger("expert_count") ?? 0, expertsPerToken: used, scoring: .softmax,
            normalization: .always, routedScalingFactor: try keys.expertScale())
    }
}
