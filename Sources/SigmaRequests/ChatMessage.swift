import Sigma

/// A message of a chat's body.
package struct ChatMessage: Sendable, Equatable {
    package enum Role: String, Sendable, CaseIterable { case system, developer, user, assistant, tool }

    package var role: Role
    package var text: String
    /// The thinking before an assistant's message; empty: none.
    package var reasoning = ""

    init(_ role: Role, _ text: String, reasoning: String = "") {
        self.role = role
        self.text = text
        self.reasoning = reasoning
    }

    init(_ value: JSONValue, at path: String) throws(RequestError) {
        var fields = try FieldReader(value, at: path)
        guard let word = try fields.string("role") else {
            throw RequestError.invalid(fields.path("role"), "is missing")
        }
        guard let role = Role(rawValue: word) else {
            throw RequestError.invalid(
                fields.path("role"),
                "expected \(Role.allCases.map(\.rawValue).joined(separator: ", ")), found \(JSONValue.string(word).kind)"
            )
        }
        self.role = role
        let content = fields.take("content")
        guard content != nil || role == .assistant else {
            throw RequestError.invalid(fields.path("content"), "is missing")
        }
        text = try content.map { value throws(RequestError) in try Self.text(value, at: fields.path("content")) } ?? ""
        switch role {
        case .assistant:
            let names = ["reasoning_content", "reasoning"]
            for name in names {
                guard let text = try fields.string(name), text != reasoning else { continue }
                guard reasoning.isEmpty else {
                    throw RequestError.invalid(fields.path(name), "differs from \(names[0]), which means the same")
                }
                reasoning = text
            }
            try fields.allow("tool_calls", only: .array([]), otherwise: Self.noTools)
            // What clients send back from an earlier answer.
            try fields.allow("annotations", only: .array([]))
        case .tool: _ = try fields.name("tool_call_id")
        case .system, .developer, .user: break
        }
        try fields.finish()
    }

    private static let noTools = "tool calls are not supported yet"

    /// A string, or text parts, which stand on lines of their own.
    static func text(_ value: JSONValue, at path: String) throws(RequestError) -> String {
        if let text = value.string { return text }
        guard let parts = value.array else {
            throw RequestError.invalid(path, "expected a string or a list of parts, found \(value.kind)")
        }
        var texts: [String] = []
        for (index, part) in parts.enumerated() {
            let path = "\(path)[\(index)]"
            var fields = try FieldReader(part, at: path)
            switch try fields.string("type") {
            case nil: throw RequestError.invalid(fields.path("type"), "is missing")
            case "text": break
            case let type?:
                throw RequestError.unsupported(
                    path, "the model reads text only, and this part is \(JSONValue.string(type).kind)")
            }
            guard let text = try fields.string("text") else {
                throw RequestError.invalid(fields.path("text"), "is missing")
            }
            try fields.finish()
            texts.append(text)
        }
        return texts.joined(separator: "\n")
    }
}
