import Sigma

/// The chat format of a model: what its family uses, changed by what the source says and by overrides.
struct ChatImport {
    let format: ChatFormat
    private(set) var warnings: [String] = []

    /// What a source says about chats.
    struct Facts {
        /// The style and its usual settings, or those that the source states.
        var standard: ChatFormat
        /// Whether the source states the style itself, so that it is not to be doubted.
        var isStated = false
        /// An object of the source with settings of its own (`sigma_chat`), and where it is.
        var own: JSONValue?
        var ownPath = ""
        /// Ids at which generation ends, as the source lists them; some may be no tokens.
        var endTokens: [Int] = []

        /// What a family of models does.
        static func usual(_ style: ChatFormat.Style) -> ChatFormat {
            ChatFormat(
                style: style, opensThinking: style == .sigma,
                thinkingPrompt: style == .sigma ? ChatFormat.defaultThinkingPrompt : "",
                closingPhrase: ChatFormat.defaultClosingPhrase, stopTokens: [])
        }
    }

    /// - Throws: `SigmaError`: `.damaged` for settings that are none, `.usage` for overrides.
    init(
        _ facts: Facts, _ definition: TokenizerDefinition?, vocabularySize: Int, overrides: Overrides
    ) throws {
        let specials = definition.map { Self.specials($0) } ?? [:]
        var standard = facts.standard
        if !facts.isStated, standard.style == .sigma, specials["<|user|>"] == nil, specials["<|im_start|>"] != nil {
            standard = Facts.usual(.chatml)
            warnings.append(
                "the tokenizer has <|im_start|> but no <|user|>: turns are written as chatml (--override chat.style=sigma)"
            )
        }
        if let given = overrides.text("chat.style") {
            guard let known = ChatFormat.Style(rawValue: given) else {
                throw SigmaError(.usage, "expected --override chat.style=sigma or chatml, found '\(given)'")
            }
            if known != standard.style { standard = Facts.usual(known) }
        }
        let style = standard.style
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

        func setting(_ key: String) throws -> JSONValue? {
            guard let own = facts.own, !own.isNull else { return nil }
            guard own.object != nil else {
                throw SigmaError(
                    .damaged, "expected an object, found \(own.kind)", path: facts.ownPath, item: "sigma_chat")
            }
            return own[key].flatMap { $0.isNull ? nil : $0 }
        }
        func wrong(_ key: String, _ expected: String, _ value: JSONValue) -> SigmaError {
            SigmaError(
                .damaged, "expected \(expected), found \(value.kind)", path: facts.ownPath, item: "sigma_chat.\(key)")
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

        // The family's stop tokens, and whatever the source itself names.
        var stops = standard.stopTokens
        stops += ((style == .sigma ? ["<|end|>"] : ["<|im_end|>"]) + ["<|endoftext|>"]).compactMap { specials[$0] }
        let isUnused = { (id: Int) in definition.map { id < $0.kinds.count && $0.kinds[id] == .unused } ?? false }
        for id in facts.endTokens where (0..<vocabularySize).contains(id) && !isUnused(id) { stops.append(Int32(id)) }
        if let eos = definition?.eos { stops.append(eos) }
        var unique: [Int32] = []
        for stop in stops where !unique.contains(stop) { unique.append(stop) }
        format = ChatFormat(
            style: style, opensThinking: try flag("opens_thinking", standard.opensThinking),
            thinkingPrompt: try text("thinking_prompt", standard.thinkingPrompt),
            closingPhrase: try text("closing_phrase", standard.closingPhrase), stopTokens: unique)
    }

    /// Ids of special and added tokens by text.
    private static func specials(_ definition: TokenizerDefinition) -> [String: Int32] {
        var result: [String: Int32] = [:]
        for id in 0..<definition.tokens.count where definition.kinds[id] == .control || definition.kinds[id] == .added {
            result[String(decoding: definition.tokens[id], as: UTF8.self)] = Int32(id)
        }
        return result
    }
}

extension ChatImport.Facts {
    /// Of a checkpoint folder.
    ///
    /// - Throws: `SigmaError` (`.damaged`) for a `generation_config.json` that is no such thing.
    static func checkpoint(
        _ folder: String, _ settings: TokenizerSettings, _ configuration: CheckpointConfiguration
    ) throws -> ChatImport.Facts {
        ChatImport.Facts(
            standard: usual(configuration.family == .sigma ? .sigma : .chatml), own: settings.json["sigma_chat"],
            ownPath: settings.path, endTokens: try configuration.endTokens + generationEndTokens(folder))
    }

    /// Of a plain GGUF file: the style that its chat template, or else its architecture, stands for.
    static func gguf(_ file: GGUFFile, _ configuration: GGUFConfiguration) throws -> ChatImport.Facts {
        let keys = KeyReader(file: file)
        let templateKey = "tokenizer.chat_template"
        let template = keys.has(templateKey) ? try keys.string(templateKey) : ""
        let style: ChatFormat.Style =
            if template.contains("<|im_start|>") {
                .chatml
            } else if template.contains("<|user|>") || configuration.architecture == "sigma" {
                .sigma
            } else {
                .chatml
            }
        var ends: [Int] = []
        for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"]
        where keys.has(key) { ends.append(try keys.integer(key)) }
        let own = try ModelFileMetadata.chatFormat(of: file, vocabularySize: configuration.model.vocabularySize)
        return ChatImport.Facts(standard: own ?? usual(style), isStated: own != nil, endTokens: ends)
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
