import Sigma

/// Why a request is refused, or failed: an HTTP status and OpenAI's error object.
package struct RequestError: Error, Sendable, Equatable {
    /// A prompt that does not fit, in tokens.
    package struct Overflow: Sendable, Equatable {
        package var promptTokens: Int
        package var contextLength: Int

        package init(promptTokens: Int, contextLength: Int) {
            self.promptTokens = promptTokens
            self.contextLength = contextLength
        }
    }

    package var status: Int
    package var message: String
    /// What a program can tell errors apart by; nil: the status says all.
    package var code: String?
    /// The field that is to blame, as a path: `messages[2].content[0]`.
    package var param: String?
    package var overflow: Overflow?

    package init(status: Int, _ message: String, code: String? = nil, param: String? = nil, overflow: Overflow? = nil) {
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.overflow = overflow
    }

    /// The kind of error in OpenAI's words.
    package var type: String {
        switch status {
        case 401: "authentication_error"
        case 403: "permission_error"
        case 429: "rate_limit_error"
        case 500...: "server_error"
        default: "invalid_request_error"
        }
    }

    /// `{"error":{"message":...,"type":...,"code":...,"param":...}}`
    package var json: String {
        var json = JSONWriter()
        write(to: &json)
        return json.text
    }

    func write(to json: inout JSONWriter) {
        json.object { json in
            json.object("error") { json in
                json.field("message", message)
                json.field("type", type)
                json.field("code", orNull: code)
                json.field("param", orNull: param)
                if let overflow {
                    json.field("n_prompt_tokens", overflow.promptTokens)
                    json.field("n_ctx", overflow.contextLength)
                }
            }
        }
    }
}

extension RequestError {
    /// A field with a value that makes no sense. The message need not name the field.
    static func invalid(_ param: String, _ message: String) -> RequestError {
        let message = SigmaError.printable(param.isEmpty ? message : "\(param): \(message)")
        return RequestError(status: 400, message, code: "invalid_value", param: param.isEmpty ? nil : param)
    }

    /// A field that would change the answer, and cannot be honoured.
    static func unsupported(_ param: String, _ message: String = "is not supported") -> RequestError {
        RequestError(
            status: 400, SigmaError.printable("\(param): \(message)"), code: "unsupported_parameter", param: param)
    }

    package static func unknownModel(_ name: String) -> RequestError {
        RequestError(
            status: 404, "there is no model '\(SigmaError.printable(name))' here", code: "model_not_found",
            param: "model")
    }

    static func overflow(promptTokens: Int, contextLength: Int, param: String) -> RequestError {
        RequestError(
            status: 400,
            "the prompt has \(promptTokens) tokens, and the context of \(contextLength) must hold it and an answer",
            code: "context_length_exceeded", param: param,
            overflow: Overflow(promptTokens: promptTokens, contextLength: contextLength))
    }

    /// What the engine says. Paths and remedies are the host's own and are left out.
    package init(_ error: SigmaError) {
        let status =
            switch error.kind {
            case .usage: 400
            case .unavailable, .interrupted: 503
            case .damaged, .noInput, .inputOutput: 500
            }
        self.init(status: status, SigmaError.printable(error.message))
    }
}

extension JSONWriter {
    mutating func field(_ key: String, orNull value: String?) {
        self.key(key)
        if let value { self.value(value) } else { null() }
    }
}
