import ArgumentParser
import Sigma
import SigmaCommand

/// Measures, unless a subcommand is named. Options belong to the subcommands: several have the same ones.
struct SigmaBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sigma-bench", abstract: "Measures a model's speed beside what the machine can do.",
        discussion:
            "The options of measuring are listed by: sigma-bench measure --help. The word measure can be left out.",
        version: sigmaVersion, subcommands: [BenchCommand.self, SimulateCommand.self],
        defaultSubcommand: BenchCommand.self)
}

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "measure",
        abstract: "Measures a model's speed beside what the machine can do.",
        discussion: """
            Every combination of the lists is one row. The prompt and the generation both begin behind DEPTH tokens. The tokens are seeded and \
            uniform over the vocabulary, and differ in every repetition. The ceiling is the sum over the parts of a step of the longer \
            of reading their bytes and doing their multiply-adds, with the bandwidth and the peaks measured just before.

            With a limited expert cache the ceiling counts the bytes of the misses at the disk's speed, measured in the same run by direct reads of \
            records, after computing; a cache that overlaps both can be faster.

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
    @Option(help: ArgumentHelp("Prompt tokens; 0: no prompt is measured.", valueName: "n,..."))
    var prompt = List<Int>([512])
    @Option(help: ArgumentHelp("Generated tokens; 0: none.", valueName: "n,..."))
    var generate = List<Int>([128])
    @Option(help: ArgumentHelp("Tokens that the sequence has before.", valueName: "n,..."))
    var depth = List<Int>([0])
    @Option(
        help: ArgumentHelp(
            "Sizes of the expert cache: sizes, all, auto (what --memory leaves). (default: all, with --memory auto)",
            valueName: "size,..."))
    var expertCache: List<ExpertCacheSize>?
    @Option(help: ArgumentHelp("Memory budgets of the process.", valueName: "size,..."))
    var memory: List<ByteSize>?
    @Option(help: ArgumentHelp("Threads (default: the processors this process may use).", valueName: "n,..."))
    var threads: List<Int>?
    @Option(help: ArgumentHelp("Types of the key-value cache: f16, q8_0, f32.", valueName: "type,..."))
    var kvType = List<KVType>([.f16])
    @Option(help: ArgumentHelp("Back ends: cpu, cuda, auto.", valueName: "name,..."))
    var backend = List<SigmaModel.Configuration.Backend>([.auto])
    @Option(help: ArgumentHelp("Whether experts are predicted: auto, on, off.", valueName: "when,..."))
    var expertPrediction = List<PredictionMode>([.auto])
    @Option(help: ArgumentHelp("Which experts the cache gives up first: lru, slru, lfu.", valueName: "name,..."))
    var expertPolicy = List<EvictionPolicyKind>([.lru])
    @Flag(help: "Compute all logits for every token, where the model file's screening planes would find the largest.")
    var fullHead = false
    @Option(
        help: ArgumentHelp(
            "Tokens generated before anything is counted (default: 8; with an expert cache what fills it twice).",
            valueName: "n"))
    var warmUp: Int?
    @Option(help: ArgumentHelp("Measured rounds of each row, after one that is not counted.", valueName: "n"))
    var repetitions = 5
    @Option(help: ArgumentHelp("Seed of the tokens.", valueName: "n"))
    var seed: UInt64 = 1
    @Option(help: "What is written: table, json or csv.")
    var format = BenchReport.Format.table
    @Flag(help: "Print what goes where in memory, and the speed to expect, and measure nothing but the machine.")
    var plan = false
    @Option(help: ArgumentHelp("Draw the speeds.", valueName: "file.svg"))
    var plot: String?

    private static let tokenLimit = 1 << 20

    func run() throws {
        try check()
        let file = try ModelFile(path: model.path)
        guard !backend.elements.contains(.cuda) else {
            throw SigmaError(
                .unavailable, "this version has no CUDA back end", remedy: "Use the CPU: --backend cpu.")
        }
        Interrupt.install(secondEndsProcess: true)
        let instructionSet = try InstructionSet.fromEnvironment()
        var measurement = Measurement(
            model: file, instructionSet: instructionSet, repetitions: repetitions, warmUp: warmUp, seed: seed,
            isCancelled: { Interrupt.isRequested })
        var rows: [BenchReport.Row] = []
        let cases = cases
        let limits = limits
        let threadCounts = threads?.elements.map(Optional.some) ?? [nil]
        var line: CacheLine?
        var bar = ProgressBar("measuring")
        for threads in threadCounts {
            let machine = try Machine(
                threads: threads ?? ThreadTeam.availableProcessors, instructionSet: instructionSet)
            for limits in limits {
                // One team of threads, and one cache, at a time.
                let backend = try CPUBackend(
                    model: file, threadCount: threads, instructionSet: instructionSet, limits: limits,
                    fullHead: fullHead)
                let disk = backend.memoryPlan.isResident ? nil : try DiskBandwidth(file)
                if plan {
                    bar.finish()
                    try StandardOutput.write(
                        MemoryReport(
                            plan: backend.memoryPlan, machine: machine, disk: disk,
                            computeSpeed: Physics(
                                machine: machine, configuration: file.configuration, weights: file.weights,
                                screensHead: backend.screensHead,
                                kvRowBytes: kvType.elements[0].rowBytes(headDim: file.configuration.headDim)
                            ).generationSpeed(tokens: 1, depth: 0), kvType: kvType.elements[0],
                            kvBlockBytes: file.configuration.kvBlockBytes(kvType.elements[0])
                        ).text)
                    continue
                }
                for bench in cases {
                    bar.update(
                        Double(rows.count) / Double(cases.count * self.limits.count * threadCounts.count))
                    let result = try measurement.run(
                        bench, on: backend, machine: machine, diskBandwidth: disk?.bytesPerSecond)
                    rows.append(BenchReport.Row(result: result, limits: limits))
                }
                if plot != nil, !backend.memoryPlan.isResident, let disk, line == nil,
                    let result = rows.last(where: { !$0.result.generationSpeeds.isEmpty })?.result
                {
                    var reuse = CacheLine(
                        file, computeTime: result.computeTime, diskBandwidth: disk.bytesPerSecond)
                    try measurement.route(CacheLine.tokenCount, on: backend) { reuse.add($0) }
                    line = reuse
                }
            }
        }
        bar.finish()
        guard !plan else { return }
        let report = BenchReport(
            model: file.name, instructionSet: instructionSet.name, rows: rows, cacheLine: line)
        if let plot { try report.figure.write(to: plot) }
        try StandardOutput.write(report.text(format))
    }

    /// Every combination of budgets, caches, policies and ways to predict.
    private var limits: [MemoryLimits] {
        let caches = expertCache?.elements ?? [memory == nil ? .all : .auto]
        let budgets: [Int?] = memory?.elements.map(\.bytes) ?? [nil]
        return budgets.flatMap { memory in
            caches.flatMap { cache in
                expertPolicy.elements.flatMap { policy in
                    expertPrediction.elements.map { prediction in
                        var configuration = SigmaModel.Configuration(memory: memory.map { .bytes($0) })
                        configuration.expertCache = cache.limit
                        configuration.expertPolicy = policy
                        configuration.expertPrediction = prediction
                        return configuration.memoryLimits
                    }
                }
            }
        }
    }

    private var cases: [BenchCase] {
        prompt.elements.flatMap { prompt in
            generate.elements.flatMap { generate in
                depth.elements.flatMap { depth in
                    kvType.elements.map { BenchCase(prompt: prompt, generate: generate, depth: depth, kvType: $0) }
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
        if let threads { try check(threads, 1...256, "--threads") }
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
