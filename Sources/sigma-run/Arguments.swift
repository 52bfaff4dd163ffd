import ArgumentParser
import Sigma
import SigmaCommand
import SigmaStudies

/// What is to be answered.
struct PromptArguments: ParsableArguments {
    @Argument(
        help: ArgumentHelp(
            "A text file with the prompt, or - for standard input. A single trailing newline is not part of the prompt (with --raw it is).",
            valueName: "prompt-file"))
    var promptFile: String?

    @Option(parsing: .unconditional, help: ArgumentHelp("The prompt itself.", valueName: "text"))
    var prompt: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Token ids as the prompt, without template and bos. A JSON array works too.", valueName: "1,2,3"))
    var tokens: String?

    @Flag(
        help:
            "Use the prompt's text as it is, without the chat template (but with bos if the tokenizer asks for one). Special tokens in it are recognised."
    )
    var raw = false

    @Option(parsing: .unconditional, help: ArgumentHelp("System prompt.", valueName: "text"))
    var system: String?

    @Option(help: ArgumentHelp("A text file with the system prompt, or - for standard input.", valueName: "file"))
    var systemFile: String?

    /// The prompts that were given, in words.
    var given: [String] {
        [
            promptFile.map { _ in "a prompt file" }, prompt.map { _ in "--prompt" }, tokens.map { _ in "--tokens" },
        ].compactMap { $0 }
    }
}

/// The conversation that opens without a prompt.
struct ChatArguments: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Continue the conversation in this file, if it exists, and write it when the chat ends.",
            valueName: "file"))
    var session: String?
}

/// How the answer is made.
struct AnswerArguments: ParsableArguments {
    @Flag(inversion: .prefixedNo, help: "Whether the model thinks before it answers.")
    var think = true

    @Option(parsing: .unconditional, help: ArgumentHelp("Limit on the tokens of thinking.", valueName: "n"))
    var thinkingBudget = 32768

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Limit on the tokens of the answer; 0 only reads the prompt. With --raw and --tokens it is the only limit. (default: 4096)",
            valueName: "n"))
    var maxTokens: Int?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Text to insert before </think> when the thinking budget ends (default: the model file's sentence).",
            valueName: "text"))
    var closingPhrase: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Divides the logits; 0 always takes the likeliest token.", valueName: "t"))
    var temperature = 0.6

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Choose among the k likeliest tokens only; 0: all.", valueName: "k"))
    var topK = 20

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Choose among the likeliest tokens that together have probability p; 1: all.", valueName: "p"))
    var topP = 0.95

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Choose among tokens at least p times as likely as the likeliest; 0: all.", valueName: "p"))
    var minP = 0.0

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("The same seed gives the same answer (default: random, shown by --stats).", valueName: "n"))
    var seed: UInt64?

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("End the answer before this text. May be repeated.", valueName: "text"))
    var stop: [String] = []

    @Option(
        help: ArgumentHelp(
            "Guess the next tokens from the text so far and verify several in one step: auto (if measured costs say that it pays), on or off. Changes only the speed.",
            valueName: "mode"))
    var drafts: DraftMode = .auto

    /// - Throws: `SigmaError` (`.usage`) naming the first value that makes no sense.
    func options() throws -> GenerationOptions {
        let options = GenerationOptions(
            temperature: temperature, topK: topK, topP: topP, minP: minP, seed: seed, thinks: think,
            thinkingBudget: thinkingBudget, maximumTokens: maxTokens ?? 4096, closingPhrase: closingPhrase,
            stopStrings: stop, drafts: drafts)
        try options.check()
        guard !stop.contains("") else { throw usageError("--stop needs a text that is not empty") }
        return options
    }
}

/// What is shown, and where.
struct OutputArguments: ParsableArguments {
    enum ThinkingPlace: String, ExpressibleByArgument, CaseIterable { case stderr, stdout, none }

    @Option(
        help: ArgumentHelp(
            "Where to show thinking: stderr (dimmed on a terminal), stdout or none. In a chat, stderr folds it to a line and stdout shows it in full.",
            valueName: "place"))
    var thinking: ThinkingPlace = .stderr

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "With --json, write the log-probabilities of the k likeliest tokens at each step, in the model's own distribution.",
            valueName: "k"))
    var logprobs: Int?

    @Flag(help: "Write JSON lines to standard output: prompt, token, ..., done. They include the thinking.")
    var json = false

    @Flag(help: "Write a short table of speeds and memory to standard error at the end (in a chat, after each answer).")
    var stats = false

    @Option(
        help: ArgumentHelp(
            "Record which experts every token uses, for sigma-bench simulate and sigma-eval routing.", valueName: "file"
        ))
    var expertTrace: String?

    /// - Parameter inputs: files that are read beside the model, none of which it may be.
    /// - Throws: `SigmaError`: `.damaged` for a model without routers; as `OutputFile.check` and `open`.
    func trace(of engine: Engine, inputs: [String?]) throws -> ExpertTraceWriter? {
        guard let path = expertTrace else { return nil }
        try OutputFile.check(path, inputs: inputs.compactMap { $0 } + [engine.modelPath])
        let model = ExpertTrace.Model(engine.model)
        guard model.choicesPerToken > 0 else {
            throw SigmaError(
                .damaged, "the model has no routers, so there are no experts to trace", path: engine.modelPath)
        }
        return try ExpertTraceWriter(path: path, model: model)
    }
}
