import Sigma

/// A `.tiktoken` file: lines of a token's bytes in base64, a space, and its rank. Sigma's split pattern is o200k's.
struct TiktokenFile {
    /// Larger files are refused.
    private static let sizeLimit = 1 << 26

    /// The specials of Sigma's tokenizer, where `added_tokens_decoder` says nothing. 199998 and the ids from 200063 have no token, the
    /// others up to 200062 are dummies.
    static let specials: [(Int, String)] = [
        (199_999, "<|endoftext|>"), (200_000, "<|system|>"), (200_001, "<|user|>"), (200_002, "<|assistant|>"),
        (200_003, "<|end|>"), (200_004, "<code_FIM_begin>"), (200_005, "<code_FIM_hole>"), (200_006, "<code_FIM_end>"),
        (200_018, "<|endofprompt|>"),
    ]

    private let path: String
    private var ranks = TokenCollection()

    /// - Throws: `SigmaError`: as `MappedFile`; `.damaged` with the line's offset.
    init(path: String) throws {
        self.path = path
        let file = try MappedFile(path: path)
        try StandIn.check(file, expected: "a .tiktoken file")
        let bytes = file.bytes
        guard bytes.count <= Self.sizeLimit else {
            throw SigmaError(.damaged, "expected at most \(Self.sizeLimit) bytes, found \(bytes.count)", path: path)
        }
        var position = 0
        var token: [UInt8] = []
        while position < bytes.count {
            let start = position
            func failure(_ message: String) -> SigmaError {
                SigmaError(.damaged, message, path: path, offset: UInt64(start))
            }
            var end = position
            while end < bytes.count, bytes[end] != UInt8(ascii: "\n") { end += 1 }
            position = end + 1
            if end > start, bytes[end - 1] == UInt8(ascii: "\r") { end -= 1 }
            if end == start { continue }
            let line = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
            guard let space = line.firstIndex(of: UInt8(ascii: " ")) else { throw failure("expected 'base64 rank'") }
            token.removeAll(keepingCapacity: true)
            guard appendBase64(UnsafeRawBufferPointer(rebasing: line[..<space]), to: &token), !token.isEmpty else {
                throw failure("expected the token's bytes in base64")
            }
            guard let rank = Self.number(line[(space + 1)...]), rank < TokenCollection.idLimit else {
                throw failure("expected a rank below \(TokenCollection.idLimit)")
            }
            guard ranks.add(rank, token, .normal) else { throw failure("two tokens have the rank \(rank)") }
        }
        try file.checkIntact()
        guard !ranks.tokens.isEmpty else { throw SigmaError(.damaged, "the file has no tokens", path: path) }
    }

    /// - Throws: `SigmaError` (`.damaged`) if it isn't clear which specials belong to it.
    func definition(
        _ settings: TokenizerSettings, _ configuration: CheckpointConfiguration, _ overrides: Overrides
    ) throws -> TokenizerDefinition {
        var collection = ranks
        for (id, text, isSpecial, matching) in try specials(settings, overrides) {
            guard collection.addNamed(id, text, isSpecial: isSpecial, matching: matching) else {
                throw SigmaError(
                    .damaged, "the special token '\(text)' has the id \(id), which has a token already", path: path)
            }
        }
        return try collection.definition(
            settings, configuration, path: path, mergeRule: .byRank, pattern: .o200k, normalizer: .none,
            addsBos: try settings.bool("add_bos_token") ?? false, bos: nil)
    }

    private typealias Special = (Int, String, Bool, TokenizerDefinition.Matching)

    private func specials(_ settings: TokenizerSettings, _ overrides: Overrides) throws -> [Special] {
        let table: [Special] = Self.specials.map { ($0.0, $0.1, true, []) }
        if let given = overrides.text("tokenizer.specials") {
            if given == "sigma" { return table }
            guard let object = (try? JSONValue.parse(given))?.object else {
                throw SigmaError(
                    .usage,
                    "expected --override tokenizer.specials=sigma or a JSON object of names and ids, found '\(given)'")
            }
            return try zip(object.keys, object.values).map { text, value in
                guard let id = value.integer, (0..<Int64(TokenCollection.idLimit)).contains(id), !text.isEmpty else {
                    throw SigmaError(.usage, "tokenizer.specials: expected an id for '\(text)', found \(value.kind)")
                }
                return (Int(id), text, true, [])
            }
        }
        let key = "added_tokens_decoder"
        if let object = settings.json[key]?.object, object.count > 0 {
            return try zip(object.keys, object.values).map { name, token in
                guard let id = Int(name), (0..<TokenCollection.idLimit).contains(id),
                    let text = token["content"]?.string, !text.isEmpty
                else {
                    throw SigmaError(
                        .damaged, "expected an id and a token with content, found '\(name)'", path: settings.path,
                        item: key)
                }
                return (id, text, token["special"]?.bool ?? true, .init(flagsOf: token))
            }
        }
        guard !(settings.chatTemplate ?? "").contains("<|im_start|>") else {
            throw SigmaError(
                .damaged,
                "the chat template uses <|im_start|>, which belongs to an older numbering of the specials, and added_tokens_decoder is empty",
                path: settings.path, item: "chat_template",
                remedy:
                    "Give the numbering: --override 'tokenizer.specials={\"<|endoftext|>\":199999,\"<|im_start|>\":ID,\"<|im_end|>\":ID}', or --override tokenizer.specials=sigma for the current one."
            )
        }
        return table
    }

    private static func number(_ digits: Slice<UnsafeRawBufferPointer>) -> Int? {
        guard (1...9).contains(digits.count) else { return nil }
        var value = 0
        for byte in digits {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
            value = value * 10 + Int(byte - UInt8(ascii: "0"))
        }
        return value
    }
}

/// Appends the bytes that standard base64 (with padding) encodes.
///
/// - Returns: false if it isn't base64.
func appendBase64(_ text: UnsafeRawBufferPointer, to output: inout [UInt8]) -> Bool {
    guard text.count % 4 == 0 else { return false }
    var i = 0
    while i < text.count {
        var group: UInt32 = 0
        var padding = 0
        for k in 0..<4 {
            let byte = text[i + k]
            let value: UInt8
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = byte - UInt8(ascii: "A")
            case UInt8(ascii: "a")...UInt8(ascii: "z"): value = byte - UInt8(ascii: "a") + 26
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = byte - UInt8(ascii: "0") + 52
            case UInt8(ascii: "+"): value = 62
            case UInt8(ascii: "/"): value = 63
            case UInt8(ascii: "=") where k >= 2 && i + 4 == text.count:
                padding += 1
                value = 0
            default: return false
            }
            // Nothing follows padding.
            if padding > 0, byte != UInt8(ascii: "=") { return false }
            group = group << 6 | UInt32(value)
        }
        // The bits that padding cuts off must be zero.
        guard group & (1 << (8 * UInt32(padding)) - 1) == 0 else { return false }
        for k in 0..<3 - padding { output.append(UInt8(truncatingIfNeeded: group >> UInt32(16 - 8 * k))) }
        i += 4
    }
    return true
}
