import Sigma

/// The tokenizer of a plain GGUF file, as llama.cpp's converters write it; what our own export adds to it counts first.
package struct GGUFTokenizer: Sendable {
    /// Nil if the file has none.
    package private(set) var definition: TokenizerDefinition?
    package private(set) var warnings: [String] = []

    /// llama.cpp's names of pre-tokenizers that split as one of our patterns.
    private static let patterns: [String: TokenizerDefinition.SplitPattern] = [
        "qwen2": .qwen2, "deepseek-r1-qwen": .qwen2, "megrez": .qwen2,
        "gpt-4o": .o200k, "llama4": .o200k, "kanana2": .o200k,
        "gpt-2": .gpt2, "phi-2": .gpt2,
        "llama-bpe": .llama3, "llama3": .llama3, "llama-v3": .llama3,
        "smollm": .smollm,
    ]

    /// - Throws: `SigmaError` (`.damaged`) naming the key and the token.
    package init(_ file: GGUFFile, vocabularySize: Int, overrides: Overrides) throws {
        let keys = KeyReader(file: file)
        let modelKey = "tokenizer.ggml.model"
        let model = keys.has(modelKey) ? try keys.string(modelKey) : "none"
        guard model != "none", model != "no_vocab" else {
            warnings.append("the file has no tokenizer: the model will read and write token ids only")
            return
        }
        guard model == "gpt2" else {
            throw keys.failure(modelKey, "expected a byte-level BPE tokenizer ('gpt2'), found '\(model)'")
        }
        let tokens = try Self.tokens(keys, vocabularySize: vocabularySize)
        let pattern = try Self.pattern(keys)
        let addsBosKey = "tokenizer.ggml.add_bos_token"
        let addsBos =
            // llama.cpp's rule: Llama 3's tokenizers begin texts where nothing is said.
            try overrides.bool("tokenizer.add_bos")
            ?? (keys.has(addsBosKey) ? try keys.bool(addsBosKey) : pattern == .llama3)
        let count = tokens.table.count
        let bos = try ModelFileTokenizer.tokenID(keys, "tokenizer.ggml.bos_token_id", count: count)
        guard !addsBos || bos != nil else {
            throw SigmaError(
                .damaged, "the tokenizer asks for a beginning-of-text token but names none", path: file.file.path,
                item: addsBosKey, remedy: "To leave it out: --override tokenizer.add_bos=false")
        }
        let addsEosKey = "tokenizer.ggml.add_eos_token"
        if keys.has(addsEosKey), try keys.bool(addsEosKey) {
            warnings.append("the tokenizer adds an end-of-text token to prompts; here it does not")
        }
        definition = TokenizerDefinition(
            tokens: tokens.table, kinds: tokens.kinds,
            mergeRule: try Self.mergeRule(keys, pattern, tokens.table, tokens.kinds), pattern: pattern,
            normalizer: try Self.normalizer(keys, pattern), bos: bos,
            eos: try ModelFileTokenizer.tokenID(keys, "tokenizer.ggml.eos_token_id", count: count), addsBos: addsBos,
            matching: try ModelFileTokenizer.matching(keys, count: count))
    }

    // MARK: tokens

    private static func tokens(
        _ keys: KeyReader, vocabularySize: Int
    ) throws -> (table: TokenTable, kinds: [TokenizerDefinition.TokenKind]) {
        let tokensKey = ModelFileTokenizer.tokensKey
        let kindsKey = ModelFileTokenizer.kindsKey
        let texts = try keys.strings(tokensKey)
        guard texts.count <= vocabularySize else {
            throw keys.failure(
                tokensKey, "expected at most \(vocabularySize) tokens, the embedding's rows, found \(texts.count)")
        }
        let numbers = try keys.integers(kindsKey)
        guard numbers.count == texts.count else {
            throw keys.failure(kindsKey, "expected \(texts.count) entries, one for each token, found \(numbers.count)")
        }
        var table = TokenTable()
        table.reserveCapacity(tokens: texts.count, bytes: texts.bytes.count - 8 * texts.count)
        var kinds: [TokenizerDefinition.TokenKind] = []
        kinds.reserveCapacity(texts.count)
        for id in 0..<texts.count {
            let text = texts.utf8(id).bindMemory(to: UInt8.self)
            var kind: TokenizerDefinition.TokenKind
            switch numbers[id] {
            case 1: kind = .normal
            case 3: kind = TokenCollection.isTag(text) ? .added : .control
            case 4: kind = .added
            case 5: kind = .unused
            default:
                throw keys.failure(
                    kindsKey,
                    "token \(id): expected 1 (normal), 3 (control), 4 (user-defined) or 5 (unused), found \(numbers[id])"
                )
            }
            if kind != .normal, TokenCollection.isDummy(text) { kind = .unused }
            guard kind == .unused || !text.isEmpty else { throw keys.failure(tokensKey, "token \(id) is empty") }
            switch kind {
            case .unused: table.append([])
            case .control, .added: table.append(text)
            case .normal:
                guard table.append(inByteAlphabet: text) else {
                    throw keys.failure(tokensKey, "token \(id) is not written in the byte alphabet")
                }
            }
            kinds.append(kind)
        }
        return (table, kinds)
    }

    // MARK: rules

    private static func pattern(_ keys: KeyReader) throws -> TokenizerDefinition.SplitPattern {
        if keys.has(ModelFileTokenizer.patternKey) {
            return try keys.choice(
                ModelFileTokenizer.patternKey, TokenizerDefinition.SplitPattern.init,
                TokenizerDefinition.SplitPattern.names)
        }
        let key = "tokenizer.ggml.pre"
        let name = try keys.string(key)
        guard let pattern = patterns[name] else {
            throw keys.failure(
                key,
                "expected the pre-tokenizer of Qwen2, GPT-4o, GPT-2, Llama 3 or SmolLM "
                    + "('qwen2', 'gpt-4o', 'gpt-2', 'llama-bpe', 'smollm'), found '\(name)'")
        }
        return pattern
    }

    /// GGUF files don't say: Qwen's tokenizers normalize to NFC, the others do not.
    private static func normalizer(
        _ keys: KeyReader, _ pattern: TokenizerDefinition.SplitPattern
    ) throws -> TokenizerDefinition.Normalizer {
        guard keys.has(ModelFileTokenizer.normalizerKey) else { return pattern == .qwen2 ? .nfc : .none }
        return try keys.choice(ModelFileTokenizer.normalizerKey, TokenizerDefinition.Normalizer.init, "none or nfc")
    }

    private static func mergeRule(
        _ keys: KeyReader, _ pattern: TokenizerDefinition.SplitPattern, _ table: TokenTable,
        _ kinds: [TokenizerDefinition.TokenKind]
    ) throws -> TokenizerDefinition.MergeRule {
        let ruleKey = ModelFileTokenizer.ruleKey
        if keys.has(ruleKey) {
            switch try keys.string(ruleKey) {
            case "by-rank": return .byRank
            case "listed": break
            case let other: throw keys.failure(ruleKey, "expected by-rank or listed, found '\(other)'")
            }
        }
        // GGUF files don't say: Llama 3's tokenizers take a piece that is a token as it is.
        let ignoreKey = ModelFileTokenizer.ignoreKey
        return .listed(
            try merges(keys, table, kinds),
            ignoringMerges: keys.has(ignoreKey) ? try keys.bool(ignoreKey) : pattern == .llama3)
    }

    /// Texts of two tokens in the byte alphabet with a space between them.
    private static func merges(
        _ keys: KeyReader, _ table: TokenTable, _ kinds: [TokenizerDefinition.TokenKind]
    ) throws -> [TokenizerDefinition.Pair] {
        let key = ModelFileTokenizer.mergesKey
        let texts = try keys.strings(key)
        let index: TokenIndex
        do {
            // Merges may make an added token, too.
            index = try TokenIndex(table) { kinds[$0] != .unused }
        } catch { throw error.inFile(keys.file.file.path) }
        var pairs: [TokenizerDefinition.Pair] = []
        pairs.reserveCapacity(texts.count)
        var bytes: [UInt8] = []
        for number in 0..<texts.count {
            let text = texts.utf8(number).bindMemory(to: UInt8.self)
            func failure(_ message: String) -> SigmaError {
                keys.failure(key, "merge \(number), '\(texts.string(number).prefix(80))': " + message)
            }
            // The byte alphabet has no space, so the only one is between the two.
            guard let space = text.firstIndex(of: UInt8(ascii: " ")) else { throw failure("expected two tokens") }
            bytes.removeAll(keepingCapacity: true)
            guard ByteAlphabet.appendBytes(of: UnsafeBufferPointer(rebasing: text[..<space]), to: &bytes) else {
                throw failure("the first token is not written in the byte alphabet")
            }
            let cut = bytes.count
            guard ByteAlphabet.appendBytes(of: UnsafeBufferPointer(rebasing: text[(space + 1)...]), to: &bytes) else {
                throw failure("the second token is not written in the byte alphabet")
            }
            let ids = bytes.withUnsafeBufferPointer { all in
                (
                    index.id(of: UnsafeBufferPointer(rebasing: all[..<cut])),
                    index.id(of: UnsafeBufferPointer(rebasing: all[cut...])), index.id(of: all)
                )
            }
            guard let left = ids.0, let right = ids.1, ids.2 != nil else {
                throw failure("both tokens and what they make must be in the vocabulary")
            }
            pairs.append(TokenizerDefinition.Pair(left, right))
        }
        return pairs
    }
}
