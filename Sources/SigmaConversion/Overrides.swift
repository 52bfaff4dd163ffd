import Sigma

/// `--override KEY=VALUE`: settles open points of a checkpoint. Keys of `config.json` stand for themselves; the others are below.
package struct Overrides: Sendable {
    /// Keys of `config.json` for each family of models.
    static let commonKeys: Set<String> = [
        "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
        "moe_intermediate_size",
        "intermediate_size", "num_experts_per_tok", "norm_topk_prob", "hidden_act", "rms_norm_eps", "rope_theta",
        "rope_scaling", "max_position_embeddings", "tie_word_embeddings", "eos_token_id", "bos_token_id",
        "architectures",
    ]
    static let sigmaKeys: Set<String> = [
        "n_routed_experts", "n_shared_experts", "num_experts_per_tok_layer_wise", "routed_scaling_factor",
        "scoring_func",
        "topk_method", "first_k_dense_replace", "qk_layernorm", "sliding_window",
    ]
    static let qwenKeys: Set<String> = ["num_experts", "mlp_only_layers", "decoder_sparse_step", "use_sliding_window"]
    /// Ours.
    static let otherKeys: Set<String> = [
        "name", "chat.style", "chat.thinking_prompt", "chat.opens_thinking", "chat.closing_phrase",
        "tokenizer.specials",
        "tokenizer.add_bos", "unknown_tensors",
    ]

    private let values: [String: String]

    /// - Parameter arguments: `KEY=VALUE` each.
    /// - Throws: `SigmaError` (`.usage`) for anything else, unknown keys, and keys given twice.
    package init(_ arguments: [String] = []) throws {
        var values: [String: String] = [:]
        let known = Self.commonKeys.union(Self.sigmaKeys).union(Self.qwenKeys).union(Self.otherKeys)
        for argument in arguments {
            guard let equals = argument.firstIndex(of: "=") else {
                throw SigmaError(.usage, "expected --override KEY=VALUE, found '\(argument)'")
            }
            let key = String(argument[..<equals])
            guard known.contains(key) else {
                throw SigmaError(
                    .usage, "there is no override '\(key)'",
                    remedy: "Known keys: \(known.sorted().joined(separator: ", "))")
            }
            guard values.updateValue(String(argument[argument.index(after: equals)...]), forKey: key) == nil else {
                throw SigmaError(.usage, "the override '\(key)' is given twice")
            }
        }
        self.values = values
    }

    package func text(_ key: String) -> String? { values[key] }

    /// - Throws: `SigmaError` (`.usage`) if the value is neither true nor false.
    package func bool(_ key: String) throws -> Bool? {
        switch values[key] {
        case nil: nil
        case "true", "on", "yes", "1": true
        case "false", "off", "no", "0": false
        case let other?: throw SigmaError(.usage, "expected --override \(key)=true or false, found '\(other)'")
        }
    }

    /// `config` with the overridden keys replaced. A value is JSON if it is valid JSON (`null` too), text otherwise.
    func applied(to config: JSONObject) -> JSONObject {
        var config = config
        let keys = Self.commonKeys.union(Self.sigmaKeys).union(Self.qwenKeys)
        for (key, text) in values where keys.contains(key) {
            // `rope_scaling=on` is a switch: the scaling itself stands in the config.
            if key == "rope_scaling", text == "on" || text == "true" { continue }
            if key == "rope_scaling", text == "off" || text == "false" {
                for name in ["rope_scaling", "rope_parameters"] { config.set(name, Self.withoutScaling(config[name])) }
                continue
            }
            config.set(key, (try? JSONValue.parse(text)) ?? .string(text))
        }
        return config
    }

    /// Newer configs keep RoPE's base beside the scaling.
    private static func withoutScaling(_ value: JSONValue?) -> JSONValue {
        var result = JSONObject()
        guard let theta = value?["rope_theta"] else { return .null }
        result.set("rope_theta", theta)
        return .object(result)
    }

    /// - Throws: `SigmaError` (`.usage`) if there is a key that only means something for a checkpoint folder.
    func checkForFile() throws {
        let foreign = Self.commonKeys.union(Self.sigmaKeys).union(Self.qwenKeys).union(["tokenizer.specials"])
        if let key = values.keys.filter(foreign.contains).min() {
            throw SigmaError(.usage, "the override '\(key)' has no meaning for a GGUF file, which has no config.json")
        }
    }

    /// Whether tensors that have no place in the model are left out.
    ///
    /// - Throws: `SigmaError` (`.usage`) for a value that is neither `ignore` nor `refuse`.
    func ignoresUnknownTensors() throws -> Bool {
        switch text("unknown_tensors") {
        case nil, "refuse"?: return false
        case "ignore"?: return true
        case let other?:
            throw SigmaError(.usage, "expected --override unknown_tensors=ignore or refuse, found '\(other)'")
        }
    }

    /// - Throws: `SigmaError` (`.usage`) if there is a key of the config that models of this family don't have.
    func check(isQwen: Bool) throws {
        let foreign = isQwen ? Self.sigmaKeys : Self.qwenKeys
        if let key = values.keys.filter(foreign.contains).min() {
            throw SigmaError(.usage, "the override '\(key)' has no meaning for this checkpoint")
        }
    }
}
