import Sigma

/// The body of `POST /v1/completions`, checked. docs/requests.md lists its fields.
package struct CompletionBody: Sendable, Equatable {
    package enum GivenPrompt: Sendable, Equatable {
        /// Text as it is: no template, but bos if the tokenizer asks for one; special tokens in it are recognised.
        case text(String)
        /// Nothing is added.
        case tokens([Int32])
    }

    package var settings: AnswerSettings
    package var prompts: [GivenPrompt]
    /// Whether the body has a list of prompts.
    package var isList: Bool
    /// Whether the answer's text begins with the prompt, and its log-probabilities with the prompt's.
    package var echoes: Bool

    /// - Throws: `RequestError` naming the field that is to blame.
    package init(bytes: UnsafeRawBufferPointer) throws(RequestError) { try self.init(try JSONValue.request(bytes)) }

    package init(_ value: JSONValue) throws(RequestError) {
        var fields = try FieldReader(value)
        settings = try AnswerSettings(&fields)
        guard let prompt = fields.take("prompt") else { throw RequestError.invalid("prompt", "is missing") }
        (prompts, isList) = try Self.prompts(prompt)
        let choices = prompts.count * settings.choicesPerPrompt
        guard choices <= RequestLimits.choices else {
            throw RequestError.invalid(
                "prompt", "expected at most \(RequestLimits.choices) answers to all prompts, found \(choices)")
        }
        settings.logProbabilityCount = try fields.integer(
            "logprobs", in: 0...Int64(RequestLimits.topLogProbabilities))
        echoes = try fields.bool("echo") ?? false
        try fields.allow("suffix", only: .string(""))
        try fields.finish()
    }

    func path(ofPrompt index: Int) -> String { isList ? "prompt[\(index)]" : "prompt" }

    /// A string, token ids, or a list of either.
    private static func prompts(_ value: JSONValue) throws(RequestError) -> ([GivenPrompt], isList: Bool) {
        if let text = value.string { return ([.text(text)], false) }
        guard let list = value.array, let first = list.first else {
            throw RequestError.invalid(
                "prompt", "expected a string, token ids, or a list of them that is not empty, found \(value.kind)")
        }
        if first.double != nil { return ([.tokens(try ids(list, at: "prompt"))], false) }
        var prompts: [GivenPrompt] = []
        for (index, element) in list.enumerated() {
            let path = "prompt[\(index)]"
            switch (first, element) {
            case (.string, .string(let text)): prompts.append(.text(text))
            case (.array, .array(let list)): prompts.append(.tokens(try ids(list, at: path)))
            default:
                throw RequestError.invalid(
                    path, "expected strings only, or lists of token ids only, found \(element.kind)")
            }
        }
        return (prompts, true)
    }

    private static func ids(_ list: [JSONValue], at path: String) throws(RequestError) -> [Int32] {
        var ids: [Int32] = []
        ids.reserveCapacity(list.count)
        for (index, element) in list.enumerated() {
            guard let value = element.integer, let id = Int32(exactly: value), id >= 0 else {
                throw RequestError.invalid("\(path)[\(index)]", "expected a token id, found \(element.kind)")
            }
            ids.append(id)
        }
        return ids
    }
}
