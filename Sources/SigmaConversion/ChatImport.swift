import Sigma

/// The chat format of a checkpoint: what its family uses, changed by `sigma_chat` in `tokenizer_config.json` and by overrides.
struct ChatImport {
    let format: ChatFormat
    private(set) var warnings: [String] = []

    /// - Throws: `SigmaError`: `.damaged` for a `sigma_chat` or `generation_config.json` that is no such thing, `.usage` for overrides.
    init(
        folder: String, _ definition: TokenizerDefinition?, _ settings: TokenizerSettings,
        _ configuration: CheckpointConfiguration, overrides: Overrides
    ) throws {
        let specials = definition.map { Self.specials($0) } ?? [:]
        var style: ChatFormat.Style = configuration.family == .sigma ? .sigma : .chatml
        if style == .sigma, specials["<|user|>"] == nil, specials["<|im_start|>"] != nil {
            style = .chatml
            warnings.append(
                "the tokenizer has <|im_start|> but no <|user|>: turns are written as chatml (--override chat.style=sigma)"
            )
        }
        if let given = overrides.text("chat.style") {
            guard let known = ChatFormat.Style(rawValue: given) else {
                throw SigmaError(.usage, "expected --override chat.style=sigma or chatml, found '\(given)'")
            }
            style = known
        }
        let markup =
            switch style {
            case .sigma: ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
            case .chatml: ["<|im_start|>", "<|im_end|>"]
            }
        let lacking = markup.filter { specials[$0] == nil }
        if definition != nil, !lacking.isEmpty {
            warnings.append(
                "the tokenizer has no \(lacking.joined(separator: ", ")): the model will only take raw text and token ids"
            )
        }

        let own = settings.json["sigma_chat"]
        func setting(_ key: String) throws -> JSONValue? {
            guard let own, !own.isNull else { return nil }
            guard own.object != nil else {
                throw SigmaError(
                    .damaged, "expected an object, found \(own.kind)", path: settings.path, item: "sigma_chat")
            }
            return own[key].flatMap { $0.isNull ? nil : $0 }
        }
        func wrong(_ key: String, _ expected: String, _ value: JSONValue) -> SigmaError {
            SigmaError(
                .damaged, "expected \(expected), found \(value.kind)", path: settings.path, item: "sigma_chat.\(key)")
        }
        func text(_ key: String, _ standard: String) throws -> String {
            if let given = overrides.text("chat." + key) { return given }
            guard let value = try setting(key) else { return standard }
            guard let text = value.string else { throw wrong(key, "a string", value) }
            return text
        }
        func flag(_ key: String, _ standard: Bool) throws -> Bool {
            if let given = try overrides.bool("chat." + key) { return given }
            guard let value = try setting(key) else { return standard }
            guard let flag = value.bool else { throw wrong(key, "true or false", value) }
            return flag
        }

        // The family's stop tokens, and whatever the checkpoint itself names.
        var stops = ((style == .sigma ? ["<|end|>"] : ["<|im_end|>"]) + ["<|endoftext|>"]).compactMap { specials[$0] }
        let listed = try configuration.endTokens + Self.generationEndTokens(folder)
        let isUnused = { (id: Int) in definition.map { id < $0.kinds.count && $0.kinds[id] == .unused } ?? false }
        for id in listed where (0..<configuration.model.vocabularySize).contains(id) && !isUnused(id) {
            stops.append(Int32(id))
        }
        if let eos = definition?.eos { stops.append(eos) }
        var unique: [Int32] = []
        for stop in stops where !unique.contains(stop) { unique.append(stop) }
        format = ChatFormat(
            style: style, opensThinking: try flag("opens_thinking", style == .sigma),
            thinkingPrompt: try text("thinking_prompt", style == .sigma ? ChatFormat.defaultThinkingPrompt : ""),
            closingPhrase: try text("closing_phrase", ChatFormat.defaultClosingPhrase), stopTokens: unique)
    }

    /// Ids of special and added tokens by text.
    private static func specials(_ definition: TokenizerDefinition) -> [String: Int32] {
        var result: [String: Int32] = [:]
        for id in 0..<definition.tokens.count where definition.kinds[id] == .control || definition.kinds[id] == .added {
            result[String(decoding: definition.tokens[id], as: UTF8.self)] = Int32(id)
        }
        return result
    }

    private static func generationEndTokens(_ folder: String) throws -> [Int] {
        let path = folder + "/generation_config.json"
        guard fileExists(path) else { return [] }
        guard let object = try JSONValue.parse(file: path).object else {
            throw SigmaError(.damaged, "expected a JSON object", path: path, offset: 0)
        }
        return try ConfigReader(config: object, path: path).integers("eos_token_id")
    }
}
