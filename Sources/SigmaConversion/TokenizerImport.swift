import Sigma
import SystemLibrary

/// The tokenizer and the chat format of a checkpoint folder, from whichever files it has.
package struct TokenizerImport: Sendable {
    /// Nil if the folder has no tokenizer.
    package let definition: TokenizerDefinition?
    package let chatFormat: ChatFormat
    package let warnings: [String]
    /// What was read.
    package let files: [String]

    /// - Throws: `SigmaError`: `.damaged` for files that are not what they should be or ask for a tokenizer that we don't have.
    package init(_ folder: String, _ configuration: CheckpointConfiguration, overrides: Overrides) throws {
        let settings = try TokenizerSettings(folder: folder)
        var warnings: [String] = []
        var files = settings.files
        let jsonPath = folder + "/tokenizer.json"
        let tiktokenFiles = try Self.tiktokenFiles(folder)
        var definition: TokenizerDefinition?
        if fileExists(jsonPath) {
            if let other = tiktokenFiles.first { warnings.append("tokenizer.json is used; \(other) is there too") }
            if overrides.text("tokenizer.specials") != nil {
                throw SigmaError(
                    .usage, "tokenizer.specials is for .tiktoken files; here tokenizer.json names the specials")
            }
            let file = try TokenizerJSON(path: jsonPath)
            warnings += file.warnings
            files.append(jsonPath)
            definition = try file.definition(settings, configuration)
        } else if tiktokenFiles.count > 1 {
            throw SigmaError(
                .damaged, "expected one .tiktoken file, found \(tiktokenFiles.joined(separator: ", "))", path: folder)
        } else if let name = tiktokenFiles.first, configuration.family == .sigma {
            let path = folder + "/" + name
            files.append(path)
            definition = try TiktokenFile(path: path).definition(settings, configuration, overrides)
        }
        if var found = definition {
            if let addsBos = try overrides.bool("tokenizer.add_bos") { found.addsBos = addsBos }
            if found.addsBos, found.bos == nil {
                throw SigmaError(
                    .damaged, "the tokenizer asks for a beginning-of-text token but names none", path: folder,
                    remedy: "To do without: --override tokenizer.add_bos=false")
            }
            definition = try Self.fitted(found, rows: configuration.model.vocabularySize, path: files.last!)
        } else {
            warnings.append("no tokenizer.json and no .tiktoken file: the model will only take and give token ids")
        }
        let chat = try ChatImport(
            .checkpoint(folder, settings, configuration), definition,
            vocabularySize: configuration.model.vocabularySize, overrides: overrides)
        self.definition = definition
        chatFormat = chat.format
        self.warnings = warnings + chat.warnings
        self.files = files
    }

    /// The definition without ids that the embedding has no rows for, as long as no token is lost.
    private static func fitted(_ definition: TokenizerDefinition, rows: Int, path: String) throws -> TokenizerDefinition
    {
        guard definition.tokens.count > rows else { return definition }
        if let lost = (rows..<definition.tokens.count).first(where: { definition.kinds[$0] != .unused }) {
            let name = String(decoding: definition.tokens[lost], as: UTF8.self)
            throw SigmaError(
                .damaged, "token \(lost), '\(name)', has no row in the embedding, which has \(rows)", path: path)
        }
        var result = definition
        result.tokens = TokenTable((0..<rows).map { Array(definition.tokens[$0]) })
        result.kinds.removeSubrange(rows...)
        return result
    }

    private static func tiktokenFiles(_ folder: String) throws -> [String] {
        guard let directory = opendir(folder) else {
            throw SigmaError(.inputOutput, "cannot list the folder: \(systemMessage(errno))", path: folder)
        }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: entry.pointee.d_name)) {
                    String(cString: $0)
                }
            }
            if name.hasSuffix(".tiktoken") { names.append(name) }
        }
        return names.sorted()
    }
}

/// What `tokenizer_config.json` says (nothing, if there is none).
struct TokenizerSettings {
    let path: String
    let json: JSONObject
    /// What was read.
    let files: [String]
    /// All chat templates' text, wherever they are.
    let chatTemplate: String

    init(folder: String) throws {
        path = folder + "/tokenizer_config.json"
        var files: [String] = []
        if fileExists(path) {
            guard let object = try JSONValue.parse(file: path).object else {
                throw SigmaError(.damaged, "expected a JSON object", path: path, offset: 0)
            }
            json = object
            files.append(path)
        } else {
            json = JSONObject()
        }
        var template = json["chat_template"]?.string ?? ""
        for named in json["chat_template"]?.array ?? [] { template += named["template"]?.string ?? "" }
        let templatePath = folder + "/chat_template.jinja"
        if fileExists(templatePath), let file = try? MappedFile(path: templatePath) {
            template += String(decoding: file.bytes, as: UTF8.self)
        }
        chatTemplate = template
        self.files = files
    }

