import Sigma

/// Hugging Face's `tokenizer.json` with a byte-level BPE model.
struct TokenizerJSON {
    private let path: String
    private let json: JSONValue

    init(path: String) throws {
        self.path = path
        json = try JSONValue.parse(file: path)
    }

    /// - Throws: `SigmaError` (`.damaged`) naming the part that is damaged or not supported.
    func definition(
        _ settings: TokenizerSettings, _ configuration: CheckpointConfiguration
    ) throws -> TokenizerDefinition {
        let model = try part("model")
        try checkModel(model)
        guard let vocabulary = model["vocab"]?.object else { throw failure("model.vocab", "expected an object") }
        var collection = TokenCollection()
        try addNamedTokens(to: &collection)
        try addTokensOfSettings(settings, to: &collection)
        try addVocabulary(vocabulary, to: &collection)
        let template = try templateBos(json["post_processor"])
        return try collection.definition(
            settings, configuration, path: path,
            mergeRule: .listed(try merges(model, vocabulary), ignoringMerges: model["ignore_merges"]?.bool ?? false),
            pattern: try pattern(), normalizer: try normalizer(json["normalizer"]),
            addsBos: try settings.bool("add_bos_token") ?? (template != nil), bos: template)
    }

    private func failure(_ item: String, _ message: String) -> SigmaError {
        SigmaError(.damaged, message, path: path, item: item)
    }

    private func part(_ key: String) throws -> JSONValue {
        guard let value = json[key], value.object != nil else { throw failure(key, "expected an object") }
        return value
    }

    private func checkModel(_ model: JSONValue) throws {
        if let type = model["type"], type != .string("BPE") {
            throw failure("model.type", "expected BPE, found \(type.kind)")
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if let text = model[key]?.string, !text.isEmpty {
                throw failure("model." + key, "expected none, found '\(text)'")
            }
        }
        if model["byte_fallback"]?.bool == true { throw failure("model.byte_fallback", "expected false, found true") }
    }

    // MARK: tokens

    private func tokenID(_ value: JSONValue?, _ item: String) throws -> Int {
        guard let id = value?.integer, (0..<Int64(TokenCollection.idLimit)).contains(id) else {
            throw failure(item, "expected a token id below \(TokenCollection.idLimit), found \(value?.kind ?? "none")")
        }
        return Int(id)
    }

    /// Added tokens first: a vocabulary may list them again.
    private func addNamedTokens(to collection: inout TokenCollection) throws {
        for token in json["added_tokens"]?.array ?? [] {
            guard let text = token["content"]?.string, !text.isEmpty else {
                throw failure("added_tokens", "expected a token with content")
            }
            let id = try tokenID(token["id"], "added_tokens")
            guard
                collection.addNamed(
                    id, text, isSpecial: token["special"]?.bool ?? false, matching: .init(flagsOf: token))
            else { throw failure("added_tokens", "two tokens have the id \(id)") }
        }
    }

    /// Hugging Face adds what `added_tokens_decoder` lists and the file itself doesn't.
    private func addTokensOfSettings(_ settings: TokenizerSettings, to collection: inout TokenCollection) throws {
        guard let object = settings.json["added_tokens_decoder"]?.object else { return }
        for (name, token) in zip(object.keys, object.values) {
            guard let id = Int(name), (0..<TokenCollection.idLimit).contains(id),
                let text = token["content"]?.string, !text.isEmpty
            else {
                throw SigmaError(
                    .damaged, "expected an id and a token with content, found '\(name)'", path: settings.path,
                    item: "added_tokens_decoder")
            }
            _ = collection.addNamed(
                id, text, isSpecial: token["special"]?.bool ?? false, matching: .init(flagsOf: token))
        }
    }

    private func addVocabulary(_ vocabulary: JSONObject, to collection: inout TokenCollection) throws {
        let named = collection
        for (text, value) in zip(vocabulary.keys, vocabulary.values) {
            let id = try tokenID(value, "model.vocab")
            if id < named.tokens.count, !named.tokens[id].isEmpty {
                guard named.tokens[id].elementsEqual(text.utf8) else {
                    throw failure("model.vocab", "the id \(id) of '\(text)' belongs to an added token too")
                }
                continue
            }
            guard let bytes = ByteAlphabet.bytes(of: text), !bytes.isEmpty else {
                throw failure("model.vocab", "the token '\(text)' (\(id)) is not written in the byte alphabet")
            }
            guard collection.add(id, bytes, .normal) else {
                throw failure("model.vocab", "two tokens have the id \(id)")
            }
        }
    }

    private func merges(_ model: JSONValue, _ vocabulary: JSONObject) throws -> [TokenizerDefinition.Pair] {
        guard let list = model["merges"]?.array else { throw failure("model.merges", "expected an array") }
        func id(_ text: String, _ number: Int) throws -> Int32 {
            guard let id = vocabulary[text]?.integer else {
                throw failure("model.merges", "merge \(number) names '\(text)', which is not in the vocabulary")
            }
            return Int32(id)
        }
        var pairs: [TokenizerDefinition.Pair] = []
        pairs.reserveCapacity(list.count)
        for (number, merge) in list.enumerated() {
            let left: String
            let right: String
            if let text = merge.string {
                // The byte alphabet has no space, so the only one is between the two.
                let parts = text.split(separator: " ", omittingEmptySubsequences: false)
                guard parts.count == 2 else {
                    throw failure("model.merges", "merge \(number): expected two tokens, found '\(text)'")
                }
                (left, right) = (String(parts[0]), String(parts[1]))
            } else if let parts = merge.array, parts.count == 2, let a = parts[0].string, let b = parts[1].string {
                (left, right) = (a, b)
            } else {
                throw failure("model.merges", "merge \(number): expected two tokens, found \(merge.kind)")
            }
            _ = try id(left + right, number)
            pairs.append(TokenizerDefinition.Pair(try id(left, number), try id(right, number)))
        }
        return pairs
    }

