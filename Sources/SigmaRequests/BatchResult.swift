import Sigma

/// A line of a batch's results.
package struct BatchResult: Sendable {
    package enum Outcome: Sendable {
        /// The answer's object, a JSON text.
        case answer(String)
        case failure(RequestError)
    }

    /// The result's own id.
    package var id: String
    package var requestID: String
    /// Nil where the line did not say it.
    package var customID: String?
    package var outcome: Outcome

    package init(id: String, requestID: String, customID: String?, outcome: Outcome) {
        self.id = id
        self.requestID = requestID
        self.customID = customID
        self.outcome = outcome
    }

    /// `{"id":...,"custom_id":...,"response":{"status_code":...,"request_id":...,"body":{...}},"error":null}`, without a line end.
    ///
    /// A failure is in both places that readers look at: as the response's body, and as `error`.
    package var json: String {
        var json = JSONWriter()
        json.object { json in
            json.field("id", id)
            json.field("custom_id", orNull: customID)
            json.object("response") { json in
                switch outcome {
                case .answer(let text):
                    json.field("status_code", 200)
                    json.field("request_id", requestID)
                    json.key("body")
                    json.json(text)
                case .failure(let error):
                    json.field("status_code", error.status)
                    json.field("request_id", requestID)
                    json.key("body")
                    error.write(to: &json)
                }
            }
            json.key("error")
            switch outcome {
            case .answer: json.null()
            case .failure(let error):
                json.object { json in
                    json.field("code", error.code ?? error.type)
                    json.field("message", error.message)
                }
            }
        }
        return json.text
    }
}
