import Sigma

/// What one row of the table asks for.
struct BenchCase {
    let prompt: Int
    let generate: Int
    let depth: Int
    let kvType: KVType
    /// Sequences that generate side by side, a row of each step for each.
    var sequences = 1
}

/// What was measured for it. Speeds are in tokens per second, of all sequences together, one for each repetition.
struct BenchResult {
    let bench: BenchCase
    let threads: Int
    let backend: String
    let machine: Machine
    let isResident: Bool
    /// Bytes of the slots that experts had; all of them where they are mapped.
    var expertCacheBytes = 0
    var promptSpeeds: [Double] = []
    var generationSpeeds: [Double] = []
    /// Seconds from the prompt's begin to the first token's logits.
    var firstTokenTimes: [Double] = []
    /// Of generation, weights and cache.
    var bytesPerToken = 0.0
    /// Of generation, how its logits came about.
    var head = HeadStatistics()
    /// Of generation: what experts cost, and bytes of anything that the process read from the disk.
    var experts = ExpertStatistics()
    var diskBytes = 0
    /// Of the prompt, on the mean of the repetitions: bytes of experts read, pieces.
    var promptExpertBytes = 0.0
    var promptPieces = 0
    /// Seconds per generated token without the waits for experts.
    var computeTime = 0.0
    var promptCeiling: Double?
    var generationCeiling: Double?
    /// Bytes per second at which missing experts come.
    var missBandwidth: Double?
    var peakMemory = 0

    /// Name of the head that decided.
    var headName: String { head.screenedRows > 0 ? "screened" : "full" }
    /// Bytes of planes and head that a screened row read on the mean; nil: none was.
    var screenedBytes: Double? {
        head.screenedRows > 0 ? Double(head.bytes) / Double(head.screenedRows + head.fallbackRows) : nil
    }
    /// Bytes of experts that a generated token read from the disk.
    var missBytesPerToken: Double {
        generationSpeeds.isEmpty
            ? 0 : Double(experts.bytesRead) / Double(bench.generate * bench.sequences * generationSpeeds.count)
    }
    /// The ceiling of generation where reading and computing take turns, and where they overlap fully.
    var ceilings: (inTurn: Double, overlapped: Double)? {
        guard let generationCeiling else { return nil }
        let disk = missBandwidth.map { missBytesPerToken / $0 } ?? 0
        return (1 / (disk + 1 / generationCeiling), 1 / max(disk, 1 / generationCeiling))
    }
}

/// Feeds a model seeded random tokens, and takes the time.
struct Measurement {
    let model: ModelFile
    let repetitions: Int
    /// Tokens that are generated before anything is counted; nil: as many as fill the expert cache twice.
    let warmUp: Int?
    let isCancelled: () -> Bool
    /// Uniform over the vocabulary, never repeated and never the model's own: no expert is favoured, no cache is warm by repetition.
    private var random: SplitMix64

    init(model: ModelFile, repetitions: Int, warmUp: Int?, seed: UInt64, isCancelled: @escaping () -> Bool) {
        self.model = model
        self.repetitions = repetitions
        self.warmUp = warmUp
        self.isCancelled = isCancelled
        random = SplitMix64(state: seed)
    }

