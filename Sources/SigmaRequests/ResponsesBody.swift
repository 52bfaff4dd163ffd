import Sigma

/// The body of `POST /v1/responses`, checked: docs/requests.md lists its fields. Nothing is kept between requests.
package struct ResponsesBody: Sendable, Equatable {
    /// What is asked for, as a chat.
    package var chat: ChatCompletionBody
    /// What the answer repeats as it was given.
    var instructions: String?
    var maximumTokens: Int?
    var effort: String?
    var format: JSONValue?
    var metadata: JSONValue?
    var allowsParallelTools = true

    /// - Throws: `RequestError` naming the field that is to blame.
    package init(bytes: UnsafeRawBufferPointer) throws(RequestError) { try self.init(try JSONValue.request(bytes)) }

    package init(_ value: JSONValue) throws(RequestError) {
        var fields = try FieldReader(value)
        for key in ["previous_response_id", "conversation"] where fields.take(key) != nil {
            throw RequestError.unsupported(key, "responses are not kept here; send the whole conversation as input")
        }
        metadata = fields.takeExactly("metadata")
        if let metadata, metadata.object == nil {
            throw RequestError.invalid("metadata", "expected an object, found \(metadata.kind)")
        }
        var settings = try AnswerSettings(shared: &fields)
        maximumTokens = try fields.integer("max_output_tokens", in: AnswerSettings.tokenCounts)
        if let maximumTokens { settings.options.maximumTokens = maximumTokens }
        let thinking = try ThinkingFields(&fields)
        thinking.apply(to: &settings)
        effort = thinking.effort
        try Self.readLogProbabilities(&fields, &settings)

        if let value = fields.takeExactly("text") {
            var text = try FieldReader(value, at: "text")
            format = text.takeExactly("format")
            if let format { settings.constraint = try ConstraintFields(format: format, at: "text.format").constraint }
            // The model knows no degrees of it.
            text.ignore("verbosity")
            try text.finish()
        }

        instructions = try fields.string("instructions")
        guard let input = fields.take("input") else { throw RequestError.invalid("input", "is missing") }
        let system = instructions.flatMap { $0.isEmpty ? nil : [ChatMessage(.system, $0)] } ?? []
        chat = ChatCompletionBody(settings, system + (try ResponsesInput.messages(input)))

        chat.settings.tools = try ToolFields.responses(&fields)
        allowsParallelTools = try fields.bool("parallel_tool_calls") ?? true
        fields.ignore(
            "user", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "client_metadata",
            "max_tool_calls")
        if let value = fields.take("stream_options") {
            var options = try FieldReader(value, at: "stream_options")
            options.ignore("include_obfuscation")
            try options.finish()
        }
        try fields.allow(
            "truncation", only: .string("disabled"), otherwise: "an input that does not fit is refused, never cut")
        try fields.allow("background", only: .bool(false), otherwise: "responses are not kept here")
        try fields.finish()
    }

    /// One request.
    /// - Throws: `RequestError` for a conversation that the model cannot have, or that does not fit.
    package func resolve(in context: RequestContext) throws(RequestError) -> [GenerationRequest] {
        try chat.resolve(in: context, from: "input")
    }

    /// `include` asks for further output; what does not exist here is left out of any answer.
    private static func readLogProbabilities(
        _ fields: inout FieldReader, _ settings: inout AnswerSettings
    ) throws(RequestError) {
        var isOn = false
        if let value = fields.take("include") {
            guard let list = value.array else {
                throw RequestError.invalid("include", "expected a list of strings, found \(value.kind)")
            }
            for (index, element) in list.enumerated() {
                guard let word = element.string else {
                    throw RequestError.invalid("include[\(index)]", "expected a string, found \(element.kind)")
                }
                if word == "message.output_text.logprobs" { isOn = true }
            }
        }
        let count = try fields.integer("top_logprobs", in: 0...Int64(RequestLimits.topLogProbabilities)) ?? 0
        guard isOn || count == 0 else {
            throw RequestError.invalid("top_logprobs", "needs message.output_text.logprobs in include")
        }
        settings.logProbabilityCount = isOn ? count : nil
    }
}
