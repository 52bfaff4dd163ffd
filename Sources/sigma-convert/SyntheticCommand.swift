import Sigma
import SigmaCommand
import SigmaConversion

/// `--synthetic SHAPE OUTPUT`: writes the model, then runs random tokens through it to say how it routes.
struct SyntheticCommand {
    /// Windows of random tokens: enough for the share of predicted choices, and over in seconds.
    private static let windows = 2
    private static let windowLength = 512

    let options: SyntheticModel.Options
    let output: String

    func run() throws {
        // A second Ctrl-C must not leave a half-written file behind either.
        Interrupt.install(secondEndsProcess: false)
        let begin = monotonicTime()
        let model = try SyntheticModel(options)
        let conversion = Converter.Options(
            input: "", output: output, form: options.isQwen3MoE ? .plainGGUF : .native, type: options.type,
            outputType: options.outputType, overrides: try Overrides(), headScreening: options.headScreening,
            threads: options.threads)
        _ = try withProgressBar("writing") { progress in
            try Converter.convert(
                model.input, conversion, warn: { warn($0) }, progress: progress,
                isCancelled: { Interrupt.isRequested })
        }
        try noteFile(output, since: begin)
        guard options.shape.layerCount > 1 else { return }
        let expected = "\(percent(model.predictability)) by design"
        if options.isQwen3MoE {
            note("predictability: \(expected); not measured, as only native files run here")
        } else {
            note("predictability: \(try measure()), \(expected)")
        }
    }

    private func measure() throws -> String {
        let file = try ModelFile(path: output)
        let routing = try withProgressBar("measuring") { progress in
            try RoutingMeasurement(
                model: file, windows: Self.windows, length: Self.windowLength, seed: options.seed,
                threads: options.threads, progress: progress, isCancelled: { Interrupt.isRequested })
        }
        return "\(percent(routing.predictability ?? 0)) measured on \(routing.tokenCount) random tokens"
    }

    private func percent(_ share: Double) -> String { JSONWriter.fixed(100 * share, decimals: 1) + " %" }
}

/// Runs `body` under a progress bar.
func withProgressBar<T>(_ label: String, _ body: (_ progress: @escaping (Double) -> Void) throws -> T) throws -> T {
    var bar = ProgressBar(label)
    defer { bar.finish() }
    return try withoutActuallyEscaping({ (share: Double) in bar.update(share) }) { try body($0) }
}

/// Says how large a file that was written is, and how long it took.
func noteFile(_ path: String, since begin: Double) throws {
    let size = try MappedFile(path: path).bytes.count
    note("\(path): \(ByteSize.text(size)) in \(JSONWriter.fixed(monotonicTime() - begin, decimals: 1)) s")
}
