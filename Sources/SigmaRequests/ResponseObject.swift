import Sigma

/// OpenAI's `response` object and its items.
struct ResponseObject {
    let head: AnswerHead
    let body: ResponsesBody
    let names: TokenNames

    /// What the ids of an answer's parts have in common.
    private var suffix: Substring { head.id.drop { $0 != "_" } }
    var reasoningID: String { "rs\(suffix)" }
    var messageID: String { "msg\(suffix)" }

    func status(of answer: ChatDelta) -> String {
        switch answer.finish {
        case .stop: "completed"
        case .length, .context, .interrupted, nil: "incomplete"
        }
    }

    // MARK: - The response

    /// One that has begun.
    func write(to json: inout JSONWriter) { write(status: "in_progress", to: &json) { _ in } }

    /// One that failed.
    func write(_ error: RequestError, to json: inout JSONWriter) {
        write(status: "failed", error: error, to: &json) { _ in }
    }

    /// One that has ended.
    func write(_ answer: ChatDelta, _ usage: AnswerUsage, to json: inout JSONWriter) {
        write(status: status(of: answer), usage: usage, to: &json) { json in
            if !answer.reasoning.isEmpty { json.object { writeReasoning(answer.reasoning, to: &$0) } }
            json.object { writeMessage(answer, to: &$0) }
        }
    }

    private func write(
        status: String, error: RequestError? = nil, usage: AnswerUsage? = nil, to json: inout JSONWriter,
        output: (inout JSONWriter) -> Void
    ) {
        let options = body.chat.settings.options
        json.field("id", head.id)
        json.field("object", "response")
        json.field("created_at", head.created)
        json.field("status", status)
        json.field("background", false)
        if let error {
            json.object("error") { json in
                json.field("code", error.code ?? error.type)
                json.field("message", error.message)
            }
        } else {
            json.key("error")
            json.null()
        }
        if status == "incomplete" {
            json.object("incomplete_details") { $0.field("reason", "max_output_tokens") }
        } else {
            json.key("incomplete_details")
            json.null()
        }
        json.field("instructions", orNull: body.instructions)
        json.key("max_output_tokens")
        if let limit = body.maximumTokens { json.value(limit) } else { json.null() }
        json.field("model", head.model)
        json.array("output", output)
        json.field("parallel_tool_calls", body.allowsParallelTools)
        json.field("previous_response_id", orNull: nil)
        json.object("reasoning") { json in
            json.field("effort", orNull: body.effort)
            json.field("summary", orNull: nil)
        }
        json.field("service_tier", "default")
        json.field("store", false)
        json.field("temperature", options.temperature)
        json.object("text") { json in
            json.key("format")
            json.json(body.format?.text ?? #"{"type":"text"}"#)
        }
        json.field("tool_choice", "auto")
        json.array("tools") { _ in }
        json.field("top_logprobs", body.chat.settings.logProbabilityCount ?? 0)
        json.field("top_p", options.topP)
        json.field("truncation", "disabled")
        json.key("usage")
        if let usage { json.object { write(usage, to: &$0) } } else { json.null() }
        json.field("user", orNull: nil)
        json.key("metadata")
        json.value(body.metadata ?? .object(JSONObject()))
    }

    private func write(_ usage: AnswerUsage, to json: inout JSONWriter) {
        json.field("input_tokens", usage.promptTokens)
        json.object("input_tokens_details") { $0.field("cached_tokens", usage.cachedTokens) }
        json.field("output_tokens", usage.completionTokens)
        json.object("output_tokens_details") { $0.field("reasoning_tokens", usage.reasoningTokens) }
        json.field("total_tokens", usage.promptTokens + usage.completionTokens)
    }

    // MARK: - Items

    /// - Parameter text: nil: it has only begun.
    func writeReasoning(_ text: String?, to json: inout JSONWriter) {
        json.field("id", reasoningID)
        json.field("type", "reasoning")
        json.array("summary") { _ in }
        json.array("content") { json in
            if let text { json.object { writeReasoningPart(text, to: &$0) } }
        }
        json.field("encrypted_content", orNull: nil)
        json.field("status", text == nil ? "in_progress" : "completed")
    }

    func writeReasoningPart(_ text: String, to json: inout JSONWriter) {
        json.field("type", "reasoning_text")
        json.field("text", text)
    }

    /// - Parameter answer: nil: it has only begun.
    func writeMessage(_ answer: ChatDelta?, to json: inout JSONWriter) {
        json.field("id", messageID)
        json.field("type", "message")
        json.field("role", "assistant")
        json.array("content") { json in
            if let answer { json.object { writeTextPart(answer, to: &$0) } }
        }
        json.field("status", answer.map { status(of: $0) } ?? "in_progress")
    }

    func writeTextPart(_ answer: ChatDelta, to json: inout JSONWriter) {
        json.field("type", "output_text")
        json.field("text", answer.content)
        json.array("annotations") { _ in }
        json.array("logprobs") { names.writeScores(of: answer.tokens, to: &$0) }
    }
}
