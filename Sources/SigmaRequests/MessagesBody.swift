import Sigma

/// The body of Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`, checked: docs/requests.md lists its fields.
package struct MessagesBody: Sendable, Equatable {
    /// What is asked for, as a chat.
    package var chat: ChatCompletionBody

    /// - Throws: `RequestError` naming the field that is to blame.
    package init(bytes: UnsafeRawBufferPointer) throws(RequestError) { try self.init(try JSONValue.request(bytes)) }

    package init(_ value: JSONValue) throws(RequestError) {
        var fields = try FieldReader(value)
        var settings = try AnswerSettings(shared: &fields)
        if let limit = try fields.integer("max_tokens", in: AnswerSettings.tokenCounts) {
            settings.options.maximumTokens = limit
        }
        try settings.readStopStrings(&fields, "stop_sequences")
        // Clients of this protocol expect thinking only where they ask for it.
        settings.options.thinks = false
        try ThinkingFields(&fields).apply(to: &settings.options)
        try Self.readOutput(&fields, &settings)

        let system = try fields.take("system").map { value throws(RequestError) in try Self.system(value) } ?? ""
        guard let list = fields.take("messages") else { throw RequestError.invalid("messages", "is missing") }
        guard let list = list.array, !list.isEmpty else {
            throw RequestError.invalid("messages", "expected a list of at least one message, found \(list.kind)")
        }
        var messages = system.isEmpty ? [] : [ChatMessage(.system, system)]
        for (index, message) in list.enumerated() {
            messages.append(try Self.message(message, at: "messages[\(index)]"))
        }
        chat = ChatCompletionBody(settings, messages)

        try Self.refuseTools(&fields)
        fields.ignore("cache_control", "diagnostics", "inference_geo", "speed")
        try fields.finish()
    }

    /// One request.
    /// - Throws: `RequestError` for a conversation that the model cannot have, or that does not fit.
    package func resolve(in context: RequestContext) throws(RequestError) -> [GenerationRequest] {
        try chat.resolve(in: context)
    }

    /// Tokens of the prompt, whether it fits or not.
    package func promptTokens(in context: RequestContext) throws(RequestError) -> Int {
        do throws(RequestError) {
            return try resolve(in: context)[0].tokens.count
        } catch {
            guard let overflow = error.overflow else { throw error }
            return overflow.promptTokens
        }
    }

    // MARK: - Parts

    private static func readOutput(_ fields: inout FieldReader, _ settings: inout AnswerSettings) throws(RequestError) {
        guard let value = fields.takeExactly("output_config") else { return }
        var output = try FieldReader(value, at: "output_config")
        // The model knows no degrees of it.
        output.ignore("effort")
        if let format = output.takeExactly("format") {
            settings.constraint = try ConstraintFields(format: format, at: "output_config.format").constraint
        }
        try output.finish()
    }

    private static func refuseTools(_ fields: inout FieldReader) throws(RequestError) {
        let message = "tools are not supported yet"
        for key in ["tools", "mcp_servers"] { try fields.allow(key, only: .array([]), otherwise: message) }
        if let value = fields.take("tool_choice") {
            var choice = try FieldReader(value, at: "tool_choice")
            let type = try choice.string("type")
            guard type == "auto" || type == "none" else { throw RequestError.unsupported("tool_choice", message) }
            choice.ignore("disable_parallel_tool_use")
            try choice.finish()
        }
        // It can only take things out of the conversation, and nothing needs to be.
        if let value = fields.take("context_management") {
            var management = try FieldReader(value, at: "context_management")
            management.ignore("edits")
            try management.finish()
        }
    }

    /// What some clients put before their instructions. It differs in every request, so no two would have a prefix in common.
    private static let billingHeader = "x-anthropic-billing-header"

    private static func system(_ value: JSONValue) throws(RequestError) -> String {
        if let text = value.string { return text }
        let texts = try blocks(value, at: "system") { kind throws(RequestError) in
            guard kind.type == "text" else { throw kind.refusal }
        }
        return texts.text.drop { $0.hasPrefix(billingHeader) }.joined(separator: "\n")
    }

    private static func message(_ value: JSONValue, at path: String) throws(RequestError) -> ChatMessage {
        var fields = try FieldReader(value, at: path)
        let roles: [ChatMessage.Role] = [.user, .assistant, .system]
        guard let word = try fields.string("role") else {
            throw RequestError.invalid(fields.path("role"), "is missing")
        }
        guard let role = roles.first(where: { $0.rawValue == word }) else {
            throw RequestError.invalid(
                fields.path("role"), "expected user, assistant or system, found \(JSONValue.string(word).kind)")
        }
        guard let content = fields.take("content") else {
            throw RequestError.invalid(fields.path("content"), "is missing")
        }
        try fields.finish()
        if let text = content.string { return ChatMessage(role, text) }
        let parts = try blocks(content, at: fields.path("content")) { kind throws(RequestError) in
            let isThinking = kind.type == "thinking" || kind.type == "redacted_thinking"
            guard kind.type == "text" || (isThinking && role == .assistant) else { throw kind.refusal }
        }
        return ChatMessage(
            role, parts.text.joined(separator: "\n"), reasoning: parts.thinking.joined(separator: "\n"))
    }

    /// What a content block says that it is.
    private struct BlockKind {
        var type: String
        var path: String

        var refusal: RequestError {
            switch type {
            case "tool_use", "tool_result": .unsupported(path, "tools are not supported yet")
            default: .unsupported(path, "the model reads text only, and this block is \(JSONValue.string(type).kind)")
            }
        }
    }

    /// - Parameter check: throws for kinds of blocks that may not stand there.
    private static func blocks(
        _ value: JSONValue, at path: String, _ check: (BlockKind) throws(RequestError) -> Void
    ) throws(RequestError) -> (text: [String], thinking: [String]) {
        guard let blocks = value.array else {
            throw RequestError.invalid(path, "expected a string or a list of blocks, found \(value.kind)")
        }
        var texts: [String] = []
        var thinking: [String] = []
        for (index, block) in blocks.enumerated() {
            var fields = try FieldReader(block, at: "\(path)[\(index)]")
            guard let type = try fields.string("type") else {
                throw RequestError.invalid(fields.path("type"), "is missing")
            }
            try check(BlockKind(type: type, path: "\(path)[\(index)]"))
            switch type {
            case "text", "thinking":
                guard let text = try fields.string(type) else {
                    throw RequestError.invalid(fields.path(type), "is missing")
                }
                if type == "text" { texts.append(text) } else { thinking.append(text) }
                // Prefixes are kept without being told to.
                fields.ignore("cache_control", "citations", "signature")
            default:
                // Thinking that only its author can read.
                fields.ignore("data")
            }
            try fields.finish()
        }
        return (texts, thinking)
    }
}
