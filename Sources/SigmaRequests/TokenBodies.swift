import Sigma

/// The body of `POST /tokenize`: text whose special tokens are recognised.
package struct TokenizeBody: Sendable, Equatable {
    package var prompt: String
    /// Whether the tokens begin with a bos, where the tokenizer asks for one.
    package var addsSpecials: Bool

    package init(bytes: UnsafeRawBufferPointer) throws(RequestError) {
        var fields = try FieldReader(try JSONValue.request(bytes))
        _ = try fields.name("model")
        guard let prompt = try fields.string("prompt") else { throw RequestError.invalid("prompt", "is missing") }
        self.prompt = prompt
        addsSpecials = try fields.bool("add_special_tokens") ?? true
        try fields.finish()
    }
}

/// The body of `POST /detokenize`.
package struct DetokenizeBody: Sendable, Equatable {
    package var tokens: [Int32] = []

    package init(bytes: UnsafeRawBufferPointer, vocabularySize: Int) throws(RequestError) {
        var fields = try FieldReader(try JSONValue.request(bytes))
        _ = try fields.name("model")
        guard let value = fields.take("tokens") else { throw RequestError.invalid("tokens", "is missing") }
        guard let list = value.array else {
            throw RequestError.invalid("tokens", "expected a list of token ids, found \(value.kind)")
        }
        try fields.finish()
        for (index, element) in list.enumerated() {
            guard let id = element.integer.flatMap({ Int32(exactly: $0) }), id >= 0, Int(id) < vocabularySize else {
                throw RequestError.invalid(
                    "tokens[\(index)]", "expected a token id below \(vocabularySize), found \(element.kind)")
            }
            tokens.append(id)
        }
    }
}
