import Sigma

/// What tokens are called in log-probabilities. Tokens with different bytes have different names.
package struct TokenNames: Sendable {
    private let tokenizer: Tokenizer?

    /// - Parameter tokenizer: nil for a model that only knows ids.
    package init(_ tokenizer: Tokenizer?) { self.tokenizer = tokenizer }

    /// The token's bytes; a special token's name; nil for an id without a token.
    func bytes(of id: Int32) -> [UInt8]? {
        guard let bytes = tokenizer?.bytes(of: id), !bytes.isEmpty else { return nil }
        return Array(bytes)
    }

    /// The token's text; `bytes:\xE2\x80` where it is not UTF-8; `token_id:7` for an id without a token.
    package func name(of id: Int32) -> String {
        guard let bytes = bytes(of: id) else { return Self.plainName(of: id) }
        if let text = String(validating: bytes, as: UTF8.self), !text.hasPrefix("bytes:\\x"),
            !text.hasPrefix("token_id:")
        {
            return text
        }
        var name = "bytes:"
        for byte in bytes {
            let hex = String(byte, radix: 16, uppercase: true)
            name += hex.utf8.count == 1 ? "\\x0\(hex)" : "\\x\(hex)"
        }
        return name
    }

    private static func plainName(of id: Int32) -> String { "token_id:\(id)" }

    /// Tokens by their names, as JSON needs them for keys: where two have the same bytes, the later one is called by its id.
    package func named(_ tokens: [TokenLogProbability]) -> [(name: String, logProbability: Double)] {
        var seen: Set<ByteKey> = []
        return tokens.map { token in
            let name = name(of: token.id)
            let isNew = seen.insert(ByteKey(text: name)).inserted
            return (isNew ? name : Self.plainName(of: token.id), token.logProbability)
        }
    }

    /// The text of prompt tokens, special tokens by their names.
    /// - Returns: the text, and for each token how many Unicode scalars of it stand before what the token completes.
    package func text(of tokens: some Sequence<Int32>) -> (text: String, offsets: [Int]) {
        guard let tokenizer else { return ("", tokens.map { _ in 0 }) }
        var decoder = StreamingDecoder(tokenizer)
        var text = ""
        var count = 0
        var offsets: [Int] = []
        func add(_ piece: String) {
            text += piece
            count += piece.unicodeScalars.count
        }
        for id in tokens {
            if tokenizer.isControl(id) {
                add(decoder.finish())
                offsets.append(count)
                add(name(of: id))
            } else {
                offsets.append(count)
                add(decoder.append(id))
            }
        }
        add(decoder.finish())
        return (text, offsets)
    }
}

extension JSONWriter {
    /// The shortest text that reads back as the same number: equal numbers are equal texts. OpenAI's -9999 means minus infinity.
    mutating func logProbability(_ value: Double) { self.value(value == -.infinity ? -9999 : value) }
}
