import Sigma
import SigmaConversion
import Testing

/// The chat format that a checkpoint's tokenizer, template and settings make, and overrides.
@Suite struct ChatImportTests {
    private let scratch: Scratch
    /// A Sigma checkpoint of 96 rows without a tokenizer.
    init() throws {
        scratch = try Scratch()
        try scratch.copyFixture("sigma-top1")
    }

    private func read(_ overrides: [String] = []) throws -> TokenizerImport {
        try TokenizerImport(scratch.path, scratch.configuration(overrides), overrides: Overrides(overrides))
    }
    private func write(_ change: (inout TokenizerParts) -> Void = { _ in }) throws {
        var parts = TokenizerParts()
        change(&parts)
        try scratch.write("tokenizer.json", parts.text)
    }
    private func expectRefused(
        _ item: String?, kind: SigmaError.Kind = .damaged, _ overrides: [String] = [],
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let error = sigmaError { _ = try read(overrides) }
        #expect(error?.kind == kind, "\(error?.description ?? "no error")", sourceLocation: sourceLocation)
        #expect(error?.item == item, "\(error?.description ?? "no error")", sourceLocation: sourceLocation)
    }

    @Test func sigmaChat() throws {
        try write { $0.added = TokenizerParts.markup }
        let read = try read()
        #expect(read.warnings.isEmpty)
        #expect(
            read.chatFormat
                == ChatFormat(
                    style: .sigma, opensThinking: true, thinkingPrompt: ChatFormat.defaultThinkingPrompt,
                    closingPhrase: ChatFormat.defaultClosingPhrase, stopTokens: [11, 7]))
    }

    @Test func chatSettings() throws {
        try write { $0.added = TokenizerParts.markup }
        try scratch.write(
            "tokenizer_config.json",
            #"{"sigma_chat":{"thinking_prompt":"Think.","opens_thinking":false,"closing_phrase":"Done."}}"#)
        var format = try read().chatFormat
        #expect(format.thinkingPrompt == "Think.")
        #expect(!format.opensThinking)
        #expect(format.closingPhrase == "Done.")
        format = try read(["chat.thinking_prompt=", "chat.opens_thinking=true", "chat.closing_phrase=x=y"]).chatFormat
        #expect(format.thinkingPrompt == "")
        #expect(format.opensThinking)
        #expect(format.closingPhrase == "x=y")
        expectRefused(nil, kind: .usage, ["chat.opens_thinking=perhaps"])
        expectRefused(nil, kind: .usage, ["chat.style=alpaca"])
        try scratch.write("tokenizer_config.json", #"{"sigma_chat":{"thinking_prompt":7}}"#)
        expectRefused("sigma_chat.thinking_prompt")
    }

    @Test func stopTokensOfTheCheckpoint() throws {
        try write { $0.added = TokenizerParts.markup }
        try scratch.write("generation_config.json", #"{"eos_token_id":[11,3,500]}"#)
        try scratch.changeConfig(["eos_token_id": "4"])
        #expect(try read().chatFormat.stopTokens == [11, 7, 4, 3])
    }

    @Test func qwenChat() throws {
        let qwen = try Scratch()
        try qwen.copyFixture("qwen3moe")
        var parts = TokenizerParts()
        parts.added =
            #"[{"id":7,"content":"<|endoftext|>","special":true},{"id":8,"content":"<|im_start|>","special":true},{"id":9,"content":"<|im_end|>","special":true}]"#
        try qwen.write("tokenizer.json", parts.text)
        try qwen.write("tokenizer_config.json", #"{"eos_token":"<|im_end|>","bos_token":null}"#)
        let read = try TokenizerImport(qwen.path, qwen.configuration(), overrides: Overrides())
        #expect(read.chatFormat.style == .chatml)
        #expect(!read.chatFormat.opensThinking)
        #expect(read.chatFormat.thinkingPrompt == "")
        #expect(read.chatFormat.stopTokens == [9, 7] && read.chatFormat.thinks)
        #expect(read.definition?.eos == 9)
        #expect(read.definition?.bos == nil)
        // What nobody has said is told, with what settles it.
        #expect(read.warnings.count == 1 && read.warnings.first?.contains("no chat template") == true)
        let settled = try TokenizerImport(
            qwen.path, qwen.configuration(), overrides: Overrides(["chat.opens_thinking=true"]))
        #expect(settled.warnings.isEmpty && settled.chatFormat.opensThinking)
    }

    /// A template decides, wherever it is; of several the default one.
    @Test func templatesOfCheckpoints() throws {
        let qwen = try Scratch()
        try qwen.copyFixture("qwen3moe")
        var parts = TokenizerParts()
        parts.added =
            #"[{"id":8,"content":"<|im_start|>","special":true},{"id":9,"content":"<|im_end|>","special":true}]"#
        try qwen.write("tokenizer.json", parts.text)
        let turns =
            "{% for m in messages %}<|im_start|>{{ m.role + '\\n' + m.content }}<|im_end|>{{ '\\n' }}{% endfor %}"
        let plain = turns + "{{ '<|im_start|>assistant\\n' }}"
        func format(_ settings: String, _ overrides: [String] = []) throws -> ChatFormat {
            try qwen.write("tokenizer_config.json", settings)
            let read = try TokenizerImport(qwen.path, qwen.configuration(), overrides: Overrides(overrides))
            #expect(read.warnings.isEmpty, "\(read.warnings)")
            return read.chatFormat
        }
        func json(_ text: String) -> String {
            var json = JSONWriter()
            json.value(text)
            return json.text
        }
        let opens = json(plain + "{{ '<think>\\n' }}")
        let one = try format("{\"chat_template\":\(opens)}")
        #expect(one.style == .chatml && one.opensThinking && one.thinks)
        let none = try format("{\"chat_template\":\(json(plain))}")
        #expect(!none.opensThinking && !none.thinks)
        #expect(try format("{\"chat_template\":\(json(plain))}", ["chat.thinks=true"]).thinks)
        #expect(try !format("{\"chat_template\":\(opens)}", ["chat.opens_thinking=false"]).opensThinking)
        let named = #"{"name":"tool_use","template":"x"},{"name":"default","template":"#
        #expect(try format("{\"chat_template\":[\(named)\(opens)}]}").opensThinking)
        try qwen.write("chat_template.json", "{\"chat_template\":\(opens)}")
        #expect(try format("{}").opensThinking)
        try qwen.write("chat_template.jinja", plain)
        #expect(try !format("{\"chat_template\":\(opens)}").opensThinking)
    }

    /// A Sigma template that doesn't name thinking doesn't say that the model cannot think: its formats are the paper's.
    @Test func sigmaTemplates() throws {
        try write { $0.added = TokenizerParts.markup }
        let turns =
            "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
        for (end, opens) in [("", true), ("<think>", true), ("{% if x %}<think>{% endif %}", false)] {
            try scratch.write("chat_template.jinja", turns + end)
            let read = try read()
            #expect(read.chatFormat.style == .sigma && read.chatFormat.thinks)
            #expect(read.chatFormat.opensThinking == opens && read.warnings.isEmpty, "\(end): \(read.warnings)")
        }
    }

    @Test func missingMarkupIsTold() throws {
        try write()
        #expect(try read().warnings.contains { $0.contains("<|user|>") })
    }

    @Test func olderSigmaTokenizersSpeakChatml() throws {
        try write {
            $0.added =
                #"[{"id":8,"content":"<|im_start|>","special":true},{"id":9,"content":"<|im_end|>","special":true}]"#
        }
        #expect(try read().chatFormat.style == .chatml)
        #expect(try read(["chat.style=sigma"]).chatFormat.style == .sigma)
    }
}
