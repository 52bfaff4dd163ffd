import Sigma

/// What one row of the table asks for.
struct BenchCase {
    let prompt: Int
    let generate: Int
    let depth: Int
    let kvType: KVType
}

/// What was measured for it. Speeds are in tokens per second, one for each repetition.
struct BenchResult {
    let bench: BenchCase
    let threads: Int
    let backend: String
    let machine: Machine
    var promptSpeeds: [Double] = []
    var generationSpeeds: [Double] = []
    /// Seconds from the prompt's begin to the first token's logits.
    var firstTokenTimes: [Double] = []
    /// Of generation, weights and cache.
    var bytesPerToken = 0.0
    var diskBytes = 0
    var promptCeiling: Double?
    var generationCeiling: Double?
    var expertBytes = 0
    var peakMemory = 0
}

/// Feeds a model seeded random tokens, and takes the time.
struct Measurement {
    let model: ModelFile
    let instructionSet: InstructionSet
    let repetitions: Int
    let isCancelled: () -> Bool
    /// Uniform over the vocabulary, never repeated and never the model's own: no expert is favoured, no cache is warm by repetition.
    private var random: SplitMix64

    init(
        model: ModelFile, instructionSet: InstructionSet, repetitions: Int, seed: UInt64,
        isCancelled: @escaping () -> Bool
    ) {
        self.model = model
        self.instructionSet = instructionSet
        self.repetitions = repetitions
        self.isCancelled = isCancelled
        random = SplitMix64(state: seed)
    }

    /// - Throws: `SigmaError`: `.unavailable` if memory or threads end, `.interrupted`.
    mutating func run(_ bench: BenchCase, on backend: CPUBackend, machine: Machine) throws -> BenchResult {
        let pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
        let sequence = try backend.makeSequence(kvType: bench.kvType)
        let batch = Batch()
        var result = BenchResult(bench: bench, threads: backend.threadCount, backend: backend.name, machine: machine)

        func step(_ tokens: ArraySlice<Int32>, wantsLogits: Bool) throws {
            batch.removeAll()
            batch.append(tokens, to: sequence)
            let isDone = try pass.run(batch, isCancelled: isCancelled) { backend in
                guard wantsLogits else { return }
                _ = backend.head(rows: tokens.count - 1..<tokens.count)
            }
            guard isDone else { throw SigmaError(.interrupted, "interrupted") }
        }
        func read(_ tokens: [Int32], wantsLogits: Bool) throws {
            for start in stride(from: 0, to: tokens.count, by: backend.rowLimit) {
                let end = min(start + backend.rowLimit, tokens.count)
                try step(tokens[start..<end], wantsLogits: wantsLogits && end == tokens.count)
            }
        }

        try read(tokens(bench.depth), wantsLogits: false)
        // The first round warms memory up and is not counted.
        for repetition in 0...repetitions {
            let isCounted = repetition > 0
            if bench.prompt > 0 {
                sequence.truncate(to: bench.depth)
                let prompt = tokens(bench.prompt)
                let start = monotonicTime()
                try read(prompt, wantsLogits: true)
                let seconds = monotonicTime() - start
                if isCounted {
                    result.promptSpeeds.append(Double(bench.prompt) / seconds)
                    result.firstTokenTimes.append(seconds)
                }
            }
            if bench.generate > 0 {
                sequence.truncate(to: bench.depth)
                let next = tokens(isCounted ? bench.generate : min(bench.generate, 8))
                let diskBefore = ProcessUsage.diskBytes
                var bytes = 0
                let start = monotonicTime()
                for index in next.indices {
                    try step(next[index...index], wantsLogits: true)
                    bytes += backend.stepBytes
                }
                let seconds = monotonicTime() - start
                if isCounted {
                    result.generationSpeeds.append(Double(bench.generate) / seconds)
                    result.bytesPerToken = Double(bytes) / Double(bench.generate)
                    result.diskBytes += ProcessUsage.diskBytes - diskBefore
                }
            }
        }
        let physics = Physics(
            machine: machine, configuration: model.configuration, weights: model.weights,
            kvRowBytes: bench.kvType.rowBytes(headDim: model.configuration.headDim))
        if bench.prompt > 0 {
            result.promptCeiling = physics.promptSpeed(
                tokens: bench.prompt, depth: bench.depth, rowLimit: backend.rowLimit)
        }
        if bench.generate > 0 {
            result.generationCeiling = physics.generationSpeed(tokens: bench.generate, depth: bench.depth)
        }
        result.expertBytes = model.weights.expertBytes
        result.peakMemory = ProcessUsage.peakMemory
        return result
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
