import ArgumentParser
import Sigma
import SigmaCommand
import SigmaStudies

struct EvalCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sigma-eval",
        abstract: "Measures a model's quality, and encodes and decodes text with its tokenizer.",
        discussion: """
            EXAMPLES:
              sigma-eval perplexity --model sigma.gguf book.txt
              sigma-eval compare --model sigma-q8_0.gguf --reference sigma-bf16.gguf book.txt
              sigma-eval tokenize --model sigma.gguf book.txt > ids.json
              sigma-eval tokenize --model sigma.gguf --decode ids.json
              sigma-eval task --json
              sigma-eval routing --model sigma.gguf book.txt --plot routing.svg
              sigma-eval head --model sigma.gguf book.txt
              sigma-eval loglikelihood --model sigma.gguf questions.jsonl
              sigma-eval constraints --model sigma.gguf schemas.jsonl.gz
              sigma-eval imatrix --model sigma-bf16.gguf book.txt --output sigma.imatrix
              sigma-eval sensitivity --model sigma-bf16.gguf book.txt --output sigma.sensitivity
            """,
        version: sigmaVersion,
        subcommands: [
            PerplexityCommand.self, CompareCommand.self, TokenizeCommand.self, TaskCommand.self, RoutingCommand.self,
            ImportanceCommand.self, SensitivityCommand.self, HeadCommand.self, ConstraintsCommand.self,
            LoglikelihoodCommand.self,
        ])
}

/// A text, cut into windows.
struct ScoringArguments: ParsableArguments {
    @Argument(help: "A file whose bytes are scored as text, or - for standard input.")
    var file: String

    @OptionGroup var compute: ComputeOptions

    @Flag(
        help: """
            The text is conversations in the model's chat format: special tokens are recognised, each bos begins a new window, and only \
            the assistant's turns are scored.
            """)
    var conversations = false

    @Flag(help: "Write one JSON object to standard output.")
    var json = false

    /// - Throws: `SigmaError(.usage)`.
    func check() throws {
        try compute.check()
        if let context = compute.context, context < 2 {
            throw usageError("--context must be at least 2, so that a token follows another, and is \(context)")
        }
    }

    /// The file's tokens in windows. `--context` is the windows' length; else 2048, or what the models can if that is less.
    ///
    /// - Throws: `SigmaError(.damaged)` for a text without a token to score, or models without tokenizer.
    func windows(_ bytes: [UInt8], engines: Engine...) throws -> [ScoredWindow] {
        guard let engine = engines.first(where: { $0.tokenizer != nil }), let tokenizer = engine.tokenizer else {
            throw engines[0].missingTokenizer
        }
        let stated = engines.map { $0.configuration.contextLength }.min() ?? 2048
        if let context = compute.context, context > stated {
            warn("the model states a context of \(stated) tokens; windows of \(context) go beyond it")
        }
        let length = max(2, compute.context ?? min(stated, 2048))
        let tokens = tokenizer.encode(bytes, recognizingSpecials: conversations)
        let windows =
            conversations
            ? try ScoredWindow.conversations(tokens, length: length, engine, tokenizer)
            : Scorer.windows(of: tokens, length: length, bos: tokenizer.addsBos ? tokenizer.bos : nil).map {
                ScoredWindow(tokens: $0, isScored: nil)
            }
        guard windows.contains(where: { $0.scoredCount > 0 }) else {
            throw SigmaError(
                .damaged,
                conversations
                    ? "expected conversations in the model's chat format, found \(tokens.count) tokens and no reply"
                    : "expected a text of several tokens, found \(tokens.count)",
                path: InputFile.name(of: file))
        }
        return windows
    }
}

/// A window, and which of its tokens count.
struct ScoredWindow {
    let tokens: [Int32]
    /// [tokens]; nil: all but the first.
    let isScored: [Bool]?

    var scoredCount: Int { isScored.map { $0.count { $0 } } ?? tokens.count - 1 }
    /// Whether the token after this position counts.
    func isScored(after position: Int) -> Bool { isScored.map { $0[position + 1] } ?? true }

    /// A window for each conversation (several for one that is longer than a window): what follows the assistant's header counts, to
    /// the stop token and with it. The opening tags of a thought are part of the prompt.
    ///
    /// - Throws: `SigmaError(.damaged)` for a model without a chat format.
    static func conversations(
        _ tokens: [Int32], length: Int, _ engine: Engine, _ tokenizer: Tokenizer
    ) throws -> [ScoredWindow] {
        guard let format = engine.chatFormat, let header = format.assistantHeader(tokenizer) else {
            throw SigmaError(.damaged, "the model has no chat format", path: engine.modelPath)
        }
        let openings = ["<think></think>", "<think>"].map { tokenizer.encode($0, recognizingSpecials: true) }
        var isScored = [Bool](repeating: false, count: tokens.count)
        var position = 0
        var replies = false
        while position < tokens.count {
            if !replies, tokens[position...].starts(with: header) {
                position += header.count
                if let opening = openings.first(where: { tokens[position...].starts(with: $0) }) {
                    position += opening.count
                }
                replies = true
                continue
            }
            isScored[position] = replies
            if engine.stopTokens.contains(tokens[position]) { replies = false }
            position += 1
        }
        let starts = tokens.indices.filter { $0 == 0 || tokens[$0] == tokenizer.bos } + [tokens.count]
        return zip(starts, starts.dropFirst()).flatMap { start, end in
            stride(from: start, to: end, by: length).map { first in
                let part = first..<min(first + length, end)
                var scored = Array(isScored[part])
                scored[0] = false
                return ScoredWindow(tokens: Array(tokens[part]), isScored: scored)
            }
        }.filter { $0.tokens.count >= 2 }
    }
}
