import Sigma

/// The body of `POST /v1/chat/completions`, checked. docs/requests.md lists its fields.
package struct ChatCompletionBody: Sendable, Equatable {
    package var settings: AnswerSettings
    /// At least one; an assistant's at the end is continued.
    package var messages: [ChatMessage]

    /// A conversation that another protocol's body describes.
    init(_ settings: AnswerSettings, _ messages: [ChatMessage]) {
        self.settings = settings
        self.messages = messages
    }

    /// - Throws: `RequestError` naming the field that is to blame.
    package init(bytes: UnsafeRawBufferPointer) throws(RequestError) { try self.init(try JSONValue.request(bytes)) }

    package init(_ value: JSONValue) throws(RequestError) {
        var fields = try FieldReader(value)
        settings = try AnswerSettings(&fields)
        messages = []
        guard let list = fields.take("messages") else { throw RequestError.invalid("messages", "is missing") }
        guard let list = list.array, !list.isEmpty else {
            throw RequestError.invalid("messages", "expected a list of at least one message, found \(list.kind)")
        }
        for (index, message) in list.enumerated() {
            messages.append(try ChatMessage(message, at: "messages[\(index)]"))
        }
        if messages.last?.calls.isEmpty == false {
            throw RequestError.invalid("messages[\(messages.count - 1)].tool_calls", "have no results yet")
        }
        let continuesLast = messages.last?.role == .assistant
        try fields.allow(
            "continue_final_message", only: .bool(continuesLast),
            otherwise: continuesLast
                ? "an assistant's last message is always continued" : "the last message is not the assistant's")
        try fields.allow("add_generation_prompt", only: .bool(!continuesLast))
        try ThinkingFields(&fields).apply(to: &settings)
        try readLogProbabilities(&fields)
        settings.tools = try ToolFields.chat(&fields)
        try fields.allow("functions", only: .array([]), otherwise: "is now called tools")
        try fields.allow(
            "function_call", only: .string("none"), .string("auto"), otherwise: "is now called tool_choice")
        try readPrediction(&fields)
        try fields.allow("modalities", only: .array([.string("text")]))
        try fields.finish()
    }

    private mutating func readPrediction(_ fields: inout FieldReader) throws(RequestError) {
        guard let value = fields.take("prediction") else { return }
        var prediction = try FieldReader(value, at: "prediction")
        guard try prediction.string("type") == "content" else {
            throw RequestError.unsupported(prediction.path("type"), "must be \"content\"")
        }
        guard let content = prediction.take("content") else {
            throw RequestError.invalid(prediction.path("content"), "is missing")
        }
        settings.prediction = try ChatMessage.text(content, at: prediction.path("content"))
        try prediction.finish()
    }

    private mutating func readLogProbabilities(_ fields: inout FieldReader) throws(RequestError) {
        let isOn = try fields.bool("logprobs") ?? false
        let count = try fields.integer("top_logprobs", in: 0...Int64(RequestLimits.topLogProbabilities)) ?? 0
        guard isOn || count == 0 else {
            throw RequestError.invalid("top_logprobs", "needs logprobs, which is not true")
        }
        settings.logProbabilityCount = isOn ? count : nil
    }
}