    /// `bos_token` or `eos_token`: a text, or an object with one.
    func tokenText(_ key: String) -> String? { json[key]?.string ?? json[key]?["content"]?.string }

    func bool(_ key: String) throws -> Bool? {
        guard let value = json[key], !value.isNull else { return nil }
        guard let bool = value.bool else {
            throw SigmaError(.damaged, "expected true or false, found \(value.kind)", path: path, item: key)
        }
        return bool
    }
}

/// Tokens while they are collected, by id.
struct TokenCollection {
    /// What a token may be numbered, far above any vocabulary.
    static let idLimit = 1 << 22

    private(set) var tokens: [[UInt8]] = []
    private(set) var kinds: [TokenizerDefinition.TokenKind] = []

    /// False if the id has a token already.
    mutating func add(_ id: Int, _ bytes: [UInt8], _ kind: TokenizerDefinition.TokenKind) -> Bool {
        if id >= tokens.count {
            tokens += [[UInt8]](repeating: [], count: id + 1 - tokens.count)
            kinds += [TokenizerDefinition.TokenKind](repeating: .unused, count: id + 1 - kinds.count)
        }
        guard tokens[id].isEmpty else { return false }
        tokens[id] = bytes
        kinds[id] = kind
        return true
    }

    /// Tags that are text to read and to write, also where a checkpoint has made special tokens of them.
    private static let tags = ["<think>", "</think>"]

    static func isTag(_ text: some Sequence<UInt8>) -> Bool { tags.contains { text.elementsEqual($0.utf8) } }
    /// Rows that a vocabulary keeps free have such names.
    static func isDummy(_ text: some Sequence<UInt8>) -> Bool { text.starts(with: "<|dummy".utf8) }

    /// Adds a special or added token; it may take the place of a normal token with the same text. Dummies become unused.
    mutating func addNamed(_ id: Int, _ text: String, isSpecial: Bool) -> Bool {
        let bytes = Array(text.utf8)
        if id < tokens.count, kinds[id] == .normal, tokens[id] == bytes { tokens[id] = [] }
        return add(
            id, bytes, Self.isDummy(bytes) ? .unused : isSpecial && !Self.isTag(bytes) ? .control : .added)
    }

    /// The id of a special or added token; else of a normal one.
    func id(of text: String) -> Int? {
        let bytes = Array(text.utf8)
        // Named tokens are few and at the end.
        for wantsNamed in [true, false] {
            for id in tokens.indices.reversed() where (kinds[id] == .control || kinds[id] == .added) == wantsNamed {
                if kinds[id] != .unused, tokens[id] == bytes { return id }
            }
        }
        return nil
    }

    func definition(
        _ settings: TokenizerSettings, _ configuration: CheckpointConfiguration,
        mergeRule: TokenizerDefinition.MergeRule, pattern: TokenizerDefinition.SplitPattern,
        normalizer: TokenizerDefinition.Normalizer, addsBos: Bool, bos templateBos: Int?
    ) throws -> TokenizerDefinition {
        func named(_ key: String) throws -> Int? {
            guard let text = settings.tokenText(key) else { return nil }
            guard let id = id(of: text) else {
                throw SigmaError(
                    .damaged, "the token '\(text)' is not in the vocabulary", path: settings.path, item: key)
            }
            return id
        }
        let standard = configuration.family == .sigma ? id(of: "<|endoftext|>") : nil
        func known(_ id: Int?) -> Int? { id.flatMap { tokens.indices.contains($0) && kinds[$0] != .unused ? $0 : nil } }
        let bos = try templateBos ?? named("bos_token") ?? known(configuration.bosToken) ?? standard
        let eos = try named("eos_token") ?? known(configuration.endTokens.first) ?? standard
        var table = TokenTable()
        table.reserveCapacity(tokens: tokens.count, bytes: tokens.reduce(0) { $0 + $1.count })
        for (id, token) in tokens.enumerated() { table.append(kinds[id] == .unused ? [] : token) }
        return TokenizerDefinition(
            tokens: table, kinds: kinds, mergeRule: mergeRule, pattern: pattern, normalizer: normalizer,
            bos: bos.map { Int32($0) }, eos: eos.map { Int32($0) }, addsBos: addsBos)
    }
}
