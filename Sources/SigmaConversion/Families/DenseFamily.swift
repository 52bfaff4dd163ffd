import Sigma

/// Models all of whose layers are dense: Llama, Qwen2 and Qwen3. They differ in q/k/v biases and q/k norms, which their tensors show, and in how
/// GGUF files order the rows of q and k.
struct DenseFamily: ModelFamily {
    let architectures: [String]
    let modelType: String
    let ggufArchitecture: String
    let interleavesRotaryRows: Bool
    private let qkNorm: Bool
    let overrideKeys: Set<String> = ["use_sliding_window"]
    let chatStyle: ChatFormat.Style
    let readsTiktoken = false
    let endOfText: String? = nil

    static let llama = DenseFamily(
        architectures: ["LlamaForCausalLM"], modelType: "llama", ggufArchitecture: "llama", interleavesRotaryRows: true,
        qkNorm: false, chatStyle: .llama3)
    static let qwen2 = DenseFamily(
        architectures: ["Qwen2ForCausalLM"], modelType: "qwen2", ggufArchitecture: "qwen2",
        interleavesRotaryRows: false, qkNorm: false, chatStyle: .chatml)
    static let qwen3 = DenseFamily(
        architectures: ["Qwen3ForCausalLM"], modelType: "qwen3", ggufArchitecture: "qwen3",
        interleavesRotaryRows: false, qkNorm: true, chatStyle: .chatml)

    // MARK: checkpoints

    func rules(of config: inout ConfigReader, layerCount: Int) throws -> FamilyRules {
        try config.checkFullAttention()
        return .dense(layerCount: layerCount, qkNorm: qkNorm)
    }

    func doubts(about model: ModelConfiguration, _ config: ConfigReader) -> [String] { [] }

    // MARK: GGUF files

    func rules(of keys: GGUFMetadata, layerCount: Int, hasQueryNorm: Bool) throws -> FamilyRules {
        // Mixtral's files have the architecture `llama` too.
        let experts = try keys.optionalInteger("expert_count") ?? 0
        guard experts == 0 else {
            throw keys.failure(
                "expert_count", "expected no experts in a model of \(ggufArchitecture), found \(experts)")
        }
        return .dense(layerCount: layerCount, qkNorm: qkNorm)
    }
}

extension FamilyRules {
    fileprivate static func dense(layerCount: Int, qkNorm: Bool) -> FamilyRules {
        FamilyRules(
            expertCount: 0, expertsPerToken: Array(repeating: 0, count: layerCount), scoring: .softmax,
            normalization: .never, qkNorm: qkNorm)
    }
}
