import Sigma

/// What every object and chunk of one answer begins with.
package struct AnswerHead: Sendable, Equatable {
    package var id: String
    /// Seconds since 1970.
    package var created: Int
    package var model: String

    package init(id: String, created: Int, model: String) {
        self.id = id
        self.created = created
        self.model = model
    }

    /// What the ids of an answer's parts have in common.
    var suffix: Substring { id.drop { $0 != "_" && $0 != "-" }.dropFirst() }

    /// The id of a call, which clients give back with its result.
    func callID(_ prefix: String, choice: Int = 0, _ index: Int) -> String { "\(prefix)_\(suffix)_\(choice)_\(index)" }

    /// One object, head first.
    func object(_ kind: String, _ body: (inout JSONWriter) -> Void) -> String {
        var json = JSONWriter()
        json.object { json in
            json.field("id", id)
            json.field("object", kind)
            json.field("created", created)
            json.field("model", model)
            body(&json)
        }
        return json.text
    }
}

extension FinishReason {
    /// In OpenAI's words; an interrupted answer has none there.
    var protocolName: String {
        switch self {
        case .stop: "stop"
        case .length, .context: "length"
        case .interrupted: "interrupted"
        }
    }
}
