import ArgumentParser
import Sigma
import SigmaCommand

struct EvalCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sigma-eval",
        abstract: "Measures a model, and shows what its tokenizer does.",
        discussion: """
            EXAMPLES:
              sigma-eval perplexity --model sigma.gguf book.txt
              sigma-eval compare --model sigma-q8_0.gguf --reference sigma-bf16.gguf book.txt
              sigma-eval tokenize --model sigma.gguf book.txt > ids.json
              sigma-eval tokenize --model sigma.gguf --decode ids.json
              sigma-eval task --json
              sigma-eval routing --model sigma.gguf book.txt --plot routing.svg
            """,
        version: sigmaVersion,
        subcommands: [
            PerplexityCommand.self, CompareCommand.self, TokenizeCommand.self, TaskCommand.self, RoutingCommand.self,
        ])
}

/// A text, cut into windows.
struct ScoringArguments: ParsableArguments {
    @Argument(help: "A file whose bytes are scored as text, or - for standard input.")
    var file: String

    @OptionGroup var compute: ComputeOptions

    @Flag(help: "One JSON object on standard output.")
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
    func windows(_ bytes: [UInt8], engines: Engine...) throws -> [[Int32]] {
        guard let engine = engines.first(where: { $0.tokenizer != nil }), let tokenizer = engine.tokenizer else {
            throw engines[0].missingTokenizer
        }
        let stated = engines.map { $0.configuration.contextLength }.min() ?? 2048
        if let context = compute.context, context > stated {
            warn("the model states a context of \(stated) tokens; windows of \(context) go beyond it")
        }
        let length = max(2, compute.context ?? min(stated, 2048))
        let tokens = tokenizer.encode(bytes, recognizingSpecials: false)
        let windows = Scorer.windows(of: tokens, length: length, bos: tokenizer.addsBos ? tokenizer.bos : nil)
        guard !windows.isEmpty else {
            throw SigmaError(
                .damaged, "expected a text of several tokens, found \(tokens.count)",
                path: file == "-" ? "standard input" : file)
        }
        return windows
    }
}
