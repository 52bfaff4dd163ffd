import ArgumentParser
import Sigma
import SigmaCommand
import SigmaStudies

extension TraceReplay.Policy: ExpressibleByArgument {}

struct SimulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Replays a trace of experts: hit rate and tokens/s for other budgets, disks and policies.",
        discussion: """
            Every token of the trace is replayed as a generated one. A token takes its time without waits, plus the bytes of its misses at the \
            disk's speed; what no option gives is measured on this machine.

            EXAMPLES:
              sigma-run --expert-trace run.trace --max-tokens 1000 --prompt "Tell a story."
              sigma-bench simulate --trace run.trace --memory 3GiB,4GiB,6GiB
              sigma-bench simulate --trace run.trace --expert-cache 1GiB,2GiB --disk-bandwidth 7 --policy lru,slru,lfu,belady
            """)

    @OptionGroup var model: ModelOption
    @Option(help: ArgumentHelp("The trace, which sigma-run --expert-trace writes.", valueName: "file"))
    var trace: String
    @Option(help: ArgumentHelp("Memory budgets of the process.", valueName: "size,..."))
    var memory: List<ByteSize>?
    @Option(help: ArgumentHelp("Sizes of the expert cache alone.", valueName: "size,..."))
    var expertCache: List<ByteSize>?
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Speeds at which the disk reads records, in GB/s (10^9) (default: measured).", valueName: "n,..."))
    var diskBandwidth: List<Double>?
    @Option(help: ArgumentHelp("Policies: lru, slru, lfu, belady (the optimum).", valueName: "name,..."))
    var policy = List<TraceReplay.Policy>([.lru, .belady])
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Milliseconds of a token without waits for experts (default: measured with the first budget).",
            valueName: "ms"))
    var computeTime: Double?
    @Option(help: ArgumentHelp("Tokens that fill the cache and are not counted (default: a quarter).", valueName: "n"))
    var warmUp: Int?
    @Flag(help: "Write JSON instead of a table.")
    var json = false

    /// Tokens with which a token's time is measured.
    private static let measuredTokens = 24

    func run() throws {
        guard memory != nil || expertCache != nil else {
            throw usageError("there is no size to simulate", remedy: "Give --memory or --expert-cache.")
        }
        for value in diskBandwidth?.elements ?? [] where !(value > 0 && value.isFinite) {
            throw usageError("--disk-bandwidth must be above 0, and is \(value)")
        }
        if let computeTime, !(computeTime > 0 && computeTime.isFinite) {
            throw usageError("--compute-time must be above 0, and is \(computeTime)")
        }
        if let warmUp, warmUp < 0 { throw usageError("--warm-up must be 0 or more, and is \(warmUp)") }
        let file = try ModelFile(path: model.path)
        let reader = try ExpertTraceReader(path: trace)
        try reader.check(madeWith: file)
        var blocks: [ExpertTrace.Block] = []
        while let block = try reader.next() { blocks.append(block) }
        let tokens = blocks.reduce(0) { $0 + $1.tokens.count }
        let warmUp = self.warmUp ?? tokens / 4
        guard tokens > warmUp else {
            throw usageError(
                "the trace has \(tokens) tokens and --warm-up is \(warmUp)", remedy: "Make a longer trace.")
        }
        Interrupt.install(secondEndsProcess: true)

        let table = ExpertRecordTable(file)
        let sizes = try sizes(file)
        var replay = TraceReplay(
            reader.model, policies: policy.elements, slots: sizes.map { min($0.slots, table.presentCount) },
            warmUp: warmUp)
        for block in blocks { replay.add(block) }
        let computeTime = try self.computeTime.map { $0 / 1e3 } ?? measuredComputeTime(file, sizes[0].limits)
        let disks = try diskBandwidth?.elements.map { $0 * 1e9 } ?? [measuredBandwidth(file)]
        var rows: [Row] = []
        for (index, result) in replay.results.enumerated() {
            let size = sizes[index % sizes.count]
            for disk in disks {
                let misses = (1 - result.hitRate) * Double(table.recordsPerToken * table.slotBytes)
                rows.append(
                    Row(
                        policy: result.policy, memory: size.limits.memory, slots: result.slots,
                        cacheBytes: result.slots * table.slotBytes, hitRate: result.hitRate, missBytes: misses,
                        disk: disk, speed: 1 / (computeTime + misses / disk)))
            }
        }
        try json
            ? StandardOutput.writeJSON(text(json: rows, computeTime))
            : StandardOutput.write(text(rows, computeTime, tokens: tokens - warmUp))
    }

    private struct Row {
        let policy: TraceReplay.Policy
        let memory: Int?
        let slots: Int
        let cacheBytes: Int
        let hitRate: Double
        let missBytes: Double
        let disk: Double
        let speed: Double
    }

    /// Slots of every budget and every cache that was asked for.
    private func sizes(_ file: ModelFile) throws -> [(limits: MemoryLimits, slots: Int)] {
        let all =
            (memory?.elements ?? []).map { MemoryLimits(memory: $0.bytes) }
            + (expertCache?.elements ?? []).map { MemoryLimits(cache: .bytes($0.bytes)) }
        // It maps the file, and says what it would do under other limits.
        let backend = try CPUBackend(model: file, threadCount: 1, instructionSet: try InstructionSet.fromEnvironment())
        return try all.map { limits in
            let plan = try backend.memoryPlan(for: limits)
            return (limits, plan.isResident ? plan.expertCount : plan.slotsAtStart)
        }
    }

    private func measuredComputeTime(_ file: ModelFile, _ limits: MemoryLimits) throws -> Double {
        var limits = limits
        limits.prediction = .off
        let instructionSet = try InstructionSet.fromEnvironment()
        let machine = try Machine(
            threads: ThreadTeam.availableProcessors, instructionSet: instructionSet,
            memory: MeasuringMemory(budget: limits.memory))
        let backend = try CPUBackend(model: file, instructionSet: instructionSet, limits: limits)
        var measurement = Measurement(
            model: file, repetitions: 1, warmUp: Self.measuredTokens, seed: 2,
            isCancelled: { Interrupt.isRequested })
        return try measurement.run(
            BenchCase(prompt: 0, generate: Self.measuredTokens, depth: 0, kvType: .f16),
            on: Subject(backend, machine: machine, disk: nil)
        ).computeTime
    }

    private func measuredBandwidth(_ file: ModelFile) throws -> Double {
        guard let disk = try DiskBandwidth(file, memory: MeasuringMemory(budget: nil)) else {
            throw SigmaError(.damaged, "all layers of the model are dense: there are no experts", path: file.path)
        }
        return disk.bytesPerSecond
    }

    private func text(_ rows: [Row], _ computeTime: Double, tokens: Int) -> String {
        func fixed(_ value: Double, _ decimals: Int) -> String { JSONWriter.fixed(value, decimals: decimals) }
        var lines = [["memory", "expert cache", "policy", "disk GB/s", "hits", "disk MB/token", "tokens/s"]]
        for row in rows {
            lines.append([
                row.memory.map(ByteSize.text) ?? "-", ByteSize.text(row.cacheBytes), row.policy.rawValue,
                fixed(row.disk / 1e9, 2), fixed(row.hitRate * 100, 1) + " %", fixed(row.missBytes / 1e6, 1),
                fixed(row.speed, 1),
            ])
        }
        return "\(tokens) tokens counted, \(fixed(computeTime * 1e3, 2)) ms a token without waits for experts\n"
            + columnTable(lines)
    }

    private func text(json rows: [Row], _ computeTime: Double) -> String {
        var json = JSONWriter()
        json.array { json in
            for row in rows {
                json.object { json in
                    if let memory = row.memory {
                        json.field("memory_bytes", memory)
                    } else {
                        json.key("memory_bytes")
                        json.null()
                    }
                    json.field("expert_cache_bytes", row.cacheBytes)
                    json.field("policy", row.policy.rawValue)
                    json.field("disk_bandwidth_gbs", row.disk / 1e9, decimals: 3)
                    json.field("compute_ms_per_token", computeTime * 1e3, decimals: 3)
                    json.field("hit_rate", row.hitRate, decimals: 4)
                    json.field("miss_bytes_per_token", Int(row.missBytes))
                    json.field("generate_tps", row.speed, decimals: 3)
                }
            }
        }
        return json.text + "\n"
    }
}
