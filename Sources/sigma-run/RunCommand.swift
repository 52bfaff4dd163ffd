import ArgumentParser
import Sigma
import SigmaCommand
import SigmaTerminal
import Synchronization

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sigma-run",
        abstract: "Answers a prompt with a Sigma model, or opens a chat.",
        usage: """
            sigma-run [options]                     a chat, on a terminal
            sigma-run [options] prompt-file         answers a file, or standard input as -
            sigma-run [options] --prompt text       answers a text
            """,
        discussion: """
            With a prompt, the answer goes to standard output as it is generated; thinking, notes and errors go to standard error. The \
            answer ends with a line end; with --raw and --tokens only on a terminal, so that pipes get exactly the generated text. Ctrl-C \
            stops the answer and keeps what was written; a second one ends the process.

            Without a prompt, on a terminal, it opens a chat: each message continues the conversation, and only new tokens are \
            computed. /help lists its commands. Ctrl-C stops an answer and keeps the conversation, Ctrl-D leaves. Alt-Enter \
            begins a new line, pasted text keeps its lines, Up and Ctrl-R find earlier messages, Ctrl-O shows the thinking.

            EXAMPLES:
              sigma-run
              sigma-run --session trip.chat --system "Answer in one sentence."
              sigma-run --prompt "What is 347 + 586?"
              sigma-run --no-think --temperature 0 question.txt > answer.txt
              cat notes.md | sigma-run --system "Summarise the text." -
              sigma-run --raw --max-tokens 32 --prompt "Once upon a time"
              sigma-run --thinking-budget 256 --thinking none --stats --prompt "How many days does a leap year have?"
              sigma-run --json-schema person.schema.json --prompt "Who wrote Dubliners?"
              sigma-run --choice yes --choice no --prompt "Is 91 a prime number?"
              sigma-run --drafts on --stats --prompt "Repeat: 12 24 36 48 60 72 84 96"
              sigma-run --json --logprobs 5 --seed 7 --prompt "Name a colour."
              sigma-run --batch questions.jsonl --output answers.jsonl
              sigma-run --json --max-tokens 0 --logprobs 1 --tokens 1,2,3

            ENVIRONMENT:
              SIGMA_MODEL             the model file, if --model does not name one
              SIGMA_INSTRUCTION_SET   portable, avx2, avx2vnni, avx512, neon or i8mm, instead of the best available
              NO_COLOR                no colour and no dimmed text
              XDG_STATE_HOME          where the chat keeps its history

            FILES:
              ~/.local/state/sigma/history   messages of earlier chats, readable by their owner alone
              ../share/sigma/demo.gguf       relative to the executable's folder: the model if none is named

            EXIT CODES:
              0     done
              64    wrong usage
              65    a damaged or wrong file
              66    no such file
              69    something is not available
              74    an I/O error
              130   interrupted
            """,
        version: sigmaVersion)

    @OptionGroup(title: "Prompt") var prompt: PromptArguments
    @OptionGroup(title: "Answer") var answer: AnswerArguments
    @OptionGroup(title: "Batch") var batch: BatchArguments
    @OptionGroup(title: "Constraint") var constraint: ConstraintArguments
    @OptionGroup(title: "Output") var output: OutputArguments
    @OptionGroup(title: "Chat") var chat: ChatArguments
    @OptionGroup(title: "Engine") var engine: EngineArguments

    mutating func run() throws {
        if let file = batch.batch { return try answerBatch(file) }
        guard batch.output == nil else { throw usageError("--output needs --batch") }
        let stopper = Stopper()
        Interrupt.install(secondEndsProcess: true)
        Interrupt.onRequest { stopper.stop() }

        // Everything that can be refused without a model comes before it.
        let options = try answer.options()
        let constraint = try constraint.constraint()
        try engine.compute.check()
        if let count = output.logprobs, count < 0 { throw usageError("--logprobs must be 0 or more, and is \(count)") }
        if prompt.given.isEmpty, !prompt.raw, !output.json, let device = TerminalDevice() {
            guard constraint == nil else { throw usageError("a constraint needs a prompt, and there is none") }
            return try converse(on: device, options)
        }
        let source = try PromptSource(prompt, limit: PromptSource.limit(self.engine.compute))
        guard chat.session == nil else {
            throw usageError("--session is for a chat, and there is a prompt", remedy: "Leave one of them out.")
        }

        let engine = try engine.load()
        if let count = output.logprobs, count > engine.vocabularySize {
            throw usageError(
                "--logprobs \(count) is more than the vocabulary",
                remedy: "The model has \(engine.vocabularySize) tokens.")
        }
        let compiled = try constraint.map { try engine.constraints.compiled($0) }
        let prompt = try source.prompt(for: engine, thinks: options.thinks)
        let trace = try output.trace(of: engine, inputs: [self.prompt.promptFile])
        let request = GenerationRequest(
            tokens: prompt.tokens, start: prompt.start, options: options, logProbabilityCount: output.logprobs,
            routingObserver: trace, constraint: compiled)
        giveAdvice(engine, prompt: prompt)
        let presenter = presenter(for: engine, hasTemplate: source.hasTemplate)
        let timeline = try engine.makeTimeline(kvType: self.engine.compute.kvType)
        let answer = try engine.answer(request, on: timeline)
        stopper.start(answer)
        let outcome = Result { try presenter.show(answer, promptTokens: prompt.tokens) }
        // The trace keeps what was computed, whatever happened afterwards.
        try trace?.close()
        guard let statistics = try outcome.get() else { return }
        noteEnd(statistics, engine: engine, hasTemplate: source.hasTemplate)
        let isInterrupted = statistics.reason == .interrupted
        if output.stats || (isInterrupted && !output.json) {
            StandardError.write(statisticsTable(statistics, engine: engine, kvType: self.engine.compute.kvType))
        }
        if isInterrupted { throw CancellationError() }
    }

    /// The lines say how they are answered.
    private func answerBatch(_ file: String) throws {
        guard prompt.given.isEmpty, chat.session == nil, !output.json, output.logprobs == nil else {
            throw usageError(
                "--batch has its prompts, and how they are answered, in the file", remedy: "Leave the others out.")
        }
        let isPlain = try answer.options() == GenerationOptions(drafts: answer.drafts)
        if !isPlain || prompt.raw || prompt.system != nil || prompt.systemFile != nil || constraint.isGiven
            || output.stats || output.expertTrace != nil || output.thinking != .stderr
        {
            warn("options of a single answer have no effect on a batch: its lines say how they are answered")
        }
        try engine.compute.check()
        if let output = batch.output {
            try OutputFile.refuse(output, as: [file].filter { $0 != "-" } + [engine.compute.model.path])
        }
        Interrupt.install(secondEndsProcess: true)
        let engine = try engine.load()
        try BatchCommand(
            input: file, output: batch.output, engine: engine, kvType: self.engine.compute.kvType,
            drafts: answer.drafts
        ).run()
    }

    private func converse(on device: TerminalDevice, _ options: GenerationOptions) throws {
        guard output.logprobs == nil else { throw usageError("--logprobs needs a prompt and --json") }
        let system = try PromptSource.system(prompt, limit: PromptSource.limit(self.engine.compute))
        let engine = try engine.load()
        let trace = try output.trace(of: engine, inputs: [chat.session])
        let model = SigmaModel(engine: engine, configuration: self.engine.configuration)
        let chat = try Chat(
            model, on: device,
            options: .init(
                generation: options, system: system, thinking: output.thinking.inChat, sessionPath: chat.session,
                showsStatistics: output.stats),
            observer: trace)
        let outcome = Result { try chat.run() }
        try trace?.close()
        try outcome.get()
    }

    private func presenter(for engine: Engine, hasTemplate: Bool) -> any Presenter {
        if output.json { return JSONLines(engine: engine) }
        return Screen(
            thinkingPlace: output.thinking, writesIDs: engine.tokenizer == nil,
            endsLine: hasTemplate || Terminal.standardOutputIsTerminal)
    }

    /// What is allowed, but hardly what the user wants.
    private func giveAdvice(_ engine: Engine, prompt: Prompt) {
        if output.logprobs != nil, !output.json { warn("--logprobs is shown only with --json") }
        let stated = engine.configuration.contextLength
        if engine.contextLength > stated {
            warn("the model states a context of \(stated) tokens; beyond it answers may be wrong")
        }
        warnOfMemory(engine, prompt: prompt)
        if let wanted = answer.maxTokens, wanted > engine.contextLength - prompt.tokens.count {
            warn(
                "the prompt's \(prompt.tokens.count) tokens and --max-tokens \(wanted) are more than the context of \(engine.contextLength)"
            )
        }
    }

    /// Keys and values take the place of experts until those of one token are left: a run that can come to that point should know.
    private func warnOfMemory(_ engine: Engine, prompt: Prompt) {
        let kvType = self.engine.compute.kvType
        let room = engine.positionLimit(kvType: kvType)
        guard room < engine.contextLength else { return }
        let answers = answer.maxTokens ?? 4096
        let thinking = answer.think && !self.prompt.raw && self.prompt.tokens == nil ? answer.thinkingBudget : 0
        let (wanted, overflows) = prompt.tokens.count.addingReportingOverflow(
            answers.addingReportingOverflow(thinking).partialValue)
        guard overflows || wanted > room else { return }
        warn(
            "the memory budget has room for the keys and values of \(room) tokens; the answer ends there"
                + (kvType == .q8_0 ? "" : " (--kv-type q8_0 has room for about twice as many)"))
    }

    private func noteEnd(_ statistics: Statistics, engine: Engine, hasTemplate: Bool) {
        switch statistics.reason {
        case .context:
            let room = engine.positionLimit(kvType: self.engine.compute.kvType)
            note(
                room < engine.contextLength
                    ? "The sequence reached what the memory budget has room for: \(room) tokens."
                    : "The sequence reached the context limit of \(engine.contextLength) tokens.")
        case .stop where hasTemplate && statistics.answerTokens == 0 && statistics.thinkingTokens > 0:
            note("There is no answer: the model ended its turn while it was thinking.")
        case .length where hasTemplate && statistics.answerTokens > 0:
            note("The answer reached its limit of \(statistics.answerTokens) tokens (--max-tokens).")
        default: break
        }
    }
}

extension OutputArguments.ThinkingPlace {
    fileprivate var inChat: AnswerView.Thinking {
        switch self {
        case .stderr: .folded
        case .stdout: .shown
        case .none: .hidden
        }
    }
}

/// What an interrupt stops: the answer, or the process while there is none.
final class Stopper: Sendable {
    private let answer = Mutex<Answer?>(nil)

    func start(_ answer: Answer) {
        self.answer.withLock { $0 = answer }
        // An interrupt that came just before.
        if Interrupt.isRequested { answer.cancel() }
    }

    func stop() {
        answer.withLock { answer in
            if let answer { answer.cancel() } else { endProcess(130) }
        }
    }
}
