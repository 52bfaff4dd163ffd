// What prepares prompts.
extension Engine {
    /// The conversation in the model's chat format.
    /// - Throws: `SigmaError(.damaged)` for a model file without tokenizer or chat format.
    package func prompt(
        turns: [Turn], system: String, options: GenerationOptions, asksForAnswer: Bool = true
    ) throws -> Prompt {
        guard let tokenizer else { throw missingTokenizer }
        guard let chatFormat else {
            throw SigmaError(
                .damaged, "the model file has no chat format, so it cannot hold a conversation", path: modelPath,
                remedy: "Give the prompt with its markup and without a template, or convert the checkpoint again.")
        }
        return try Prompt(
            turns: turns, system: system, thinks: options.thinks, keepsThinking: options.keepsThinking,
            asksForAnswer: asksForAnswer, format: chatFormat, tokenizer: tokenizer)
    }

    package func prompt(turns: [Turn], system: String, thinks: Bool) throws -> Prompt {
        try prompt(turns: turns, system: system, options: GenerationOptions(thinks: thinks))
    }

    /// Text without a template: bos if the tokenizer asks for one, and the specials that the text names.
    /// - Throws: `SigmaError(.damaged)` for a model file without tokenizer.
    package func rawPrompt(_ text: String) throws -> Prompt {
        guard let tokenizer else { throw missingTokenizer }
        return Prompt(raw: text, tokenizer: tokenizer)
    }

    package var missingTokenizer: SigmaError {
        SigmaError(
            .damaged, "the model file has no tokenizer, so it cannot read text", path: modelPath,
            remedy:
                "Convert a checkpoint folder that has its tokenizer files, or give the prompt as token ids."
        )
    }
}
