import Sigma

/// A line of a batch file: `{"custom_id":...,"method":"POST","url":...,"body":{...}}`.
package struct BatchLine: Sendable, Equatable {
    package enum Body: Sendable, Equatable {
        case chat(ChatCompletionBody)
        case completion(CompletionBody)
    }

    /// Why a line cannot be answered, and whose it is, as far as it says so.
    package struct Refusal: Error, Sendable, Equatable {
        package var customID: String?
        package var error: RequestError
    }

    package var customID: String
    package var body: Body

    /// - Parameter bytes: the line without its end.
    package init(bytes: UnsafeRawBufferPointer) throws(Refusal) {
        var customID: String?
        do throws(RequestError) {
            // The body lies one level deep.
            let value = try JSONValue.request(bytes, nesting: RequestLimits.nesting + 1)
            var fields = try FieldReader(value)
            customID = try fields.name("custom_id")
            body = try Self.body(&fields)
            guard let customID else { throw RequestError.invalid("custom_id", "is missing") }
            self.customID = customID
        } catch {
            throw Refusal(customID: customID, error: error)
        }
    }

    private static func body(_ fields: inout FieldReader) throws(RequestError) -> Body {
        let method = try fields.string("method")
        let url = try fields.string("url")
        let body = fields.takeExactly("body")
        try fields.finish()
        guard method == "POST" else { throw RequestError.invalid("method", "expected POST, found \(words(method))") }
        guard let body else { throw RequestError.invalid("body", "is missing") }
        switch url {
        case "/v1/chat/completions":
            let chat = try ChatCompletionBody(body)
            try refuseStream(chat.settings)
            return .chat(chat)
        case "/v1/completions":
            let completion = try CompletionBody(body)
            try refuseStream(completion.settings)
            return .completion(completion)
        default:
            throw RequestError.invalid("url", "expected /v1/chat/completions or /v1/completions, found \(words(url))")
        }
    }

    private static func words(_ text: String?) -> String { text.map { JSONValue.string($0).kind } ?? "nothing" }

    private static func refuseStream(_ settings: AnswerSettings) throws(RequestError) {
        guard !settings.streams else { throw RequestError.unsupported("stream", "a batch has whole answers only") }
    }
}
