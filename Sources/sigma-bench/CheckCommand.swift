import ArgumentParser
import Sigma
import SigmaCommand
import SigmaStudies

struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Compares a device's results with the CPU's.",
        discussion: """
            Both read the same random tokens. The device reads them several times: at once, in uneven pieces, one by one, and at once \
            again; all must give the same bits. Its distributions are then compared with the CPU's: KL(CPU || device) in nats over the \
            whole vocabulary. Positions are comparable as long as both have chosen the same experts for all tokens so far; if two \
            experts' scores are nearly equal, rounding decides which one is used. Over comparable positions the mean must be below 0.001.

            EXAMPLE:
              sigma-bench check --model sigma.gguf --tokens 128
            """)

    @OptionGroup var model: ModelOption
    @Option(help: ArgumentHelp("Number of random tokens to read.", valueName: "n"))
    var tokens = 64
    @Option(help: ArgumentHelp("Type of the key-value cache: f16, q8_0, f32.", valueName: "type"))
    var kvType = KVType.f16
    @Option(help: ArgumentHelp("Limit on the device's memory.", valueName: "size"))
    var memory: ByteSize?
    @Option(help: ArgumentHelp("Memory for experts on the device: a size, all or auto.", valueName: "size"))
    var expertCache: ExpertCacheSize = .auto
    @Option(help: ArgumentHelp("Seed of the tokens.", valueName: "n"))
    var seed: UInt64 = 1
    @Flag(help: "Write one JSON object.")
    var json = false

    private static let largestMean = 1e-3

    func run() throws {
        guard (2...1024).contains(tokens) else {
            throw usageError("--tokens must be from 2 to 1024, and is \(tokens)")
        }
        let file = try ModelFile(path: model.path)
        var random = SplitMix64(state: seed)
        let vocabulary = UInt64(file.configuration.vocabularySize)
        let ids = (0..<tokens).map { _ in Int32(random.next() % vocabulary) }

        var configuration = SigmaModel.Configuration(memory: memory.map { .bytes($0.bytes) }, backend: .cuda)
        configuration.expertCache = expertCache.limit
        // The device first: what it lacks is said before the CPU has worked.
        let device = try Reader(
            SigmaModel.makeBackend(file, configuration), file.configuration, kvType: kvType)
        let found = try device.read(ids, pieces: [tokens])
        let isSame = try [[7, 3, 64], [1], [tokens]].allSatisfy {
            try device.read(ids, pieces: $0).logits == found.logits
        }
        let processor = try Reader(
            CPUBackend(model: file, instructionSet: try InstructionSet.fromEnvironment()), file.configuration,
            kvType: kvType)
        let expected = try processor.read(ids, pieces: [tokens])
        let result = Comparison(ids, found: found, expected: expected, width: file.configuration.vocabularySize)
        let report = text(result, isSame: isSame, on: device.backend)
        try json ? StandardOutput.writeJSON(report) : StandardOutput.write(report)
        try StandardOutput.flush()
        guard isSame, result.comparable.positions > 0, result.comparable.mean < Self.largestMean else {
            throw SigmaError(
                .unavailable,
                isSame
                    ? "the device's results are not the CPU's: mean divergence \(result.comparable.mean) over \(result.comparable.positions) comparable positions"
                    : "the device's results depend on how the tokens are cut into steps",
                remedy: .set(.backend, to: "cpu"))
        }
    }

    private func text(_ result: Comparison, isSame: Bool, on backend: any EngineBackend) -> String {
        let report = backend.report
        let name = report.deviceName ?? report.name
        guard json else {
            func fixed(_ value: Double) -> String { JSONWriter.fixed(value, decimals: 9) }
            return textTable([
                ("device", name, ""), ("same bits for any cut", isSame ? "yes" : "no", ""),
                ("comparable positions", "\(result.comparable.positions)", "of \(result.all.positions)"),
                ("mean divergence", fixed(result.comparable.mean), "nats; \(fixed(result.all.mean)) over all"),
                ("largest divergence", fixed(result.comparable.most), "nats; \(fixed(result.all.most)) over all"),
                ("same likeliest token", fixed(result.comparable.agreement), "\(fixed(result.all.agreement)) over all"),
            ])
        }
        var json = JSONWriter()
        json.object {
            $0.field("device", name)
            $0.field("same_bits", isSame)
            $0.field("positions", result.all.positions)
            $0.field("comparable_positions", result.comparable.positions)
            $0.field("kl_mean", result.comparable.mean)
            $0.field("kl_max", result.comparable.most)
            $0.field("top1_agreement", result.comparable.agreement)
            $0.field("kl_mean_all", result.all.mean)
        }
        return json.text + "\n"
    }
}

/// Runs tokens through a back end and keeps what comes out.
private struct Reader {
    struct Result {
        /// [tokens, vocabulary]
        var logits: [Float] = []
        /// Of each token the experts of all layers, one after the other.
        var experts: [[Int]] = []
    }

    let backend: any EngineBackend
    let configuration: ModelConfiguration
    let kvType: KVType

    init(_ backend: any EngineBackend, _ configuration: ModelConfiguration, kvType: KVType) {
        self.backend = backend
        self.configuration = configuration
        self.kvType = kvType
    }

    /// - Parameter pieces: sizes of the steps, the last one repeated; steps of one token do without routing, as generation does.
    func read(_ tokens: [Int32], pieces: [Int]) throws -> Result {
        let pass = ForwardPass(layerCount: configuration.layerCount, backend: backend)
        let sequence = try backend.makeSequence(kvType: kvType)
        let record = RoutingRecord(configuration)
        let batch = Batch()
        var result = Result()
        var step = 0
        while sequence.length < tokens.count {
            let size = min(pieces[min(step, pieces.count - 1)], backend.rowLimit)
            step += 1
            let piece = tokens[sequence.length...].prefix(size)
            batch.removeAll()
            batch.routing = size > 1 ? record : nil
            batch.append(piece, to: sequence)
            _ = try pass.run(batch, isCancelled: { false }) { backend in
                backend.forEachRow(of: 0..<piece.count) { _, logits in result.logits += logits }
            }
            guard batch.routing != nil else { continue }
            for row in 0..<piece.count {
                result.experts.append(
                    configuration.expertsPerToken.enumerated().flatMap { layer, choices in
                        (0..<choices).map { record.chosen(row: row, layer: layer, choice: $0) }
                    })
            }
        }
        return result
    }
}

/// Distributions of two back ends at all positions, and at those where both have computed the same experts so far.
private struct Comparison {
    var all = Divergence()
    var comparable = Divergence()

    init(_ tokens: [Int32], found: Reader.Result, expected: Reader.Result, width: Int) {
        func row(_ logits: [Float], _ index: Int, _ body: (UnsafeBufferPointer<Float>) -> Void) {
            logits.withUnsafeBufferPointer {
                body(UnsafeBufferPointer(rebasing: $0[(index * width)..<((index + 1) * width)]))
            }
        }
        var isComparable = true
        for index in tokens.indices.dropLast() {
            isComparable = isComparable && found.experts[index] == expected.experts[index]
            row(expected.logits, index) { reference in
                row(found.logits, index) { model in
                    all.add(reference: reference, model: model, next: tokens[index + 1])
                    if isComparable { comparable.add(reference: reference, model: model, next: tokens[index + 1]) }
                }
            }
        }
    }
}
