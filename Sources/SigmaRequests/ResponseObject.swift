import Sigma

/// OpenAI's `response` object and its items.
struct ResponseObject {
    let head: AnswerHead
    let body: ResponsesBody
    let names: TokenNames

    var reasoningID: String { "rs_\(head.suffix)" }
    var messageID: String { "msg_\(head.suffix)" }
    func callItemID(_ index: Int) -> String { head.callID("fc", index) }

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
    func write(_ choice: ChatChoice, _ usage: AnswerUsage, to json: inout JSONWriter) {
        let answer = choice.whole
        write(status: status(of: answer), usage: usage, to: &json) { json in
            if !answer.reasoning.isEmpty { json.object { writeReasoning(answer.reasoning, to: &$0) } }
            if choice.hasMessage { json.object { writeMessage(choice, to: &$0) } }
            for (index, call) in choice.calls.enumerated() { json.object { writeCall(index, call, to: &$0) } }
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
        writeTools(to: &json)
        json.field("top_logprobs", body.chat.settings.logProbabilityCount ?? 0)
        json.field("top_p", options.topP)
        json.field("truncation", "disabled")
        json.key("usage")
        if let usage { json.object { write(usage, to: &$0) } } else { json.null() }
        json.field("user", orNull: nil)
        json.key("metadata")
        json.value(body.metadata ?? .object(JSONObject()))
    }

    private func writeTools(to json: inout JSONWriter) {
        let tools = body.chat.settings.tools
        switch tools?.choice {
        case .named(let name):
            json.object("tool_choice") { json in
                json.field("type", "function")
                json.field("name", name)
            }
        case .required: json.field("tool_choice", "required")
        case ToolSet.Choice.none?: json.field("tool_choice", "none")
        case .auto, nil: json.field("tool_choice", "auto")
        }
        json.array("tools") { json in
            for function in tools?.functions ?? [] {
                json.object { json in
                    json.field("type", "function")
                    json.field("name", function.name)
                    json.field("description", orNull: function.description)
                    json.key("parameters")
                    if let parameters = function.parameters { json.value(parameters) } else { json.null() }
                    json.field("strict", function.isStrict)
                }
            }
        }
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

    /// - Parameter choice: nil: it has only begun.
    func writeMessage(_ choice: ChatChoice?, to json: inout JSONWriter) {
        json.field("id", messageID)
        json.field("type", "message")
        json.field("role", "assistant")
        json.array("content") { json in
            if let choice { json.object { writeTextPart(choice.whole, to: &$0) } }
        }
        json.field("status", choice.map { $0.isTextComplete ? "completed" : "incomplete" } ?? "in_progress")
    }

    /// - Parameter call: without its arguments, it has only begun.
    func writeCall(_ index: Int, _ call: AnsweredCall, to json: inout JSONWriter) {
        json.field("id", callItemID(index))
        json.field("type", "function_call")
        json.field("call_id", head.callID("call", index))
        json.field("name", call.name)
        json.field("arguments", call.arguments)
        json.field("status", call.isComplete ? "completed" : "in_progress")
    }

    func writeTextPart(_ answer: ChatDelta, to json: inout JSONWriter) {
        json.field("type", "output_text")
        json.field("text", answer.content)
        json.array("annotations") { _ in }
        json.array("logprobs") { names.writeScores(of: answer.tokens, to: &$0) }
    }
}
