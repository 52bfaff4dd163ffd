import ArgumentParser
import Sigma
import SigmaCommand
import SigmaStudies

struct CompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Measures how far a model's distributions are from another's.",
        discussion: """
            Both models read the same windows of the text (see perplexity), and their distributions of the next token are compared at \
            every scored position: KL(reference || model) in nats over the whole vocabulary, as mean, 99th percentile and maximum, and \
            the share of positions where both rank the same token first. nll is the model's, as in perplexity; nll_difference is how \
            much it is above the reference's. Standard errors treat positions as independent.
            """)

    @Option(help: ArgumentHelp("The model file to compare with.", valueName: "path"))
    var reference: String

    @OptionGroup var arguments: ScoringArguments

    /// What each of the two models may have: half of what was given, or of what there is where that does not hold both.
    private func memory() throws -> ByteCount? {
        if let given = arguments.compute.configuration.memory { return .bytes(given.bytes / 2) }
        let sizes = try [arguments.compute.model.path, reference].map { try InputFile.size(of: $0) ?? 0 }
        guard let budget = AvailableMemory.offer?.budget, sizes.reduce(0, +) > budget else { return nil }
        return .bytes(budget / 2)
    }

    private func load(_ path: String, _ memory: ByteCount?) throws -> Engine {
        var configuration = arguments.compute.configuration
        configuration.memory = memory
        do { return try SigmaModel.loadEngine(path: path, configuration: configuration) } catch var error as SigmaError
        {
            if case .raise(.memory, _) = error.remedy {
                error.message += "; each of the two models has half of the memory"
                error.remedy = .raise(.memory, least: nil)
            }
            throw error
        }
    }

    func run() throws {
        try arguments.check()
        let bytes = try InputFile.bytes(of: arguments.file)
        let memory = try memory()
        let engine = try load(arguments.compute.model.path, memory)
        let other = try load(reference, memory)
        try checkVocabularies(engine, other)
        let windows = try arguments.windows(bytes, engines: engine, other)
        let scorer = try Scorer(engine: engine, kvType: arguments.compute.kvType)
        let otherScorer = try Scorer(engine: other, kvType: arguments.compute.kvType)
        Interrupt.install(secondEndsProcess: true)
        var bar = ProgressBar("compare")
        var result = Divergence()
        let total = windows.reduce(0) { $0 + $1.scoredCount }
        for window in windows {
            try scorer.score(window.tokens, beside: otherScorer, isCancelled: { Interrupt.isRequested }) {
                position, logits, others in
                guard window.isScored(after: position) else { return }
                result.add(reference: others, model: logits, next: window.tokens[position + 1])
                bar.update(Double(result.positions) / Double(total))
            }
        }
        bar.finish()
        if arguments.json {
            var json = JSONWriter()
            json.object {
                $0.field("kl_mean", result.mean)
                $0.field("kl_se", result.standardError)
                $0.field("kl_p99", result.percentile(0.99))
                $0.field("kl_max", result.most)
                $0.field("top1_agreement", result.agreement)
                $0.field("nll", result.nll)
                $0.field("nll_difference", result.nllDifference)
                $0.field("nll_difference_se", result.nllDifferenceError)
                $0.field("tokens", result.positions)
            }
            try StandardOutput.writeJSON(json.text + "\n")
        } else {
            try StandardOutput.write(
                """
                kl_mean         \(readable(result.mean)) nats, standard error \(readable(result.standardError))
                kl_p99          \(readable(result.percentile(0.99))) nats
                kl_max          \(readable(result.most)) nats
                top1_agreement  \(readable(result.agreement))
                nll             \(readable(result.nll)) nats per token
                nll_difference  \(readable(result.nllDifference)) nats, standard error \(readable(result.nllDifferenceError))
                tokens          \(result.positions)

                """)
        }
    }

    private func checkVocabularies(_ engine: Engine, _ other: Engine) throws {
        let (size, otherSize) = (engine.vocabularySize, other.vocabularySize)
        guard size == otherSize else {
            throw SigmaError(
                .usage, "the reference has a vocabulary of \(otherSize) rows, and the model one of \(size)",
                path: reference,
                remedy: "Compare files that were made from one checkpoint.")
        }
        guard let definition = try engine.model.tokenizerDefinition(),
            let otherDefinition = try other.model.tokenizerDefinition()
        else { return }
        guard definition == otherDefinition else {
            throw SigmaError(
                .usage, "the reference's tokenizer is not the model's: the same ids mean other text", path: reference,
                remedy: "Compare files that were made from one checkpoint.")
        }
    }
}
