import ArgumentParser
import Sigma
import SigmaCommand
import SigmaStudies

struct RoutingCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "routing",
        abstract: "Measures how evenly texts use a model's experts, and the hit rates of expert caches.",
        discussion: """
            Per layer: the token allocation f, the gating probability p, the paper's load-balancing losses (equations 1 and 2), the \
            deviation of the most and the least used expert, entropy, unused experts, and the margin of the router's choices. For all \
            layers together: how soon experts are used again, and the hit rates of caches of every size, for LRU and for the optimum.

            The texts may have any length: they are read in pieces, in windows of --context tokens without overlap (default: 2048, or the \
            model's context if that is less), and memory does not grow with them.

            EXAMPLES:
              sigma-eval routing --model sigma.gguf book.txt --plot routing.svg
              sigma-eval routing --model sigma.gguf chats.txt --special --json > routing.json
            """)

    @Argument(help: "Files whose bytes are read as text, or - for standard input.")
    var files: [String] = []

    @OptionGroup var compute: ComputeOptions

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Temperature of the Top-1 load-balancing loss (equation 3).", valueName: "t"))
    var tau = 1.0

    @Flag(help: "Recognise special tokens, such as <|end|>, in the files.")
    var special = false

    @Flag(help: "Write one JSON object to standard output.")
    var json = false

    @Option(help: ArgumentHelp("Plot the quantities.", valueName: "file.svg"))
    var plot: String?

    @Option(
        help: ArgumentHelp(
            "Layers whose f and p are plotted, for example 0,52 (default: the first, and one near the last).",
            valueName: "list"))
    var plotLayers: LayerList?

    @Option(help: ArgumentHelp("Write which experts every token used.", valueName: "file"))
    var expertTrace: String?

    @Option(help: ArgumentHelp("Read an expert trace of this model instead of texts.", valueName: "file"))
    var replay: String?

    func run() throws {
        try check()
        Interrupt.install(secondEndsProcess: true)
        let path = try compute.model.path
        for output in [plot, expertTrace].compactMap({ $0 }) {
            try OutputFile.check(output, inputs: files + [path, replay].compactMap { $0 })
        }
        var summary: RoutingSummary
        if let replay {
            summary = try self.replay(replay, on: ModelFile(path: path))
        } else {
            // Missing files are named before the model is loaded.
            let sizes = try files.map(InputFile.size)
            let engine = try SigmaModel.loadEngine(path: path, configuration: compute.configuration)
            summary = try survey(engine, sizes: sizes)
        }
        guard summary.report.tokens > 0 else {
            throw SigmaError(.damaged, "there are no tokens to route", path: replay ?? files.first.map(InputFile.name))
        }
        try json ? StandardOutput.writeJSON(summary.json) : StandardOutput.write(summary.table)
        if let plot { try summary.figure(layers: plotLayers?.layers).write(to: plot) }
    }

    /// - Throws: `SigmaError(.usage)`.
    private func check() throws {
        try compute.check()
        guard tau > 0, tau.isFinite else { throw usageError("--tau must be above 0, and is \(tau)") }
        if replay != nil {
            guard files.isEmpty, expertTrace == nil, !special else {
                throw usageError("--replay reads a trace instead of texts: give no files, --special or --expert-trace")
            }
        } else if files.isEmpty {
            throw usageError("no text was named", remedy: "Name a file, or - for standard input.")
        }
        guard files.count(where: { $0 == "-" }) <= 1 else { throw usageError("standard input can be read once only") }
        if plotLayers != nil && plot == nil { throw usageError("--plot-layers is for --plot") }
    }

    private func survey(_ engine: Engine, sizes: [Int?]) throws -> RoutingSummary {
        guard let tokenizer = engine.tokenizer else { throw engine.missingTokenizer }
        let stated = engine.configuration.contextLength
        if let context = compute.context, context > stated {
            warn("the model states a context of \(stated) tokens; windows of \(context) go beyond it")
        }
        let length = compute.context ?? min(stated, 2048)
        let bos = tokenizer.addsBos ? tokenizer.bos : nil
        guard length > (bos == nil ? 0 : 1) else {
            throw usageError("--context must have room for bos and a token, and is \(length)")
        }
        let model = RoutingStatistics.Model(engine.model)
        try checkPlotLayers(model)
        let collector = try RoutingCollector(model, temperature: tau)
        let trace = try expertTrace.map { try ExpertTraceWriter(path: $0, model: ExpertTrace.Model(engine.model)) }
        let survey = try RoutingSurvey(
            engine: engine, kvType: compute.kvType, observers: [collector] + (trace.map { [$0] } ?? []))
        var text = RoutingText(
            tokenizer: tokenizer, recognizingSpecials: special, windowLength: length, bos: bos,
            totalBytes: sizes.contains { $0 == nil } ? nil : sizes.reduce(0) { $0 + ($1 ?? 0) })
        var bar = ProgressBar("routing")
        for file in files {
            try text.read(file) { window, text in
                try survey.run(window, isCancelled: { Interrupt.isRequested }) { count in
                    text.routed(count)
                    if let fraction = text.fraction { bar.update(fraction) }
                }
            }
        }
        bar.finish()
        try trace?.close()
        if text.forcedCuts > 0 {
            warn(
                "\(text.forcedCuts) times there was no line end to cut the text at for 16 MiB: a token there may be another"
            )
        }
        return RoutingSummary(
            report: collector.statistics.report, modelName: engine.model.name, windows: text.windows, context: length)
    }

    private func replay(_ path: String, on file: ModelFile) throws -> RoutingSummary {
        let trace = try ExpertTraceReader(path: path)
        try trace.check(madeWith: file)
        let model = RoutingStatistics.Model(file)
        try checkPlotLayers(model)
        var statistics = try RoutingStatistics(model, temperature: tau)
        let width = trace.model.choicesPerToken
        while let block = try trace.next() {
            if Interrupt.isRequested { throw CancellationError() }
            block.choices.withUnsafeBufferPointer { choices in
                for row in block.tokens.indices {
                    statistics.add(
                        choices: UnsafeBufferPointer(rebasing: choices[(row * width)..<((row + 1) * width)]))
                }
            }
        }
        return RoutingSummary(report: statistics.report, modelName: file.name, windows: nil, context: nil)
    }

    private func checkPlotLayers(_ model: RoutingStatistics.Model) throws {
        let routed = model.routedLayers
        if let wrong = plotLayers?.layers.first(where: { !routed.contains($0) }) {
            throw usageError(
                "layer \(wrong) has no router",
                remedy: routed.first.map { "Layers with one: \($0) to \(routed.last!)." })
        }
    }
}

/// Layers by number, with commas between.
struct LayerList: ExpressibleByArgument {
    var layers: [Int]

    init?(argument: String) {
        let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
        guard !parts.isEmpty, parts.allSatisfy({ ($0 ?? -1) >= 0 }) else { return nil }
        layers = parts.compactMap(\.self)
    }
}

/// Statistics as an observer. One thread.
private final class RoutingCollector: RoutingObserver, @unchecked Sendable {
    private(set) var statistics: RoutingStatistics

    init(_ model: RoutingStatistics.Model, temperature: Double) throws {
        statistics = try RoutingStatistics(model, temperature: temperature)
    }

    func observe(_ tokens: RoutedTokens) { statistics.add(tokens) }
}
