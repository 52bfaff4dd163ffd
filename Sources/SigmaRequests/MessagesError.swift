import Sigma

extension RequestError {
    /// The error in Anthropic's form: `{"type":"error","error":{"type":...,"message":...}}`
    package var messagesJSON: String {
        var json = JSONWriter()
        json.object { json in
            json.field("type", "error")
            json.object("error") { json in
                json.field("type", messagesType)
                json.field("message", message)
            }
        }
        return json.text
    }

    private var messagesType: String {
        switch status {
        case 401: "authentication_error"
        case 403: "permission_error"
        case 404: "not_found_error"
        case 413: "request_too_large"
        case 429: "rate_limit_error"
        case 503: "overloaded_error"
        case 500...: "api_error"
        default: "invalid_request_error"
        }
    }
}
