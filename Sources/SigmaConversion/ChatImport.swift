import Sigma

/// The chat format of a model: what its family uses, changed by what the source says and by overrides.
struct ChatImport {
    let format: ChatFormat
    let warnings: [String]

    /// What a source says about chats.
    struct Facts {
        /// The style and its usual settings, or those that the source states.
        var standard: ChatFormat
        /// Whether the source states the style itself, so that it is not to be doubted.
        var isStated = false
        /// The source's template; nil if it has none.
        var template: String?
        /// An object of the source with settings of its own (`sigma_chat`), and where it is.
        var own: JSONValue?
        var ownPath = ""
        /// Ids at which generation ends, as the source lists them; some may be no tokens.
        var endTokens: [Int] = []

        /// What a family of models does.
        static func usual(_ style: ChatFormat.Style) -> ChatFormat {
            ChatFormat(
                style: style, thinks: style != .llama3, opensThinking: style == .sigma,
                thinkingPrompt: style == .sigma ? ChatFormat.defaultThinkingPrompt : "",
                closingPhrase: ChatFormat.defaultClosingPhrase, stopTokens: [])
        }
    }

    /// - Throws: `SigmaError`: `.damaged` for settings that are none, `.usage` for overrides.
    init(
        _ facts: Facts, _ definition: TokenizerDefinition?, vocabularySize: Int, overrides: Overrides
    ) throws {
        var warnings: [String] = []
        let specials = definition.map { Self.specials($0) } ?? [:]
        var standard = facts.standard
        if !facts.isStated {
            let bos = definition.flatMap { definition in definition.bos.map { definition.tokens[Int($0)] } } ?? []
            let template = facts.template.map { ChatTemplate($0, bos: String(decoding: bos, as: UTF8.self)) }
            standard = Self.chosen(standard, template, specials, overrides, &warnings)
            // Sigma's format is its paper's. Models in chatml differ in whether they think.
            if template == nil, facts.own == nil, facts.standard.style == .chatml, !specials.isEmpty,
                !overrides.settlesChat
            {
                warnings.append(
                    "there is no chat template: turns are written as chatml, and the model is taken to think where it likes"
                        + " (--override chat.style=sigma, chat.thinks=false or chat.opens_thinking=true)")
            }
        }
        if let given = overrides.text("chat.style") {
            guard let known = ChatFormat.Style(rawValue: given) else {
                throw SigmaError(.usage, "expected --override chat.style=\(ChatFormat.Style.names), found '\(given)'")
            }
            if known != standard.style { standard = Facts.usual(known) }
        }
        let style = standard.style
        try Self.checkMarkup(style, specials, definition, &warnings)
        self.warnings = warnings
        let settings = Settings(facts: facts, overrides: overrides)

        // The family's stop tokens, and whatever the source itself names.
        var stops = standard.stopTokens
        stops += [style.endOfTurn, "<|endoftext|>"].compactMap { specials[$0] }
        if style == .llama3 { stops += ["<|end_of_text|>", "<|eom_id|>"].compactMap { specials[$0] } }
        let isUnused = { (id: Int) in definition.map { id < $0.kinds.count && $0.kinds[id] == .unused } ?? false }
        for id in facts.endTokens where (0..<vocabularySize).contains(id) && !isUnused(id) { stops.append(Int32(id)) }
        if let eos = definition?.eos { stops.append(eos) }
        var unique: [Int32] = []
        for stop in stops where !unique.contains(stop) { unique.append(stop) }
        var format = ChatFormat(
            style: style, thinks: try settings.flag("thinks", standard.thinks),
            opensThinking: try settings.flag("opens_thinking", standard.opensThinking),
            thinkingPrompt: try settings.text("thinking_prompt", standard.thinkingPrompt),
            closingPhrase: try settings.text("closing_phrase", standard.closingPhrase), stopTokens: unique)
        format.defaultSystem = try settings.text("default_system", standard.defaultSystem)
        format.systemPrefix = try settings.text("system_prefix", standard.systemPrefix)
        format.trimsMessages = standard.trimsMessages
        format.closedThinking = standard.closedThinking
        format.date = try settings.text("date", standard.date)
        guard CalendarDate.now.text(format.date) != nil else {
            throw SigmaError(
                .usage, "the date '\(format.date)' has a mark that is not known here",
                remedy: "Write --override chat.date=\"26 Jul 2024\", or % as %%.")
        }
        format.tools = standard.tools
        if let given = overrides.text("chat.tools") {
            guard let form = CallForm(rawValue: given) else {
                throw SigmaError(.usage, "expected --override chat.tools=\(CallForm.names), found '\(given)'")
            }
            if form != format.tools.calls { format.tools = .usual(form) }
        }
        self.format = format
    }

