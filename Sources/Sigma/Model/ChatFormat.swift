/// How a conversation becomes a prompt. Kept in the model file, so that nothing is guessed at run time.
package struct ChatFormat: Sendable, Equatable {
    /// The turn markup.
    package enum Style: String, Sendable, CaseIterable {
        /// `<|role|>content<|end|>`, no newlines, bos first (Sigma).
        case sigma
        /// `<|im_start|>role\ncontent<|im_end|>\n` (Qwen).
        case chatml
        /// `<|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>`, bos first.
        case llama3
        /// System prompt, `<｜User｜>content`, `<｜Assistant｜>content<｜end▁of▁sentence｜>`, bos first (DeepSeek's distillations).
        case deepseek

        /// For messages.
        package static let names = "sigma, chatml, llama3 or deepseek"
    }

    package var style: Style
    /// Whether the model knows thinking: without it a prompt that asks for none needs no empty `<think></think>`.
    package var thinks: Bool
    /// Whether the prompt itself ends with `<think>` when thinking; otherwise the model writes it.
    package var opensThinking: Bool
    /// The system turn of a conversation without a system prompt; empty: there is none. `datePlace` in it is the date's.
    package var defaultSystem = ""
    /// What a system turn has before the system prompt. `datePlace` in it is the date's.
    package var systemPrefix = ""
    /// The date that prompts name, as `strftime` reads it: with its marks it is today's, without any always the same. Empty: prompts name none.
    package var date = ""
    /// Whether white space around messages is dropped.
    package var trimsMessages = false
    /// What a prompt has in the place of thinking where it asks for none, if the model knows thinking; nil: an empty thought.
    package var closedThinking: String?
    /// How functions and their calls are written.
    package var tools = ToolFormat.usual(.taggedJSON)
    /// Appended to the system prompt when thinking (paper, Table 5).
    package var thinkingPrompt: String
    /// Put before `</think>` when the thinking budget ends (paper, 4.3).
    package var closingPhrase: String
    /// Generation ends at any of these token ids.
    package var stopTokens: [Int32]

    package init(
        style: Style, thinks: Bool = true, opensThinking: Bool, thinkingPrompt: String, closingPhrase: String,
        stopTokens: [Int32]
    ) {
        self.style = style
        self.thinks = thinks
        self.opensThinking = opensThinking
        self.thinkingPrompt = thinkingPrompt
        self.closingPhrase = closingPhrase
        self.stopTokens = stopTokens
    }

    /// What stands for the date in other texts.
    package static let datePlace = "{{date}}"

    /// The text with the date in its place.
    package func dated(_ text: String, on day: CalendarDate = .now) -> String {
        guard !date.isEmpty else { return text }
        return text.replacing(Self.datePlace, with: day.text(date) ?? date)
    }

    package static let defaultThinkingPrompt =
        "To answer the user's question, you can first think about the reasoning process and then provide the user with "
        + "the answer. The think process are enclosed within <think> </think>."
    package static let defaultClosingPhrase =
        "\nI have thought about this for long enough and will now give the answer.\n"
}
