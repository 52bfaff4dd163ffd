import ArgumentParser
import Sigma
import SigmaCommand

/// Measures, unless a subcommand is named. Options belong to the subcommands: several have the same ones.
struct SigmaBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sigma-bench", abstract: "Measures a model's speed and compares it with the machine's ceiling.",
        discussion:
            "sigma-bench measure --help lists the options for measuring. The word measure can be omitted.",
        version: sigmaVersion, subcommands: [BenchCommand.self, CheckCommand.self, SimulateCommand.self],
        defaultSubcommand: BenchCommand.self)
}

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "measure",
        abstract: "Measures a model's speed and compares it with the machine's ceiling.",
        discussion: """
            Every combination of the lists is one row. The prompt and the generation both begin after DEPTH tokens. The tokens are seeded and \
            uniform over the vocabulary, and differ in every repetition. At the ceiling, each part of a step would take the longer of two \
            times: reading its bytes, or doing its multiply-adds, at the bandwidth and the peaks that were measured just before.

            With a limited expert cache the ceiling includes the bytes of the misses at the disk's speed, measured in the same run by direct reads \
            of records; a cache that overlaps reading and computing can be faster. The machine is measured before the model is loaded, within \
            the smallest of the memory budgets.

            EXAMPLES:
              sigma-bench --model sigma.gguf
              sigma-bench --model sigma.gguf --prompt 0 --expert-cache 0.25GiB,0.5GiB,1GiB,2GiB,4GiB,8GiB,all --plot cache.svg
              sigma-bench --model sigma.gguf --prompt 2048 --memory 3GiB,6GiB
              sigma-bench --model sigma.gguf --memory 3GiB --plan
              sigma-bench --model sigma.gguf --prompt 128,512,2048 --depth 0,4096 --kv-type f16,q8_0
              sigma-bench --model sigma.gguf --prompt 0 --depth 0,1024,4096,16384 --plot depth.svg
              sigma-bench --format json > speed.json
            """)

    @OptionGroup var model: ModelOption
    @Option(help: ArgumentHelp("Tokens of the prompt; 0 measures no prompt.", valueName: "n,..."))
    var prompt = List<Int>([512])
    @Option(help: ArgumentHelp("Tokens to generate; 0 generates none.", valueName: "n,..."))
    var generate = List<Int>([128])
    @Option(help: ArgumentHelp("Tokens already in the sequence.", valueName: "n,..."))
    var depth = List<Int>([0])
    @Option(
        help: ArgumentHelp(
            "Sequences that generate side by side; speeds are those of all together.", valueName: "n,..."))
    var sequences = List<Int>([1])
    @Option(
        help: ArgumentHelp(
            "Expert caches: sizes, all, auto (what --memory leaves). (default: all; with --memory, auto)",
            valueName: "size,..."))
    var expertCache: List<ExpertCacheSize>?
    @Option(help: ArgumentHelp("Memory budgets of the process.", valueName: "size,..."))
    var memory: List<ByteSize>?
    @Option(help: ArgumentHelp("Threads (default: one for each fast core of one memory node).", valueName: "n,..."))
    var threads: List<Int>?
    @Option(help: ArgumentHelp("Types of the key-value cache: f16, q8_0, f32.", valueName: "type,..."))
    var kvType = List<KVType>([.f16])
    @Option(help: ArgumentHelp("Back ends: cpu, cuda, auto.", valueName: "name,..."))
    var backend = List<SigmaModel.Configuration.Backend>([.auto])
    @Option(help: ArgumentHelp("Predict experts and read them ahead: auto, on, off.", valueName: "when,..."))
    var expertPrediction = List<PredictionMode>([.auto])
    @Option(help: ArgumentHelp("Which experts the cache evicts first: lru, slru, lfu.", valueName: "name,..."))
    var expertPolicy = List<EvictionPolicyKind>([.lru])
    @Flag(help: "Compute all logits for every token, even if the model file has planes that find the largest.")
    var fullHead = false
    @Option(
        help: ArgumentHelp(
            "Tokens to generate before anything is counted (default: 8, after reading 512; with an expert cache, as many as fill it twice).",
            valueName: "n"))
    var warmUp: Int?
    @Option(help: ArgumentHelp("Repetitions of each row, after an uncounted one.", valueName: "n"))
    var repetitions = 5
    @Option(help: ArgumentHelp("Seed of the tokens.", valueName: "n"))
    var seed: UInt64 = 1
    @Option(help: "Output format: table, json or csv.")
    var format = BenchReport.Format.table
    @Flag(help: "Print the plan of memory and the expected speed, and measure only the machine.")
    var plan = false
    @Option(help: ArgumentHelp("Plot the speeds.", valueName: "file.svg"))
    var plot: String?

    private static let tokenLimit = 1 << 20

    func run() throws {
        try check()
        let file = try ModelFile(path: model.path)
        if let plot { try OutputFile.check(plot, inputs: [file.path]) }
        Interrupt.install(secondEndsProcess: true)
        let instructionSet = try InstructionSet.fromEnvironment()
        var measurement = Measurement(
            model: file, repetitions: repetitions, warmUp: warmUp, seed: seed,
            isCancelled: { Interrupt.isRequested })
        var rows: [BenchReport.Row] = []
        let cases = cases
        let configurations = configurations
        var measured = try measure(configurations, file, instructionSet)
        var line: CacheLine?
        var bar = ProgressBar("measuring")
        for configuration in configurations {
            // One team of threads, one cache and one device's memory at a time.
            let subject = try subject(configuration, file, &measured)
            if plan {
                bar.finish()
                try StandardOutput.write(planText(subject, file))
                continue
            }
            for bench in cases {
                bar.update(Double(rows.count) / Double(cases.count * configurations.count))
                let result = try measurement.run(bench, on: subject)
                rows.append(BenchReport.Row(result: result, limits: configuration.memoryLimits))
            }
            if plot != nil, let disk = subject.disk, line == nil,
                let result = rows.last(where: { !$0.result.generationSpeeds.isEmpty })?.result
            {
                var reuse = CacheLine(file, computeTime: result.computeTime, diskBandwidth: disk.bytesPerSecond)
                try measurement.route(CacheLine.tokenCount, on: subject.backend) { reuse.add($0) }
                line = reuse
            }
        }
        bar.finish()
        guard !plan else { return }
        let report = BenchReport(model: file.name, rows: rows, cacheLine: line)
        try format == .json ? StandardOutput.writeJSON(report.text(format)) : StandardOutput.write(report.text(format))
        if let plot { try report.figure.write(to: plot) }
    }

    /// What was measured of the machine: each part once.
    private struct Measured {
        /// By threads.
        var processors: [Int: Machine] = [:]
        var disk: DiskBandwidth?
        var device: DeviceMeasurement?
    }

    /// Before anything else takes memory. Where only a device computes there is nothing to measure yet.
    private func measure(
        _ configurations: [SigmaModel.Configuration], _ file: ModelFile, _ instructionSet: InstructionSet
    ) throws -> Measured {
        var measured = Measured()
        let onProcessor = configurations.filter { $0.backend != .cuda }
        let memory = MeasuringMemory(budget: onProcessor.compactMap { $0.memory?.bytes }.min())
        for threads in Set(onProcessor.map { $0.threads ?? ThreadTeam.availableProcessors }).sorted() {
            measured.processors[threads] = try Machine(
                threads: threads, instructionSet: instructionSet, memory: memory)
        }
        if onProcessor.contains(where: { $0.expertCache != .all }) {
            measured.disk = try DiskBandwidth(file, memory: memory)
        }
        return measured
    }

    private func subject(
        _ configuration: SigmaModel.Configuration, _ file: ModelFile, _ measured: inout Measured
    ) throws -> Subject {
        let backend = try SigmaModel.makeBackend(file, configuration)
        if let measurable = backend as? any MeasurableDevice {
            let device = try measured.device ?? measurable.measureDevice()
            measured.device = device
            return Subject(backend, machine: Machine(device), busBandwidth: device.busBandwidth)
        }
        return Subject(
            backend, machine: measured.processors[configuration.threads ?? ThreadTeam.availableProcessors]!,
            disk: measured.disk)
    }

    private func planText(_ subject: Subject, _ file: ModelFile) throws -> String {
        let type = kvType.elements[0]
        let blockBytes = file.configuration.kvBlockBytes(type)
        let plan: MemoryPlan
        switch subject.memory {
        case .device(let plan):
            let layout = KVBlockLayout(device: type, file.configuration)
            return textTable(deviceMemoryRows(plan, kvType: type, kvBlockBytes: layout.byteCount))
        case .host(let host): plan = host
        }
        return MemoryReport(
            plan: plan, machine: subject.machine, disk: subject.disk,
            computeSpeed: Physics(
                machine: subject.machine, configuration: file.configuration, weights: file.weights,
                screensHead: subject.screensHead,
                kvBlockBytes: file.configuration.kvBlockBytes(type)
            ).generationSpeed(tokens: 1, depth: 0), kvType: type, kvBlockBytes: blockBytes
        ).text
    }

    /// Every combination of back ends, threads, budgets, caches, policies and ways to predict.
    private var configurations: [SigmaModel.Configuration] {
        let caches = expertCache?.elements ?? [memory == nil ? .all : .auto]
        let budgets: [Int?] = memory?.elements.map(\.bytes) ?? [nil]
        var result: [SigmaModel.Configuration] = []
        for backend in backend.elements {
            for threads in threads?.elements.map(Optional.some) ?? [nil] {
                for memory in budgets {
                    for cache in caches {
                        for policy in expertPolicy.elements {
                            for prediction in expertPrediction.elements {
                                var configuration = SigmaModel.Configuration(
                                    memory: memory.map { .bytes($0) }, expertCache: cache.limit, threads: threads,
                                    backend: backend, usesFullHead: fullHead)
                                configuration.expertPolicy = policy
                                configuration.expertPrediction = prediction
                                configuration.warn = { SigmaCommand.warn($0) }
                                result.append(configuration)
                            }
                        }
                    }
                }
            }
        }
        return result
    }

    private var cases: [BenchCase] {
        prompt.elements.flatMap { prompt in
            generate.elements.flatMap { generate in
                depth.elements.flatMap { depth in
                    kvType.elements.flatMap { kvType in
                        sequences.elements.map {
                            BenchCase(
                                prompt: prompt, generate: generate, depth: depth, kvType: kvType, sequences: $0)
                        }
                    }
                }
            }
        }
    }

    private func check() throws {
        func check(_ list: List<Int>, _ range: ClosedRange<Int>, _ option: String) throws {
            for value in list.elements where !range.contains(value) {
                throw usageError("\(option) must be from \(range.lowerBound) to \(range.upperBound), and is \(value)")
            }
        }
        try check(prompt, 0...Self.tokenLimit, "--prompt")
        try check(generate, 0...Self.tokenLimit, "--generate")
        try check(depth, 0...Self.tokenLimit, "--depth")
        try check(sequences, 1...1024, "--sequences")
        for threads in threads?.elements ?? [] { try checkThreads(threads) }
        // On a device it is the device's memory.
        if backend.elements != [.cuda] { memory?.elements.forEach(checkMemory) }
        try check(List([repetitions]), 1...1000, "--repetitions")
        if let warmUp { try check(List([warmUp]), 0...Self.tokenLimit, "--warm-up") }
        guard prompt.elements.contains(where: { $0 > 0 }) || generate.elements.contains(where: { $0 > 0 }) else {
            throw usageError("there is nothing to measure: --prompt and --generate are 0")
        }
    }
}

/// Values with commas between them.
struct List<Element: ExpressibleByArgument & Sendable>: ExpressibleByArgument, Sendable {
    let elements: [Element]

    init(_ elements: [Element]) { self.elements = elements }

    init?(argument: String) {
        let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
        let elements = parts.compactMap { Element(argument: String($0)) }
        guard elements.count == parts.count, parts.count <= 64 else { return nil }
        self.elements = elements
    }

    var defaultValueDescription: String { elements.map(\.defaultValueDescription).joined(separator: ",") }
}