    /// The format that the template implies, or else the tokenizer, or else the family.
    private static func chosen(
        _ usual: ChatFormat, _ template: ChatTemplate?, _ specials: [String: Int32], _ overrides: Overrides,
        _ warnings: inout [String]
    ) -> ChatFormat {
        var format = usual
        let isStyleGiven = overrides.text("chat.style") != nil
        if let style = template?.style ?? template?.mentionedStyle, style != format.style {
            format = Facts.usual(style)
        }
        let has = { (style: ChatFormat.Style) in style.controlTokens.allSatisfy { specials[$0] != nil } }
        if !has(format.style), let other = ChatFormat.Style.allCases.first(where: has) {
            if !isStyleGiven, template?.style != other {
                let lacking = format.style.turnStart(.user)[0].written
                warnings.append(
                    "the tokenizer has \(other.turnStart(.user)[0].written) but no \(lacking): turns are written as "
                        + "\(other.rawValue) (--override chat.style=\(format.style.rawValue))")
            }
            format = Facts.usual(other)
        }
        guard let template else { return format }
        let others = ChatFormat.Style.allCases.filter { $0 != format.style }.map(\.rawValue)
        if template.style == nil, !isStyleGiven {
            let reason =
                template.obstacle.map { "cannot be evaluated (\($0))" } ?? "writes turns in a way that is not known"
            warnings.append(
                "the chat template \(reason): turns are written as \(format.style.rawValue)"
                    + " (--override chat.style=\(others.joined(separator: ", ")); or give prompts with their markup and --raw)"
            )
        }
        if template.style == format.style {
            let isToolsGiven = overrides.text("chat.tools") != nil
            warnings += template.differences
                .filter { !isToolsGiven || !$0.contains("chat.tools") }.map { "the chat template: " + $0 }
            // Sigma's two formats come from its paper: a template that knows no thinking doesn't say that the model doesn't.
            guard format.style != .sigma || template.thinks else { return format }
            format.thinks = template.thinks
            format.opensThinking = template.opensThinking ?? format.opensThinking
            format.defaultSystem = template.defaultSystem
            format.systemPrefix = template.systemPrefix
            format.trimsMessages = template.trimsMessages
            format.date = template.date
            format.closedThinking = template.closedThinking
            format.tools = template.tools
        } else if template.thinks, overrides.text("chat.opens_thinking") == nil {
            warnings.append(
                "the chat template names <think>: it is taken that \(format.opensThinking ? "the prompt" : "the model") writes it"
                    + " (--override chat.opens_thinking=\(!format.opensThinking))")
        } else if format.style != .sigma {
            format.thinks = template.thinks
        }
        return format
    }

    private static func checkMarkup(
        _ style: ChatFormat.Style, _ specials: [String: Int32], _ definition: TokenizerDefinition?,
        _ warnings: inout [String]
    ) throws {
        guard let definition else { return }
        let lacking = style.controlTokens.filter { specials[$0] == nil }
        if !lacking.isEmpty {
            warnings.append(
                "the tokenizer has no \(lacking.joined(separator: ", ")): the model will only take raw text and token ids"
            )
        }
        // What stands between two of them may be a word, and then they would be none: no prompt could be written.
        for name in style.controlTokens {
            guard let id = specials[name], definition.matching[id]?.contains(.singleWord) == true else { continue }
            throw SigmaError(
                .damaged,
                "the token \(name) of the chat format is to be a word of its own, so text beside it would undo it",
                item: "single_word", remedy: "Set single_word of this token to false.")
        }
    }

    /// Ids of special and added tokens by text.
    private static func specials(_ definition: TokenizerDefinition) -> [String: Int32] {
        var result: [String: Int32] = [:]
        for id in 0..<definition.tokens.count where definition.kinds[id] == .control || definition.kinds[id] == .added {
            result[String(decoding: definition.tokens[id], as: UTF8.self)] = Int32(id)
        }
        return result
    }

    /// Settings of the chat format: an override, else what the source states for itself, else the standard.
    private struct Settings {
        let facts: Facts
        let overrides: Overrides

        func text(_ key: String, _ standard: String) throws -> String {
            if let given = overrides.text("chat." + key) { return given }
            guard let value = try own(key) else { return standard }
            guard let text = value.string else { throw wrong(key, "a string", value) }
            return text
        }
        func flag(_ key: String, _ standard: Bool) throws -> Bool {
            if let given = try overrides.bool("chat." + key) { return given }
            guard let value = try own(key) else { return standard }
            guard let flag = value.bool else { throw wrong(key, "true or false", value) }
            return flag
        }

        private func own(_ key: String) throws -> JSONValue? {
            guard let own = facts.own, !own.isNull else { return nil }
            guard own.object != nil else {
                throw SigmaError(
                    .damaged, "expected an object, found \(own.kind)", path: facts.ownPath, item: "sigma_chat")
            }
            return own[key].flatMap { $0.isNull ? nil : $0 }
        }
        private func wrong(_ key: String, _ expected: String, _ value: JSONValue) -> SigmaError {
            SigmaError(
                .damaged, "expected \(expected), found \(value.kind)", path: facts.ownPath, item: "sigma_chat.\(key)")
        }
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
            standard: usual(configuration.family.chatStyle), template: settings.chatTemplate,
            own: settings.json["sigma_chat"], ownPath: settings.path,
            endTokens: try configuration.endTokens + generationEndTokens(folder))
    }

    /// Of a plain GGUF file: what its own keys say, else its chat template.
    static func gguf(_ file: GGUFFile, _ configuration: GGUFConfiguration) throws -> ChatImport.Facts {
        let keys = KeyReader(file: file)
        let templateKey = "tokenizer.chat_template"
        let template = keys.has(templateKey) ? try keys.string(templateKey) : nil
        var ends: [Int] = []
        for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"]
        where keys.has(key) { ends.append(try keys.integer(key)) }
        let own = try ModelFileMetadata.chatFormat(of: file, vocabularySize: configuration.model.vocabularySize)
        return ChatImport.Facts(
            standard: own ?? usual(configuration.family.chatStyle), isStated: own != nil, template: template,
            endTokens: ends)
    }

    private static func generationEndTokens(_ folder: String) throws -> [Int] {
        let path = folder + "/generation_config.json"
        guard isPresent(path) else { return [] }
        guard let object = try JSONValue.parse(file: path).object else {
            throw SigmaError(.damaged, "expected a JSON object", path: path, offset: 0)
        }
        return try ConfigReader(config: object, path: path).integers("eos_token_id")
    }
}
