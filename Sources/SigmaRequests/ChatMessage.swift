import Sigma

/// A message of a chat's body.
package struct ChatMessage: Sendable, Equatable {
    package enum Role: String, Sendable, CaseIterable { case system, developer, user, assistant, tool }

    package var role: Role
    package var text: String
    /// The thinking before an assistant's message; empty: none.
    package var reasoning = ""
    /// The functions that an assistant's message calls.
    package var calls: [FunctionCall] = []

    init(_ role: Role, _ text: String, reasoning: String = "", calls: [FunctionCall] = []) {
        self.role = role
        self.text = text
        self.reasoning = reasoning
        self.calls = calls
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
            calls = try Self.calls(&fields)
            // What clients send back from an earlier answer.
            try fields.allow("annotations", only: .array([]))
            if fields.take("function_call") != nil {
                throw RequestError.unsupported(fields.path("function_call"), "is now called tool_calls")
            }
        // Results stand in the order in which they come; the model sees no ids.
        case .tool: fields.ignore("tool_call_id", "name")
        case .system, .developer, .user: break
        }
        try fields.finish()
    }

    private static func calls(_ message: inout FieldReader) throws(RequestError) -> [FunctionCall] {
        guard let value = message.take("tool_calls") else { return [] }
        let path = message.path("tool_calls")
        guard let list = value.array else {
            throw RequestError.invalid(path, "expected a list of calls, found \(value.kind)")
        }
        var calls: [FunctionCall] = []
        for (index, value) in list.enumerated() {
            var call = try FieldReader(value, at: "\(path)[\(index)]")
            let type = try call.string("type")
            guard type == nil || type == "function" else {
                throw RequestError.unsupported(
                    call.path("type"), "expected function, found \(JSONValue.string(type ?? "").kind)")
            }
            call.ignore("id", "index")
            guard let value = call.take("function") else {
                throw RequestError.invalid(call.path("function"), "is missing")
            }
            try call.finish()
            var function = try FieldReader(value, at: call.path("function"))
            calls.append(try FunctionCall(&function))
            try function.finish()
        }
        return calls
    }

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

extension FunctionCall {
    /// - Parameter fields: `name` and `arguments`, a string of JSON.
    init(_ fields: inout FieldReader) throws(RequestError) {
        guard let name = try fields.name("name") else {
            throw RequestError.invalid(fields.path("name"), "is missing")
        }
        guard let arguments = try fields.string("arguments") else {
            throw RequestError.invalid(fields.path("arguments"), "is missing")
        }
        self.init(name: name, arguments: arguments.isEmpty ? "{}" : arguments)
    }
}
