import ArgumentParser
import Sigma
import SigmaCommand

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sigma-bench",
        abstract: "Measures a model's speed beside what the machine can do.",
        discussion: """
            Every combination of the lists is one row. The prompt and the generation both begin behind DEPTH tokens. The tokens are seeded and \
            uniform over the vocabulary, and differ in every repetition. The ceiling is the sum over the parts of a step of the longer \
            of reading their bytes and doing their multiply-adds, with the bandwidth and the peaks measured just before.

            EXAMPLES:
              sigma-bench --model sigma.gguf
              sigma-bench --model sigma.gguf --prompt 128,512,2048 --depth 0,4096 --kv-type f16,q8_0
              sigma-bench --model sigma.gguf --prompt 0 --depth 0,1024,4096,16384 --plot depth.svg
              sigma-bench --format json > speed.json
            """,
        version: sigmaVersion)

    @OptionGroup var model: ModelOption
    @Option(help: ArgumentHelp("Prompt tokens; 0: no prompt is measured.", valueName: "n,..."))
    var prompt = List<Int>([512])
    @Option(help: ArgumentHelp("Generated tokens; 0: none.", valueName: "n,..."))
    var generate = List<Int>([128])
    @Option(help: ArgumentHelp("Tokens that the sequence has before.", valueName: "n,..."))
    var depth = List<Int>([0])
    @Option(help: ArgumentHelp("Sizes of the expert cache: sizes, all.", valueName: "size,..."))
    var expertCache = List<ExpertCacheSize>([.all])
    @Option(help: ArgumentHelp("Memory budgets of the process.", valueName: "size,..."))
    var memory: List<ByteSize>?
    @Option(help: ArgumentHelp("Threads (default: the processors this process may use).", valueName: "n,..."))
    var threads: List<Int>?
    @Option(help: ArgumentHelp("Types of the key-value cache: f16, q8_0, f32.", valueName: "type,..."))
    var kvType = List<KVType>([.f16])
    @Option(help: ArgumentHelp("Back ends: cpu, cuda, auto.", valueName: "name,..."))
    var backend = List<SigmaModel.Configuration.Backend>([.auto])
    @Option(help: ArgumentHelp("Measured rounds of each row, after one that is not counted.", valueName: "n"))
    var repetitions = 5
    @Option(help: ArgumentHelp("Seed of the tokens.", valueName: "n"))
    var seed: UInt64 = 1
    @Option(help: "What is written: table, json or csv.")
    var format = BenchReport.Format.table
    @Option(help: ArgumentHelp("Draw the speeds.", valueName: "file.svg"))
    var plot: String?

    private static let tokenLimit = 1 << 20

    func run() throws {
        try check()
        let file = try ModelFile(path: model.path)
        for size in expertCache.elements { try size.check(for: file) }
        for size in memory?.elements ?? [] where size.bytes < file.byteCount {
            throw SigmaError(
                .unavailable, "the model needs \(ByteSize.text(file.byteCount)) and the budget is \(size)",
                path: file.path, remedy: "Raise --memory, or leave it out.")
        }
        guard !backend.elements.contains(.cuda) else {
            throw SigmaError(
                .unavailable, "this version has no CUDA back end", remedy: "Use the CPU: --backend cpu.")
        }
        Interrupt.install(secondEndsProcess: true)
        let instructionSet = try InstructionSet.fromEnvironment() ?? .best
        var measurement = Measurement(
            model: file, instructionSet: instructionSet, repetitions: repetitions, seed: seed,
            isCancelled: { Interrupt.isRequested })
        var rows: [BenchReport.Row] = []
        let cases = cases
        let budgets: [ByteSize?] = memory?.elements ?? [nil]
        var bar = ProgressBar("measuring")
        for threads in threads?.elements.map(Optional.some) ?? [nil] {
            // One team of threads at a time, and the machine measured with as many.
            let backend = try CPUBackend(model: file, threadCount: threads, instructionSet: instructionSet)
            let machine = try Machine(threads: backend.threadCount, instructionSet: instructionSet)
            for bench in cases {
                for memory in budgets {
                    for _ in expertCache.elements {
                        bar.update(
                            Double(rows.count)
                                / Double(cases.count * budgets.count * expertCache.elements.count * threadCounts))
                        let result = try measurement.run(bench, on: backend, machine: machine)
                        rows.append(BenchReport.Row(result: result, memory: memory))
                    }
                }
            }
        }
        bar.finish()
        let report = BenchReport(model: file.name, instructionSet: instructionSet.name, rows: rows)
        if let plot { try report.figure.write(to: plot) }
        try StandardOutput.write(report.text(format))
    }

    private var threadCounts: Int { threads?.elements.count ?? 1 }

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
