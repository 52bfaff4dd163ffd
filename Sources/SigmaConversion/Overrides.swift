import Sigma

/// `--override KEY=VALUE`: settles open points of a checkpoint. Keys of `config.json` stand for themselves; the others are below.
package struct Overrides: Sendable {
    /// Keys of `config.json` that all families have.
    static let commonKeys: Set<String> = [
        "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
        "moe_intermediate_size",
        "intermediate_size", "num_experts_per_tok", "norm_topk_prob", "hidden_act", "rms_norm_eps", "rope_theta",
        "rope_scaling", "max_position_embeddings", "tie_word_embeddings", "eos_token_id", "bos_token_id",
        "architectures",
    ]
    /// Ours.
    static let otherKeys: Set<String> = [
        "name", "chat.style", "chat.thinking_prompt", "chat.opens_thinking", "chat.thinks", "chat.closing_phrase",
        "chat.default_system", "chat.system_prefix", "chat.date", "chat.tools", "tokenizer.specials",
        "tokenizer.add_bos", "unknown_tensors",
    ]

    /// Keys of `config.json` that count for plain GGUF files too, whose own keys have other names.
    private static let fileKeys: Set<String> = ["rope_theta", "max_position_embeddings"]
    private static let configKeys = ModelFamilies.all.reduce(into: commonKeys) { $0.formUnion($1.overrideKeys) }

    package static let none = Overrides(values: [:])

    private let values: [String: String]

    private init(values: [String: String]) { self.values = values }

    /// - Parameter arguments: `KEY=VALUE` each.
    /// - Throws: `SigmaError` (`.usage`) for anything else, unknown keys, and keys given twice.
    package init(_ arguments: [String] = []) throws {
        var values: [String: String] = [:]
        let known = Self.configKeys.union(Self.otherKeys)
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

    /// - Throws: `SigmaError` (`.usage`) if the value is no number.
    func number(_ key: String) throws -> Double? {
        guard let text = values[key] else { return nil }
        guard let number = (try? JSONValue.parse(text))?.double else {
            throw SigmaError(.usage, "expected --override \(key)=N, found '\(text)'")
        }
        return number
    }

    /// Whether one says how turns are written, or who opens a thought.
    var settlesChat: Bool {
        ["chat.style", "chat.thinks", "chat.opens_thinking"].contains { values[$0] != nil }
    }

    /// Whether RoPE's scaling counts; nil where no override says so.
    var scalesRope: Bool? { values["rope_scaling"].map { !Self.isOff($0) } }

    private static func isOff(_ text: String) -> Bool { text == "off" || text == "false" }

    /// `config` with the overridden keys replaced. A value is JSON if it is valid JSON (`null` too), text otherwise.
    func applied(to config: JSONObject) -> JSONObject {
        var config = config
        for (key, text) in values where Self.configKeys.contains(key) {
            // A switch: the scaling itself is in the config.
            if key == "rope_scaling", text == "on" || text == "true" || Self.isOff(text) { continue }
            config.set(key, (try? JSONValue.parse(text)) ?? .string(text))
        }
        return config
    }

    /// - Parameter isNative: whether it is a native model file, in which every point is settled.
    /// - Throws: `SigmaError` (`.usage`) if there is a key that only means something for a checkpoint folder.
    func checkForFile(isNative: Bool) throws {
        var foreign = Self.configKeys.union(["tokenizer.specials"])
        if !isNative { foreign.subtract(Self.fileKeys) }
        if let key = values.keys.filter(foreign.contains).min() {
            throw SigmaError(
                .usage,
                "the override '\(key)' has no meaning for a \(isNative ? "native model" : "GGUF") file, which has no config.json"
            )
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
    func check(_ family: any ModelFamily) throws {
        let foreign = Self.configKeys.subtracting(Self.commonKeys).subtracting(family.overrideKeys)
        if let key = values.keys.filter(foreign.contains).min() {
            throw SigmaError(.usage, "the override '\(key)' has no meaning for this checkpoint")
        }
    }
}
