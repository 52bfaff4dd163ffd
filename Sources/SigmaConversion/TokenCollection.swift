import Sigma

/// Tokens while they are collected, by id.
struct TokenCollection {
    /// What a token may be numbered, far above any vocabulary.
    static let idLimit = 1 << 22

    private(set) var tokens: [[UInt8]] = []
    private(set) var kinds: [TokenizerDefinition.TokenKind] = []
    private var matching: [Int32: TokenizerDefinition.Matching] = [:]

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
    mutating func addNamed(
        _ id: Int, _ text: String, isSpecial: Bool, matching: TokenizerDefinition.Matching = []
    ) -> Bool {
        let bytes = Array(text.utf8)
        if id < tokens.count, kinds[id] == .normal, tokens[id] == bytes { tokens[id] = [] }
        let kind: TokenizerDefinition.TokenKind =
            Self.isDummy(bytes) ? .unused : isSpecial && !Self.isTag(bytes) ? .control : .added
        guard add(id, bytes, kind) else { return false }
        if kind != .unused, !matching.isEmpty { self.matching[Int32(id)] = matching }
        return true
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

    /// - Parameter path: of the tokenizer, for errors.
    func definition(
        _ settings: TokenizerSettings, _ configuration: CheckpointConfiguration, path: String,
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
        let standard = configuration.family.endOfText.flatMap { id(of: $0) }
        func known(_ id: Int?) -> Int? { id.flatMap { tokens.indices.contains($0) && kinds[$0] != .unused ? $0 : nil } }
        if let templateBos, known(templateBos) == nil {
            throw SigmaError(
                .damaged, "the token \(templateBos), which is put before every text, is not in the vocabulary",
                path: path, item: "post_processor")
        }
        let bos = try templateBos ?? named("bos_token") ?? known(configuration.bosToken) ?? standard
        let eos = try named("eos_token") ?? known(configuration.endTokens.first) ?? standard
        var table = TokenTable()
        table.reserveCapacity(tokens: tokens.count, bytes: tokens.reduce(0) { $0 + $1.count })
        for (id, token) in tokens.enumerated() { table.append(kinds[id] == .unused ? [] : token) }
        return TokenizerDefinition(
            tokens: table, kinds: kinds, mergeRule: mergeRule, pattern: pattern, normalizer: normalizer,
            bos: bos.map { Int32($0) }, eos: eos.map { Int32($0) }, addsBos: addsBos, matching: matching)
    }
}

extension TokenizerDefinition.Matching {
    /// Of an added token in `tokenizer.json` or `tokenizer_config.json`.
    init(flagsOf token: JSONValue) {
        self = []
        if token["lstrip"]?.bool == true { insert(.stripsLeft) }
        if token["rstrip"]?.bool == true { insert(.stripsRight) }
        if token["single_word"]?.bool == true { insert(.singleWord) }
    }
}
