import Sigma

/// What tells a family of models from the others: its names, and how its checkpoints and GGUF files say what the model computes.
///
/// A new family is a new file with a type of this protocol, and its place in `ModelFamilies.all`.
package protocol ModelFamily: Sendable {
    /// In `architectures` of `config.json`. The first is what a checkpoint is called that only has a `model_type`.
    var architectures: [String] { get }
    /// `model_type` of `config.json`.
    var modelType: String { get }
    /// `general.architecture` of GGUF files.
    var ggufArchitecture: String { get }
    /// Keys of `config.json` beside the common ones that `--override` may settle.
    var overrideKeys: Set<String> { get }
    /// The turn markup, where neither a template nor the tokenizer says otherwise.
    var chatStyle: ChatFormat.Style { get }
    /// Whether a `.tiktoken` file is this family's own vocabulary.
    var readsTiktoken: Bool { get }
    /// The token that begins and ends texts, where the checkpoint names none.
    var endOfText: String? { get }

    /// The rules that a checkpoint's config states.
    ///
    /// - Throws: `SigmaError` (`.damaged`) naming the key that is missing, makes no sense, or asks for what we don't compute.
    func rules(of config: inout ConfigReader, layerCount: Int) throws -> FamilyRules
    /// Doubts about a configuration that makes sense: they become warnings.
    func doubts(about model: ModelConfiguration, _ config: ConfigReader) throws -> [String]

    /// The rules that a plain GGUF file states.
    ///
    /// - Throws: `SigmaError` (`.damaged`) naming the key.
    func rules(of keys: GGUFMetadata, layerCount: Int, hasQueryNorm: Bool) throws -> FamilyRules
    /// Yarn's factor on attention scores from GGUF's `rope.scaling.attn_factor`; nil: yarn's own.
    func yarnAttentionFactor(ofFile stated: Float, factor: Float) -> Float?
    /// Whether GGUF files have the rows of each head's q and k in pairs: row i of the first half, row i of the second.
    var interleavesRotaryRows: Bool { get }
}

extension ModelFamily {
    /// llama.cpp multiplies what the file states with yarn's own 0.1 ln(factor) + 1.
    package func yarnAttentionFactor(ofFile stated: Float, factor: Float) -> Float? {
        stated == 1 ? nil : stated * Float(yarnMagnitude(Double(factor), 1))
    }
    package var interleavesRotaryRows: Bool { false }
}

/// What families state each in their own way.
package struct FamilyRules: Sendable {
    var expertCount: Int
    /// One entry per layer; 0 marks dense layers.
    var expertsPerToken: [Int]
    var scoring: ModelConfiguration.RouterScoring
    var normalization: ModelConfiguration.WeightNormalization
    var sharedExpertCount = 0
    var routedScalingFactor: Float = 1
    /// RMSNorm on q and k.
    var qkNorm = true
    /// Whether RoPE's scaling in a config counts where no override says so.
    var scalesRope = true
}

package enum ModelFamilies {
    package static let all: [any ModelFamily] = [
        SigmaFamily(), Qwen3MoEFamily(), DenseFamily.qwen3, DenseFamily.qwen2, DenseFamily.llama,
    ]

    /// - Returns: the family, and what the config calls its architecture.
    static func family(of config: ConfigReader) throws -> (any ModelFamily, architecture: String) {
        let listed = config.value("architectures")
        let name = listed?.array?.first?.string ?? listed?.string
        let type = config.value("model_type")?.string
        for family in all {
            if let name, family.architectures.contains(name) { return (family, name) }
            if name == nil, type == family.modelType { return (family, family.architectures[0]) }
        }
        let known = all.flatMap(\.architectures)
        throw config.failure(
            "architectures",
            "expected \(known.dropLast().joined(separator: ", ")) or \(known.last!), found \(name ?? type ?? "none")")
    }
}

extension ConfigReader {
    /// Refuses attention that does not see all that came before.
    func checkFullAttention() throws {
        if try bool("use_sliding_window") == true {
            throw failure(
                "use_sliding_window", "sliding-window attention is not supported",
                remedy: "To use full attention anyway: --override use_sliding_window=false")
        }
        // Without `use_sliding_window` a layer of that kind has full attention.
        let kinds = value("layer_types")?.array?.compactMap(\.string) ?? []
        if let other = kinds.first(where: { $0 != "full_attention" && $0 != "sliding_attention" }) {
            throw failure("layer_types", "expected full_attention in every layer, found \(other)")
        }
    }

    /// `num_experts_per_tok` or an entry of a list of such numbers.
    func checkChoices(_ count: Int, of expertCount: Int, _ key: String) throws {
        guard (1...max(expertCount, 1)).contains(count) else {
            throw failure(key, "expected 1 to \(expertCount) experts, found \(count)")
        }
    }

    /// Whether the weights of the chosen experts are divided by their sum. False if nothing is said: told where it matters.
    mutating func normalizesWeights(_ expertsPerToken: [Int]) throws -> Bool {
        if let given = try bool("norm_topk_prob") { return given }
        if expertsPerToken.contains(where: { $0 > 1 }) {
            warnings.append("norm_topk_prob is missing: false is used (--override norm_topk_prob=true)")
        }
        return false
    }
}
