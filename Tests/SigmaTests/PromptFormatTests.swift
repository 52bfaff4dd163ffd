import Sigma
import Testing

/// Prompts of models that know no thinking, of tokens that take white space, and histories with thinking in them.
@Suite struct PromptFormatTests {
    private static let names = ["<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]

    private func tokenizer(_ matching: [Int32: TokenizerDefinition.Matching] = [:]) throws -> Tokenizer {
        try Tokenizer(
            TokenizerDefinition(
                tokens: TokenTable((0..<256).map { [UInt8($0)] } + Self.names.map { Array($0.utf8) }),
                kinds: Array(repeating: .normal, count: 256) + Self.names.map { _ in .control }, mergeRule: .byRank,
                pattern: .gpt2, normalizer: .none, bos: nil, eos: nil, addsBos: false, matching: matching))
    }

    private func format(_ style: ChatFormat.Style, thinks: Bool, opens: Bool = false) -> ChatFormat {
        ChatFormat(
            style: style, thinks: thinks, opensThinking: opens, thinkingPrompt: "", closingPhrase: "", stopTokens: [])
    }

    private func prompt(
        _ turns: [Turn], thinks: Bool, keepsThinking: Bool = false, _ format: ChatFormat,
        _ matching: [Int32: TokenizerDefinition.Matching] = [:]
    ) throws -> String {
        let tokenizer = try tokenizer(matching)
        let prompt = try Prompt(
            turns: turns, system: "", thinks: thinks, keepsThinking: keepsThinking, format: format,
            tokenizer: tokenizer)
        return String(decoding: tokenizer.decode(prompt.tokens, specials: .named), as: UTF8.self)
    }

    @Test func aModelWithoutThinkingNeedsNoEmptyBlock() throws {
        let turns = [Turn(.user, "q")]
        let chatml = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
        #expect(try prompt(turns, thinks: false, format(.chatml, thinks: false)) == chatml)
        #expect(try prompt(turns, thinks: true, format(.chatml, thinks: false)) == chatml)
        #expect(try prompt(turns, thinks: false, format(.chatml, thinks: true)) == chatml + "<think>\n\n</think>\n\n")
        #expect(try prompt(turns, thinks: true, format(.chatml, thinks: true)) == chatml)
        #expect(try prompt(turns, thinks: true, format(.chatml, thinks: true, opens: true)) == chatml + "<think>\n")
        let sigma = "<|user|>q<|end|><|assistant|>"
        #expect(try prompt(turns, thinks: false, format(.sigma, thinks: false)) == sigma)
        #expect(try prompt(turns, thinks: false, format(.sigma, thinks: true)) == sigma + "<think></think>")
        let history = [Turn(.user, "q"), Turn(.assistant, "a"), Turn(.user, "r")]
        #expect(
            try prompt(history, thinks: false, format(.sigma, thinks: false))
                == "<|user|>q<|end|><|assistant|>a<|end|><|user|>r<|end|><|assistant|>")
    }

    /// What `--no-think` starts with is the answer: it can be reused as it was generated.
    @Test func whereTheAnswerBegins() throws {
        let tokenizer = try tokenizer()
        let prompt = try Prompt(
            turns: [Turn(.user, "q")], system: "", thinks: false, format: format(.chatml, thinks: false),
            tokenizer: tokenizer)
        #expect(prompt.opening == [] && prompt.start == .answer)
    }

    @Test func lineEndsBehindThinkingAreNoAnswer() throws {
        let turns = [Turn(.user, "q"), Turn(.assistant, "\n\n a\nb\n", reasoning: "\nwhy\n\n"), Turn(.user, "r")]
        let end = "<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n"
        let begin = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
        let chatml = format(.chatml, thinks: true)
        #expect(try prompt(turns, thinks: true, chatml) == begin + " a\nb\n" + end)
        // Kept thinking stands on lines of its own, as Qwen's templates have it.
        #expect(
            try prompt(turns, thinks: true, keepsThinking: true, chatml)
                == begin + "<think>\nwhy\n</think>\n\n a\nb\n" + end)
        #expect(
            try prompt(turns, thinks: false, format(.sigma, thinks: true))
                == "<|user|>q<|end|><|assistant|><think></think> a\nb\n<|end|><|user|>r<|end|><|assistant|><think></think>"
        )
        // An answer that was not thought about begins as it was written.
        let plain = [Turn(.user, "q"), Turn(.assistant, "\na"), Turn(.user, "r")]
        #expect(try prompt(plain, thinks: true, chatml) == begin + "\na" + end)
    }

    /// The ids are those of the template's whole text in Hugging Face's tokenizers.
    @Test func tokensThatTakeWhiteSpace() throws {
        let turns = [Turn(.user, " q "), Turn(.assistant, "a"), Turn(.user, " \n ")]
        let (start, end, user, finish): (Int32, Int32, Int32, Int32) = (256, 257, 258, 261)
        let chatml = format(.chatml, thinks: false)
        #expect(
            try prompt(turns, thinks: false, chatml, [end: [.stripsLeft, .stripsRight], start: .stripsRight])
                == "<|im_start|>user\n q<|im_end|><|im_start|>assistant\na<|im_end|><|im_start|>user<|im_end|><|im_start|>assistant\n"
        )
        #expect(
            try prompt(turns, thinks: false, format(.sigma, thinks: false), [user: .stripsRight, finish: .stripsLeft])
                == "<|user|>q<|end|><|assistant|>a<|end|><|user|><|end|><|assistant|>")
    }
}