    /// - Throws: `SigmaError`: `.unavailable` if memory or threads end, `.inputOutput` or `.damaged` if experts cannot be read, `.interrupted`.
    mutating func run(_ bench: BenchCase, on subject: Subject) throws -> BenchResult {
        let backend = subject.backend
        let pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
        let sequences = try (0..<bench.sequences).map { _ in try backend.makeSequence(kvType: bench.kvType) }
        let sequence = sequences[0]
        let batch = Batch()
        let mask = TokenMask(all: model.configuration.vocabularySize)
        var result = BenchResult(
            bench: bench, threads: subject.threads, backend: backend.report.name, machine: subject.machine,
            isResident: subject.isResident)
        result.missBandwidth = subject.missBandwidth

        /// Runs what is in the batch.
        func step(wantsLogitsOf rows: Range<Int>) throws {
            let isDone = try pass.run(batch, isCancelled: isCancelled) { backend in
                guard !rows.isEmpty else { return }
                // As many as sampling takes by default.
                let requests = rows.map { LogitRequest(row: $0, wish: .largest(20), mask: mask) }
                backend.readLogits(requests) { _, _ in }
            }
            guard isDone else { throw SigmaError(.interrupted, "interrupted") }
        }
        /// In as few pieces as the back end takes.
        func read(_ tokens: [Int32], into sequence: SequenceState, wantsLogits: Bool) throws -> Int {
            var start = 0
            var pieces = 0
            while start < tokens.count {
                let room = backend.room(
                    for: sequence, limit: min(backend.rowLimit, tokens.count - start), beside: Batch())
                // Where nothing has room the step says so.
                let end = start + max(1, room)
                batch.removeAll()
                batch.append(tokens[start..<end], to: sequence)
                let last = end - start - 1
                try step(wantsLogitsOf: wantsLogits && end == tokens.count ? last..<(last + 1) : 0..<0)
                start = end
                pieces += 1
            }
            return pieces
        }
        /// A token for every sequence.
        func generate(_ tokens: ArraySlice<Int32>) throws {
            batch.removeAll()
            for (index, sequence) in sequences.enumerated() {
                let place = tokens.startIndex + index
                batch.append(tokens[place..<(place + 1)], to: sequence)
            }
            try step(wantsLogitsOf: 0..<sequences.count)
        }

        for sequence in sequences { _ = try read(tokens(bench.depth), into: sequence, wantsLogits: false) }
        let warmUp = self.warmUp ?? subject.warmUpTokens
        if self.warmUp == nil {
            // Never longer than what is measured: a budget has room for no more.
            let piece = min(subject.readingTokens, max(bench.prompt, bench.generate))
            var left = subject.readingTokens - bench.depth
            while left > 0, piece > 0 {
                _ = try read(tokens(piece), into: sequence, wantsLogits: false)
                sequence.truncate(to: bench.depth)
                left -= piece
            }
        }
        // The first round warms memory up and is not counted.
        for repetition in 0...repetitions {
            let isCounted = repetition > 0
            if bench.prompt > 0 {
                sequence.truncate(to: bench.depth)
                let prompt = tokens(bench.prompt)
                let before = backend.expertStatistics
                let start = monotonicTime()
                result.promptPieces = try read(prompt, into: sequence, wantsLogits: true)
                let seconds = monotonicTime() - start
                if isCounted {
                    result.promptSpeeds.append(Double(bench.prompt) / seconds)
                    result.firstTokenTimes.append(seconds)
                    result.promptExpertBytes +=
                        Double((backend.expertStatistics - before).bytesRead) / Double(repetitions)
                }
            }
            if bench.generate > 0 {
                for sequence in sequences { sequence.truncate(to: bench.depth) }
                // A prompt has swept the cache: what generation would keep must come back.
                if !isCounted || bench.prompt > 0 {
                    for _ in 0..<(isCounted ? warmUp / 2 : warmUp) { try generate(tokens(sequences.count)[...]) }
                    for sequence in sequences { sequence.truncate(to: bench.depth) }
                }
                guard isCounted else { continue }
                let next = tokens(bench.generate * sequences.count)
                let diskBefore = ProcessUsage.diskBytes
                let expertsBefore = backend.expertStatistics
                let headBefore = backend.headStatistics
                var bytes = 0
                let start = monotonicTime()
                for start in stride(from: 0, to: next.count, by: sequences.count) {
                    try generate(next[start..<(start + sequences.count)])
                    bytes += backend.stepBytes
                }
                let seconds = monotonicTime() - start
                let experts = backend.expertStatistics - expertsBefore
                result.generationSpeeds.append(Double(next.count) / seconds)
                result.bytesPerToken = Double(bytes) / Double(next.count)
                result.diskBytes += ProcessUsage.diskBytes - diskBefore
                result.experts = result.experts + experts
                result.head = result.head + (backend.headStatistics - headBefore)
                result.computeTime += (seconds - experts.stall) / Double(next.count * repetitions)
            }
        }
        let physics = Physics(
            machine: subject.machine, configuration: model.configuration, weights: model.weights,
            screensHead: subject.screensHead, screenedBytes: result.screenedBytes,
            kvBlockBytes: model.configuration.kvBlockBytes(bench.kvType))
        if bench.prompt > 0 {
            result.promptCeiling = physics.promptSpeed(
                tokens: bench.prompt, depth: bench.depth, rowLimit: backend.rowLimit)
        }
        if bench.generate > 0 {
            result.generationCeiling = physics.generationSpeed(
                tokens: bench.generate, depth: bench.depth, sequences: bench.sequences)
        }
        result.expertCacheBytes = subject.expertCacheBytes
        result.peakMemory = ProcessUsage.peakMemory
        return result
    }

    /// Routes random tokens, one by one, and hands each one's experts on.
    mutating func route(
        _ count: Int, on backend: any EngineBackend, _ body: (RoutedTokens) -> Void
    ) throws {
        let pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
        let sequence = try backend.makeSequence(kvType: .f16)
        let batch = Batch()
        let record = RoutingRecord(model.configuration)
        batch.routing = record
        for token in tokens(count) {
            sequence.truncate(to: 0)
            batch.removeAll()
            batch.append([token], to: sequence)
            guard try pass.run(batch, isCancelled: isCancelled, readOut: { _ in }) else {
                throw SigmaError(.interrupted, "interrupted")
            }
            body(RoutedTokens(record: record, rows: 0..<1, tokens: [token], sequence: 0, position: 0))
        }
    }

    private mutating func tokens(_ count: Int) -> [Int32] {
        let vocabulary = UInt64(model.configuration.vocabularySize)
        return (0..<count).map { _ in Int32(random.next() % vocabulary) }
    }
}

extension [Double] {
    var mean: Double { reduce(0, +) / Double(count) }
    var median: Double {
        let sorted = sorted()
        return count % 2 == 1 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2
    }
    /// Of the sample; 0 for a single value.
    var standardDeviation: Double {
        guard count > 1 else { return 0 }
        let mean = mean
        return (reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(count - 1)).squareRoot()
    }
}
