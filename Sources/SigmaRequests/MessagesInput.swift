import Sigma

/// A message of `POST /v1/messages` as messages of a chat.
struct MessagesInput {
    /// As they stand in the block list: the results of functions have a message each.
    private var messages: [ChatMessage] = []
    private let role: ChatMessage.Role
    private var texts: [String] = []
    private var thinking: [String] = []
    private var calls: [FunctionCall] = []

    static func messages(_ value: JSONValue, at path: String) throws(RequestError) -> [ChatMessage] {
        var fields = try FieldReader(value, at: path)
        let roles: [ChatMessage.Role] = [.user, .assistant, .system]
        guard let word = try fields.string("role") else {
            throw RequestError.invalid(fields.path("role"), "is missing")
        }
        guard let role = roles.first(where: { $0.rawValue == word }) else {
            throw RequestError.invalid(
                fields.path("role"), "expected user, assistant or system, found \(JSONValue.string(word).kind)")
        }
        guard let content = fields.takeExactly("content") else {
            throw RequestError.invalid(fields.path("content"), "is missing")
        }
        try fields.finish()
        if let text = content.string { return [ChatMessage(role, text)] }
        var input = MessagesInput(role)
        for (path, block) in try blocks(content, at: fields.path("content")) { try input.read(block, at: path) }
        input.addMessage(always: input.messages.isEmpty)
        return input.messages
    }

    /// The texts of blocks that may be nothing else.
    static func texts(_ value: JSONValue, at path: String) throws(RequestError) -> [String] {
        if let text = value.string { return [text] }
        var input = MessagesInput(.system)
        for (path, block) in try blocks(value, at: path) { try input.read(block, at: path) }
        return input.texts
    }

    private init(_ role: ChatMessage.Role) { self.role = role }

    private static func blocks(_ value: JSONValue, at path: String) throws(RequestError) -> [(String, JSONValue)] {
        guard let blocks = value.array else {
            throw RequestError.invalid(path, "expected a string or a list of blocks, found \(value.kind)")
        }
        return blocks.enumerated().map { ("\(path)[\($0)]", $1) }
    }

    private mutating func read(_ block: JSONValue, at path: String) throws(RequestError) {
        var fields = try FieldReader(block, at: path)
        switch try fields.string("type") {
        case nil: throw RequestError.invalid(fields.path("type"), "is missing")
        case "text":
            texts.append(try Self.text(&fields, "text"))
            fields.ignore("citations", "signature")
        case "thinking" where role == .assistant:
            thinking.append(try Self.text(&fields, "thinking"))
            fields.ignore("citations", "signature")
        // Thinking that only its author can read.
        case "redacted_thinking" where role == .assistant:
            fields.ignore("data")
            return try fields.finish()
        case "tool_use" where role == .assistant: calls.append(try Self.call(&fields))
        case "tool_result" where role == .user:
            addMessage(always: false)
            messages.append(ChatMessage(.tool, try Self.result(&fields)))
        case let type?:
            throw RequestError.unsupported(
                path, "is not supported here, and is \(JSONValue.string(type).kind): the model reads text only")
        }
        // Prefixes are kept without being told to.
        fields.ignore("cache_control")
        try fields.finish()
    }

    /// Makes a message of what was read since the last one.
    private mutating func addMessage(always: Bool) {
        guard always || !texts.isEmpty || !thinking.isEmpty || !calls.isEmpty else { return }
        messages.append(
            ChatMessage(
                role, texts.joined(separator: "\n"), reasoning: thinking.joined(separator: "\n"), calls: calls))
        (texts, thinking, calls) = ([], [], [])
    }

    private static func text(_ fields: inout FieldReader, _ key: String) throws(RequestError) -> String {
        guard let text = try fields.string(key) else { throw RequestError.invalid(fields.path(key), "is missing") }
        return text
    }

    private static func call(_ fields: inout FieldReader) throws(RequestError) -> FunctionCall {
        guard let name = try fields.name("name") else {
            throw RequestError.invalid(fields.path("name"), "is missing")
        }
        let input = fields.takeExactly("input") ?? .object(JSONObject())
        guard input.object != nil else {
            throw RequestError.invalid(fields.path("input"), "expected an object, found \(input.kind)")
        }
        // The model sees no ids.
        fields.ignore("id", "caller")
        return FunctionCall(name: name, arguments: input.promptText)
    }

    private static func result(_ fields: inout FieldReader) throws(RequestError) -> String {
        // The results stand in the order in which they come, and say themselves what went wrong.
        fields.ignore("tool_use_id", "is_error")
        guard let content = fields.take("content") else { return "" }
        return try texts(content, at: fields.path("content")).joined(separator: "\n")
    }
}
