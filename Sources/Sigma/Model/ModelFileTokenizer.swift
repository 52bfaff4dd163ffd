/// The tokenizer's part of a native model file's metadata, in both directions.
///
/// Tokens are stored as gguf tools expect them (normal ones in GPT-2's byte alphabet, added ones as they are), merges as pairs of ids:
/// no text is parsed at start-up.
package enum ModelFileTokenizer {
    package static let tokensKey = "tokenizer.ggml.tokens"
    package static let kindsKey = "tokenizer.ggml.token_type"
    /// Merges as texts: only in plain files.
    package static let mergesKey = "tokenizer.ggml.merges"
    package static let patternKey = "sigma.tokenizer.pattern"
    package static let normalizerKey = "sigma.tokenizer.normalizer"
    package static let ruleKey = "sigma.tokenizer.merge_rule"
    package static let ignoreKey = "sigma.tokenizer.ignore_merges"
    private static let pairsKey = "sigma.tokenizer.merge_pairs"
    /// Ids of tokens that ask something of the text around them; absent where none does.
    private static let matchingKeys: [(key: String, matching: TokenizerDefinition.Matching)] = [
        ("sigma.tokenizer.strip_left", .stripsLeft), ("sigma.tokenizer.strip_right", .stripsRight),
        ("sigma.tokenizer.single_word", .singleWord),
    ]

    package static func write(_ definition: TokenizerDefinition, to writer: inout GGUFWriter) {
        writeTokens(definition, count: definition.tokens.count, to: &writer)
        if case .listed(let pairs, _) = definition.mergeRule {
            writer.set(pairsKey, pairs.flatMap { [$0.left, $0.right] })
        }
    }

    /// The tokenizer for other tools too: merges as texts, and a token for each of `count` ids.
    package static func writePlain(_ definition: TokenizerDefinition, count: Int, to writer: inout GGUFWriter) throws {
        writeTokens(definition, count: max(count, definition.tokens.count), to: &writer)
        var merges: [[UInt8]] = []
        for pair in try definition.pairs() {
            let left = ByteAlphabet.text(of: definition.tokens[Int(pair.left)])
            merges.append(Array((left + " " + ByteAlphabet.text(of: definition.tokens[Int(pair.right)])).utf8))
        }
        writer.set(mergesKey, strings: merges)
    }

    private static func writeTokens(_ definition: TokenizerDefinition, count: Int, to writer: inout GGUFWriter) {
        writer.set("tokenizer.ggml.model", "gpt2")
        let pre: String =
            switch definition.pattern {
            case .gpt2: "gpt-2"
            case .qwen2: "qwen2"
            case .o200k: "gpt-4o"
            case .llama3: "llama-bpe"
            case .smollm: "smollm"
            }
        writer.set("tokenizer.ggml.pre", pre)
        let texts = (0..<count).map { id -> [UInt8] in
            switch id < definition.kinds.count ? definition.kinds[id] : .unused {
            case .normal: Array(ByteAlphabet.text(of: definition.tokens[id]).utf8)
            case .control, .added: Array(definition.tokens[id])
            case .unused: Array("[UNUSED\(id)]".utf8)
            }
        }
        writer.set(tokensKey, strings: texts)
        let extra = Array(
            repeating: TokenizerDefinition.TokenKind.unused.rawValue, count: count - definition.kinds.count)
        writer.set(kindsKey, definition.kinds.map(\.rawValue) + extra)
        for (key, matching) in matchingKeys {
            let ids = definition.matching.filter { $0.value.contains(matching) }.keys.sorted()
            if !ids.isEmpty { writer.set(key, ids) }
        }
        writer.set(patternKey, definition.pattern.rawValue)
        writer.set(normalizerKey, definition.normalizer.rawValue)
        switch definition.mergeRule {
        case .byRank:
            writer.set(ruleKey, "by-rank")
        case .listed(_, let ignoringMerges):
            writer.set(ruleKey, "listed")
            writer.set(ignoreKey, ignoringMerges)
        }
        if let bos = definition.bos { writer.set("tokenizer.ggml.bos_token_id", UInt32(bos)) }
        if let eos = definition.eos { writer.set("tokenizer.ggml.eos_token_id", UInt32(eos)) }
        writer.set("tokenizer.ggml.add_bos_token", definition.addsBos)
    }

    /// Nil if the file has no tokenizer. Takes some 10 ms for 200,000 tokens.
    ///
    /// - Throws: `SigmaError` (`.damaged`) naming the key, and the token.
    package static func definition(of file: GGUFFile, vocabularySize: Int) throws -> TokenizerDefinition? {
        let keys = KeyReader(file: file)
        guard keys.has(tokensKey) else { return nil }
        let texts = try keys.strings(tokensKey)
        guard texts.count <= vocabularySize else {
            throw keys.failure(tokensKey, "expected at most \(vocabularySize) tokens, found \(texts.count)")
        }
        let kinds = try tokenKinds(keys, count: texts.count)
        let bos = try tokenID(keys, "tokenizer.ggml.bos_token_id", count: texts.count)
        let eos = try tokenID(keys, "tokenizer.ggml.eos_token_id", count: texts.count)
        let addsBos = try keys.bool("tokenizer.ggml.add_bos_token")
        guard bos != nil || !addsBos else {
            throw keys.failure("tokenizer.ggml.add_bos_token", "expected tokenizer.ggml.bos_token_id too")
        }
        return TokenizerDefinition(
            tokens: try tokenTable(keys, texts, kinds), kinds: kinds,
            mergeRule: try mergeRule(keys, count: texts.count),
            pattern: try keys.choice(
                patternKey, TokenizerDefinition.SplitPattern.init, TokenizerDefinition.SplitPattern.names),
            normalizer: try keys.choice(
                normalizerKey, TokenizerDefinition.Normalizer.init, "none or nfc"),
            bos: bos, eos: eos, addsBos: addsBos, matching: try matching(keys, count: texts.count))
    }

    /// What tokens ask of the text around them.
    package static func matching(_ keys: KeyReader, count: Int) throws -> [Int32: TokenizerDefinition.Matching] {
        var result: [Int32: TokenizerDefinition.Matching] = [:]
        for (key, matching) in matchingKeys where keys.has(key) {
            for id in try keys.integers(key) {
                guard (0..<count).contains(id) else {
                    throw keys.failure(key, "expected token ids below \(count), found \(id)")
                }
                result[Int32(id), default: []].insert(matching)
            }
        }
        return result
    }

    private static func tokenKinds(_ keys: KeyReader, count: Int) throws -> [TokenizerDefinition.TokenKind] {
        let numbers = try keys.integers(kindsKey)
        guard numbers.count == count else {
            throw keys.failure(kindsKey, "expected \(count) entries, one for each token, found \(numbers.count)")
        }
        return try numbers.enumerated().map { id, number in
            guard let kind = Int32(exactly: number).flatMap(TokenizerDefinition.TokenKind.init) else {
                throw keys.failure(kindsKey, "expected 1, 3, 4 or 5, found \(number) for token \(id)")
            }
            return kind
        }
    }

    private static func tokenTable(
        _ keys: KeyReader, _ texts: GGUFArray, _ kinds: [TokenizerDefinition.TokenKind]
    ) throws -> TokenTable {
        var table = TokenTable()
        table.reserveCapacity(tokens: texts.count, bytes: texts.bytes.count - 8 * texts.count)
        for id in 0..<texts.count {
            let text = texts.utf8(id).bindMemory(to: UInt8.self)
            guard kinds[id] != .unused else {
                table.append([])
                continue
            }
            guard !text.isEmpty else { throw keys.failure(tokensKey, "token \(id) is empty") }
            if kinds[id] != .normal {
                table.append(text)
            } else if !table.append(inByteAlphabet: text) {
                throw keys.failure(tokensKey, "token \(id) is not written in the byte alphabet")
            }
        }
        return table
    }

    package static func tokenID(_ keys: KeyReader, _ key: String, count: Int) throws -> Int32? {
        guard keys.has(key) else { return nil }
        let id = try keys.integer(key)
        guard (0..<count).contains(id) else {
            throw keys.failure(key, "expected a token id below \(count), found \(id)")
        }
        return Int32(id)
    }

    private static func mergeRule(_ keys: KeyReader, count: Int) throws -> TokenizerDefinition.MergeRule {
        let rule = try keys.string(ruleKey)
        switch rule {
        case "by-rank": return .byRank
        case "listed":
            let ids = try keys.integers(pairsKey)
            guard ids.count % 2 == 0 else { throw keys.failure(pairsKey, "expected pairs, found \(ids.count) ids") }
            if let bad = ids.first(where: { !(0..<count).contains($0) }) {
                throw keys.failure(pairsKey, "expected token ids below \(count), found \(bad)")
            }
            let pairs = stride(from: 0, to: ids.count, by: 2).map {
                TokenizerDefinition.Pair(Int32(ids[$0]), Int32(ids[$0 + 1]))
            }
            return .listed(pairs, ignoringMerges: try keys.bool(ignoreKey))
        default: throw keys.failure(ruleKey, "expected by-rank or listed, found '\(rule)'")
        }
    }
}
