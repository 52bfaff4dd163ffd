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
        try ThinkingFields(&fields).apply(to: &settings)
        try Self.readOutput(&fields, &settings)
        settings.tools = try ToolFields.messages(&fields)
        try fields.allow("mcp_servers", only: .array([]))
        try Self.readManagement(&fields)

        let system = try fields.take("system").map { value throws(RequestError) in try Self.system(value) } ?? ""
        guard let list = fields.takeExactly("messages") else { throw RequestError.invalid("messages", "is missing") }
        guard let list = list.array, !list.isEmpty else {
            throw RequestError.invalid("messages", "expected a list of at least one message, found \(list.kind)")
        }
        var messages = system.isEmpty ? [] : [ChatMessage(.system, system)]
        for (index, message) in list.enumerated() {
            messages += try MessagesInput.messages(message, at: "messages[\(index)]")
        }
        if messages.last?.calls.isEmpty == false {
            throw RequestError.invalid("messages[\(list.count - 1)]", "ends with calls that have no results yet")
        }
        chat = ChatCompletionBody(settings, messages)

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

    /// It can only take things out of the conversation, and nothing needs to be.
    private static func readManagement(_ fields: inout FieldReader) throws(RequestError) {
        guard let value = fields.take("context_management") else { return }
        var management = try FieldReader(value, at: "context_management")
        management.ignore("edits")
        try management.finish()
    }

    /// What some clients put before their instructions. It differs in every request, so no two would have a prefix in common.
    private static let billingHeader = "x-anthropic-billing-header"

    private static func system(_ value: JSONValue) throws(RequestError) -> String {
        if let text = value.string { return text }
        return try MessagesInput.texts(value, at: "system").drop { $0.hasPrefix(billingHeader) }.joined(separator: "\n")
    }
}
