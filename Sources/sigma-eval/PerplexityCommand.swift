import ArgumentParser
import Sigma
import SigmaCommand
import SigmaStudies

struct PerplexityCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "perplexity",
        abstract: "Measures how well a model predicts a text.",
        discussion: """
            The text is cut into windows of --context tokens without overlap (default: 2048, or the model's context if that is less); \
            each begins with bos if the tokenizer asks for one, and every token after a window's first is scored. nll is the mean \
            negative log-probability in nats, nll_se its standard error, perplexity its exponential.
            """)

    @OptionGroup var arguments: ScoringArguments

    func run() throws {
        try arguments.check()
        let bytes = try InputFile.bytes(of: arguments.file)
        let engine = try SigmaModel.loadEngine(
            path: arguments.compute.model.path, configuration: arguments.compute.configuration)
        let windows = try arguments.windows(bytes, engines: engine)
        let scorer = try Scorer(engine: engine, kvType: arguments.compute.kvType)
        Interrupt.install(secondEndsProcess: true)
        var bar = ProgressBar("perplexity")
        var result = Perplexity()
        let total = windows.reduce(0) { $0 + $1.scoredCount }
        for window in windows {
            try scorer.score(window.tokens, isCancelled: { Interrupt.isRequested }) { position, logits in
                guard window.isScored(after: position) else { return }
                result.add(-LogProbabilities(logits)[window.tokens[position + 1]])
                bar.update(Double(result.tokens) / Double(total))
            }
        }
        bar.finish()
        if arguments.json {
            var json = JSONWriter()
            json.object {
                $0.field("nll", result.nll)
                $0.field("nll_se", result.standardError)
                $0.field("perplexity", result.perplexity)
                $0.field("tokens", result.tokens)
            }
            try StandardOutput.writeJSON(json.text + "\n")
        } else {
            try StandardOutput.write(
                """
                nll         \(readable(result.nll)) nats per token, standard error \(readable(result.standardError))
                perplexity  \(readable(result.perplexity))
                tokens      \(result.tokens)

                """)
        }
    }
}

/// Six decimals, or Swift's word for what is not finite.
func readable(_ value: Double) -> String { value.isFinite ? JSONWriter.fixed(value, decimals: 6) : "\(value)" }
