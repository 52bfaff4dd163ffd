import Sigma

/// Whether the model thinks, and for how many tokens, in every spelling that clients use. Two that contradict each other are refused. Beside them stands
/// what else a chat template can be told.
struct ThinkingFields {
    /// Nil: the body does not say.
    private(set) var thinks: Bool?
    private(set) var budget: Int?
    /// The date that the prompt names.
    private(set) var date: String?
    /// The word that the body has for how much the model thinks.
    private(set) var effort: String?

    init(_ fields: inout FieldReader) throws(RequestError) {
        try readSwitch(&fields, "enable_thinking")
        try readEffort(&fields, "reasoning_effort")
        for key in ["thinking_budget", "thinking_token_budget", "thinking_budget_tokens", "reasoning_budget_tokens"] {
            try readBudget(&fields, key)
        }
        // Hugging Face's arguments of a chat template.
        if let value = fields.take("chat_template_kwargs") {
            var arguments = try FieldReader(value, at: "chat_template_kwargs")
            try readSwitch(&arguments, "enable_thinking")
            try readSwitch(&arguments, "thinking")
            try readEffort(&arguments, "reasoning_effort")
            try readBudget(&arguments, "thinking_budget")
            date = try arguments.string("date_string")
            try arguments.allow("add_generation_prompt", only: .bool(true))
            try arguments.finish()
        }
        // Anthropic's.
        if let value = fields.take("thinking") {
            var thinking = try FieldReader(value, at: "thinking")
            switch try thinking.string("type") {
            case nil: break
            case "enabled", "adaptive": try set(true, "thinking.type")
            case "disabled": try set(false, "thinking.type")
            case let word?:
                throw RequestError.invalid(
                    "thinking.type", "expected enabled, adaptive or disabled, found \(JSONValue.string(word).kind)")
            }
            try readBudget(&thinking, "budget_tokens")
            // Thinking is shown as it is, never summarized.
            thinking.ignore("display")
            try thinking.finish()
        }
        // OpenRouter's, and that of OpenAI's Responses.
        if let value = fields.take("reasoning") {
            var reasoning = try FieldReader(value, at: "reasoning")
            try readSwitch(&reasoning, "enabled")
            try readEffort(&reasoning, "effort")
            try readBudget(&reasoning, "max_tokens")
            try reasoning.allow("exclude", only: .bool(false))
            // Thinking is shown as it is, never summarized.
            reasoning.ignore("summary", "generate_summary")
            try reasoning.finish()
        }
    }

    func apply(to settings: inout AnswerSettings) {
        if let thinks { settings.options.thinks = thinks }
        if let budget { settings.options.thinkingBudget = budget }
        settings.promptDate = date
    }

    private mutating func readSwitch(_ fields: inout FieldReader, _ key: String) throws(RequestError) {
        if let value = try fields.bool(key) { try set(value, fields.path(key)) }
    }

    /// The model knows no degrees: every effort but `none` is thinking.
    private mutating func readEffort(_ fields: inout FieldReader, _ key: String) throws(RequestError) {
        guard let word = try fields.string(key) else { return }
        let words = ["none", "minimal", "low", "medium", "high", "xhigh", "max"]
        guard words.contains(word) else {
            throw RequestError.invalid(
                fields.path(key),
                "expected \(words.joined(separator: ", ")), found \(JSONValue.string(word).kind)")
        }
        try set(word != "none", fields.path(key))
        effort = word
    }

    private mutating func readBudget(_ fields: inout FieldReader, _ key: String) throws(RequestError) {
        guard let value = try fields.integer(key, in: 0...Int64(Int32.max)) else { return }
        if let budget, budget != value {
            throw RequestError.invalid(
                fields.path(key), "is \(value), and another field that means the same is \(budget)")
        }
        budget = value
    }

    private mutating func set(_ value: Bool, _ path: String) throws(RequestError) {
        if let thinks, thinks != value {
            throw RequestError.invalid(
                path, "switches thinking \(value ? "on" : "off"), and another field does the opposite")
        }
        thinks = value
    }
}
