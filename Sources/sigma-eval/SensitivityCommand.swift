import ArgumentParser
import Sigma
import SigmaCommand
import SigmaConversion
import SigmaStudies

struct SensitivityCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sensitivity",
        abstract: "Measures what quantizing each tensor costs, for files of mixed types.",
        discussion: """
            The text is read once for every tensor (all experts of a layer together), with that tensor quantized to the smallest type \
            and everything else as it is. It measures the divergence from the unquantized model (see compare), and the squared error of \
            the tensor's weights in each type. sigma-convert --sensitivity chooses types by it. The model's weights must be floats and fit \
            in memory, beside one tensor in 32 bits. A thousand tokens are enough for a first look, some ten thousand for a file that \
            is kept.

            Example:
              sigma-convert ./Sigma-MoE-Tiny sigma-bf16.gguf --type bf16
              sigma-eval sensitivity --model sigma-bf16.gguf book.txt --output sigma.sensitivity
              sigma-convert ./Sigma-MoE-Tiny sigma.gguf --sensitivity sigma.sensitivity --size 8GiB
            """)

    @OptionGroup var arguments: ScoringArguments

    @Option(
        name: .shortAndLong, help: ArgumentHelp("The file to write (default: FILE.sensitivity).", valueName: "file"))
    var output: String?

    @Option(
        help: ArgumentHelp(
            "Weight errors by the importance that 'sigma-eval imatrix' has measured, as sigma-convert will.",
            valueName: "file"))
    var imatrix: String?

    func run() throws {
        try arguments.check()
        guard arguments.file != "-" || output != nil else {
            throw usageError("text from standard input has no name", remedy: "Name the file to write with --output.")
        }
        let output = output ?? arguments.file + ".sensitivity"
        guard !output.isEmpty else { throw usageError("--output must not be empty") }
        let path = try arguments.compute.model.path
        // Before the work, which can take hours.
        try OutputFile.check(output, inputs: [arguments.file, path] + (imatrix.map { [$0] } ?? []))
        let bytes = try InputFile.bytes(of: arguments.file)
        var configuration = arguments.compute.configuration
        // Only there weights can be replaced.
        if configuration.backend == .auto { configuration.backend = .cpu }
        configuration.usesFullHead = true
        let importance = try imatrix.map {
            try ImportanceMatrix(path: $0, for: try ModelFile(path: path).configuration)
        }
        let engine = try SigmaModel.loadEngine(path: path, configuration: configuration)
        let reference = try SigmaModel.loadEngine(path: path, configuration: configuration)
        let trial = try QuantizationTrial(
            engine: engine, importance: importance, threads: engine.backend.report.threads ?? 0)
        for (index, part) in trial.parts.enumerated() where trial.type(of: index) == nil { throw tooNarrow(part, path) }
        let windows = try arguments.windows(bytes, engines: engine)
        let scorer = try Scorer(engine: engine, kvType: arguments.compute.kvType)
        let referenceScorer = try Scorer(engine: reference, kvType: arguments.compute.kvType)
        Interrupt.install(secondEndsProcess: true)
        let tokenCount = windows.reduce(0) { $0 + $1.scoredCount }
        var bar = ProgressBar("sensitivity")
        var parts: [Sensitivity.Part] = []
        for (index, part) in trial.parts.enumerated() {
            bar.relabel(part.name)
            let type = trial.type(of: index)!
            let errors = try trial.replace(index, as: type)
            var divergence = Divergence()
            for window in windows {
                try scorer.score(window.tokens, beside: referenceScorer, isCancelled: { Interrupt.isRequested }) {
                    position, logits, others in
                    guard window.isScored(after: position) else { return }
                    divergence.add(reference: others, model: logits, next: window.tokens[position + 1])
                    let share = Double(divergence.positions) / Double(tokenCount)
                    bar.update((Double(index) + share) / Double(trial.parts.count))
                }
            }
            guard divergence.mean.isFinite else {
                throw SigmaError(
                    .damaged, "the model computes logits that are not finite", path: path, item: part.name)
            }
            parts.append(
                Sensitivity.Part(
                    name: part.name, matrices: part.matrices.count, rows: part.rows, columns: part.columns, type: type,
                    divergence: divergence.mean, errors: errors))
        }
        trial.restore()
        bar.finish()
        let sensitivity = Sensitivity(modelName: engine.model.name, tokenCount: tokenCount, parts: parts)
        var json = sensitivity.json
        try json.withUTF8 { try OutputFile.write(UnsafeRawBufferPointer($0), to: output) }
        if arguments.json {
            try StandardOutput.writeJSON(sensitivity.json)
        } else {
            try StandardOutput.write(table(sensitivity))
        }
        note("\(output): \(parts.count) tensors, \(tokenCount) tokens")
    }

    private func tooNarrow(_ part: WeightPlan.Part, _ path: String) -> SigmaError {
        SigmaError(
            .damaged, "rows of \(part.columns) weights cannot be quantized: expected a multiple of 32", path: path,
            item: part.name, remedy: "Convert this model with one --type: such rows become floats.")
    }

    /// The tensors that cost most for their size.
    private func table(_ sensitivity: Sensitivity) -> String {
        func perByte(_ part: Sensitivity.Part) -> Double {
            part.divergence / Double(part.matrices * part.type.matrixBytes(rows: part.rows, columns: part.columns))
        }
        let rows = sensitivity.parts.sorted { perByte($0) > perByte($1) }.prefix(12).map { part in
            TextTableRow(
                part.name, "\(part.type.name), KL \(readable(part.divergence)) nats",
                "\(readable(perByte(part) * 1_048_576)) per MiB")
        }
        return textTable(rows)
    }
}
