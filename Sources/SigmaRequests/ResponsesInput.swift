import Sigma

/// The `input` of `POST /v1/responses` as messages.
enum ResponsesInput {
    static func messages(_ value: JSONValue) throws(RequestError) -> [ChatMessage] {
        if let text = value.string { return [ChatMessage(.user, text)] }
        guard let items = value.array, !items.isEmpty else {
            throw RequestError.invalid(
                "input", "expected a string or a list of at least one item, found \(value.kind)")
        }
        var messages: [ChatMessage] = []
        /// That of the assistant's message which follows.
        var reasoning = ""
        for (index, item) in items.enumerated() {
            var fields = try FieldReader(item, at: "input[\(index)]")
            switch try fields.string("type") ?? "message" {
            case "message":
                var message = try message(&fields)
                if message.role == .assistant { message.reasoning = reasoning }
                messages.append(message)
                reasoning = ""
            case "reasoning": reasoning = try Self.reasoning(&fields)
            case "function_call":
                fields.ignore("id", "call_id", "status", "namespace")
                let call = try FunctionCall(&fields)
                try fields.finish()
                // Calls that follow each other, or a message, are one answer's.
                if let last = messages.last, last.role == .assistant, reasoning.isEmpty {
                    messages[messages.count - 1].calls.append(call)
                } else {
                    messages.append(ChatMessage(.assistant, "", reasoning: reasoning, calls: [call]))
                }
                reasoning = ""
            case "function_call_output":
                fields.ignore("id", "call_id", "status")
                guard let output = fields.take("output") else {
                    throw RequestError.invalid(fields.path("output"), "is missing")
                }
                try fields.finish()
                messages.append(
                    ChatMessage(.tool, try text(output, ["input_text", "output_text"], at: fields.path("output"))))
                reasoning = ""
            case let type:
                throw RequestError.unsupported(
                    "input[\(index)]",
                    "expected a message, reasoning, a function_call or its output, found \(JSONValue.string(type).kind)"
                )
            }
        }
        guard !messages.isEmpty else { throw RequestError.invalid("input", "expected at least one message") }
        guard messages.last?.calls.isEmpty != false else {
            throw RequestError.invalid("input[\(items.count - 1)]", "has no output yet")
        }
        return messages
    }

    private static func message(_ fields: inout FieldReader) throws(RequestError) -> ChatMessage {
        let roles: [ChatMessage.Role] = [.system, .developer, .user, .assistant]
        guard let word = try fields.string("role") else {
            throw RequestError.invalid(fields.path("role"), "is missing")
        }
        guard let role = roles.first(where: { $0.rawValue == word }) else {
            throw RequestError.invalid(
                fields.path("role"),
                "expected \(roles.map(\.rawValue).joined(separator: ", ")), found \(JSONValue.string(word).kind)")
        }
        guard let content = fields.take("content") else {
            throw RequestError.invalid(fields.path("content"), "is missing")
        }
        // What clients send back from an earlier answer.
        fields.ignore("id", "status", "phase")
        try fields.finish()
        return ChatMessage(role, try text(content, ["input_text", "output_text", "text"], at: fields.path("content")))
    }

    private static func reasoning(_ fields: inout FieldReader) throws(RequestError) -> String {
        let content = fields.take("content")
        // A summary of what stands in the content, and what only OpenAI's servers can read.
        fields.ignore("id", "status", "summary", "encrypted_content")
        try fields.finish()
        guard let content else { return "" }
        return try text(content, ["reasoning_text", "text"], at: fields.path("content"))
    }

    /// A string, or text parts, which stand on lines of their own.
    private static func text(_ value: JSONValue, _ types: [String], at path: String) throws(RequestError) -> String {
        if let text = value.string { return text }
        guard let parts = value.array else {
            throw RequestError.invalid(path, "expected a string or a list of parts, found \(value.kind)")
        }
        var texts: [String] = []
        for (index, part) in parts.enumerated() {
            let path = "\(path)[\(index)]"
            var fields = try FieldReader(part, at: path)
            guard let type = try fields.string("type") else {
                throw RequestError.invalid(fields.path("type"), "is missing")
            }
            guard types.contains(type) else {
                throw RequestError.unsupported(
                    path, "expected \(types.joined(separator: " or ")), found \(JSONValue.string(type).kind)")
            }
            guard let text = try fields.string("text") else {
                throw RequestError.invalid(fields.path("text"), "is missing")
            }
            fields.ignore("annotations", "logprobs")
            try fields.finish()
            texts.append(text)
        }
        return texts.joined(separator: "\n")
    }
}
