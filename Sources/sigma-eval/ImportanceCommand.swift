import ArgumentParser
import Sigma
import SigmaCommand
import SigmaStudies

struct ImportanceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "imatrix",
        abstract: "Measures how strong each input of a model's matrices is, for better quantization.",
        discussion: """
            The model reads the text in windows (see perplexity), and the mean square of every input of a weight matrix is gathered; for an \
            expert, over the tokens that chose it. sigma-convert --imatrix makes the errors of quantized weights small where these \
            inputs are large. Use the model in its own precision, and a text like those that it is meant for.

            Example:
              sigma-convert ./Sigma-MoE-Tiny sigma-bf16.gguf --type bf16
              sigma-eval imatrix --model sigma-bf16.gguf book.txt --output sigma.imatrix
              sigma-convert ./Sigma-MoE-Tiny sigma.gguf --type q4_k --imatrix sigma.imatrix
            """)

    @OptionGroup var arguments: ScoringArguments

    @Option(name: .shortAndLong, help: ArgumentHelp("The file to write (default: FILE.imatrix).", valueName: "file"))
    var output: String?

    func run() throws {
        try arguments.check()
        guard arguments.file != "-" || output != nil else {
            throw usageError("text from standard input has no name", remedy: "Name the file to write with --output.")
        }
        let output = output ?? arguments.file + ".imatrix"
        guard !output.isEmpty else { throw usageError("--output must not be empty") }
        let path = try arguments.compute.model.path
        // Before the work, which can take hours.
        try OutputFile.check(output, inputs: [arguments.file, path])
        let bytes = try InputFile.bytes(of: arguments.file)
        var configuration = arguments.compute.configuration
        // Only there every number that enters a matrix can be seen.
        if configuration.backend == .auto { configuration.backend = .cpu }
        // In front of the engine, whose memory budget counts what the process has by then.
        let sums = ImportanceSums(try ModelFile(path: path).configuration)
        let engine = try SigmaModel.loadEngine(path: path, configuration: configuration)
        let windows = try arguments.windows(bytes, engines: engine)
        let gatherer = try ImportanceGatherer(engine: engine, kvType: arguments.compute.kvType, sums: sums)
        Interrupt.install(secondEndsProcess: true)
        var bar = ProgressBar("imatrix")
        let total = windows.reduce(0) { $0 + $1.tokens.count }
        var done = 0
        for window in windows {
            try gatherer.add(window.tokens, isCancelled: { Interrupt.isRequested })
            done += window.tokens.count
            bar.update(Double(done) / Double(total))
        }
        bar.finish()
        let matrix = try gatherer.result()
        try matrix.write(to: output, for: engine.configuration)
        try report(matrix, engine.configuration, output)
    }

    private func report(_ matrix: ImportanceMatrix, _ configuration: ModelConfiguration, _ output: String) throws {
        // An expert has two entries.
        let inputs = Set((0..<configuration.layerCount).map { ImportanceMatrix.expertInput($0) })
        let experts = matrix.entries.filter { inputs.contains($0.name) }
        let silent = experts.reduce(0) { $0 + $1.counts.count { $0 == 0 } }
        let least = experts.flatMap(\.counts).filter { $0 > 0 }.min() ?? 0
        if arguments.json {
            var json = JSONWriter()
            json.object {
                $0.field("tokens", matrix.tokenCount)
                $0.field("experts", experts.reduce(0) { $0 + $1.groups })
                $0.field("experts_never_chosen", silent)
                $0.field("least_tokens_of_an_expert", Int(least))
                $0.field("output", output)
            }
            return try StandardOutput.writeJSON(json.text + "\n")
        }
        note("\(output): \(matrix.tokenCount) tokens")
        if silent > 0 {
            note(
                "\(silent) of \(experts.reduce(0) { $0 + $1.groups }) experts were never chosen and have their layer's mean"
            )
        }
    }
}