    // MARK: rules

    private func normalizer(_ value: JSONValue?) throws -> TokenizerDefinition.Normalizer {
        guard let value, !value.isNull else { return .none }
        switch value["type"]?.string {
        case "NFC"?: return .nfc
        case "Sequence"?:
            let steps = try (value["normalizers"]?.array ?? []).map { try normalizer($0) }
            return steps.contains(.nfc) ? .nfc : .none
        default: throw failure("normalizer", "expected NFC or null, found \(value["type"]?.kind ?? value.kind)")
        }
    }

    /// The regular expressions by which the split patterns are recognised.
    private static let expressions: [(TokenizerDefinition.SplitPattern, String)] = [
        (.gpt2, #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#),
        (
            .qwen2,
            #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
        ),
        (
            .llama3,
            #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
        ),
        (
            .o200k,
            #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"#
                + #"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"#
                + #"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
        ),
    ]

    /// `ByteLevel` alone splits as GPT-2 does, and after `Digits` as SmolLM does; or a `Split` by a known expression, then `ByteLevel` without
    /// its own.
    private func pattern() throws -> TokenizerDefinition.SplitPattern {
        let item = "pre_tokenizer"
        guard let value = json[item], !value.isNull else { throw failure(item, "expected one, found null") }
        let steps = value["type"]?.string == "Sequence" ? value["pretokenizers"]?.array ?? [] : [value]
        var pattern: TokenizerDefinition.SplitPattern?
        var hasByteLevel = false
        var hasDigits = false
        for step in steps {
            // Each known expression matches every character, so splitting again would be another tokenizer.
            guard !hasByteLevel else {
                throw failure(item, "expected nothing after ByteLevel, found \(step["type"]?.kind ?? step.kind)")
            }
            switch step["type"]?.string {
            case "Split"?:
                guard pattern == nil, !hasDigits else {
                    throw failure(item, "expected one Split or Digits, found two of them")
                }
                guard let expression = step["pattern"]?["Regex"]?.string,
                    let known = Self.expressions.first(where: { $0.1 == expression })
                else {
                    let found = step["pattern"]?["Regex"]?.string ?? step["pattern"]?["String"]?.string ?? "none"
                    throw failure(item, "expected the split pattern of GPT-2, Qwen2, o200k or Llama 3, found \(found)")
                }
                // As the matches cover everything, the two ways of keeping them are the same.
                let behavior = step["behavior"]?.string ?? "none"
                let isInverted = step["invert"]?.bool ?? false
                guard behavior == "Isolated" || (behavior == "Removed" && isInverted) else {
                    throw failure(item, "expected Split with behavior Isolated, found \(behavior)")
                }
                pattern = known.0
            case "Digits"?:
                guard pattern == nil, !hasDigits else {
                    throw failure(item, "expected one Split or Digits, found two of them")
                }
                guard step["individual_digits"]?.bool == true else {
                    throw failure(item, "expected Digits with individual_digits true, found false")
                }
                hasDigits = true
            case "ByteLevel"?:
                hasByteLevel = true
                if step["add_prefix_space"]?.bool ?? true {
                    throw failure(item, "expected ByteLevel with add_prefix_space false, found true")
                }
                if step["use_regex"]?.bool ?? true {
                    guard pattern == nil else {
                        throw failure(item, "expected ByteLevel with use_regex false after a Split")
                    }
                    pattern = hasDigits ? .smollm : .gpt2
                }
            default:
                throw failure(item, "expected Split, Digits or ByteLevel, found \(step["type"]?.kind ?? step.kind)")
            }
        }
        guard hasByteLevel, let pattern else {
            throw failure(item, "expected a Split by a known pattern, then ByteLevel")
        }
        return pattern
    }

    /// The token that a template puts before every text; nil if there is none.
    private func templateBos(_ value: JSONValue?) throws -> Int? {
        let item = "post_processor"
        guard let value, !value.isNull else { return nil }
        switch value["type"]?.string {
        case "ByteLevel"?: return nil
        case "Sequence"?:
            for step in value["processors"]?.array ?? [] {
                if let id = try templateBos(step) { return id }
            }
            return nil
        case "TemplateProcessing"?:
            let single = value["single"]?.array ?? []
            guard let place = single.firstIndex(where: { $0["Sequence"] != nil }), place <= 1, place == single.count - 1
            else {
                throw failure(item, "expected a template of at most one token and then the text")
            }
            if place == 0 { return nil }
            let name = single[0]["SpecialToken"]?["id"]?.string ?? ""
            let ids = value["special_tokens"]?[name]?["ids"]?.array ?? []
            guard ids.count == 1 else { throw failure(item, "expected one id for '\(name)'") }
            return try tokenID(ids[0], item)
        default:
            throw failure(item, "expected ByteLevel or TemplateProcessing, found \(value["type"]?.kind ?? value.kind)")
        }
    }
}
