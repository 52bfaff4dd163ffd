import Sigma
import SigmaConversion
import SystemLibrary

/// A small synthetic model in 8 bits that computes a token in little time, and whose blocks of keys and values are small.
package enum SmallModel {
    package static let shape = SyntheticModel.Shape(
        name: "small", layerCount: 2, hiddenSize: 256, headCount: 4, kvHeadCount: 2, headDim: 64, expertCount: 8,
        expertIntermediateSize: 256, vocabularySize: 512, contextLength: 4096)

    /// Made once for a run; the file is gone when this returns: the mapping keeps it.
    package static func file() throws -> ModelFile { try made.get() }

    private static let made = Result { () throws -> ModelFile in
        let path = "/tmp/sigma-small-\(getpid())-\(monotonicTime()).gguf"
        defer { unlink(path) }
        var options = SyntheticModel.Options(type: .q8_0, outputType: .q8_0)
        options.shape = shape
        options.threads = 2
        try Converter.convert(
            SyntheticModel(options).input,
            Converter.Options(
                input: "", output: path, type: .q8_0, outputType: .q8_0, overrides: Overrides(), headScreening: .off,
                threads: 2))
        return try ModelFile(path: path)
    }

    /// An engine with one thread, whose memory follows from its arguments alone.
    ///
    /// - Parameters:
    ///   - budget: bytes beyond the least that works; nil: no budget.
    ///   - isResident: whether all experts stay in memory, or the least number of slots that works.
    package static func engine(
        budget: Int? = nil, isResident: Bool = true, rowLimit: Int = 512, model: ModelFile? = nil
    ) throws -> Engine {
        let model = try model ?? file()
        var limits = MemoryLimits(memory: nil, cache: .all)
        if let budget {
            limits.cache = isResident ? .all : .bytes(recordsPerToken * ExpertRecordTable(model).slotBytes)
            limits.processBytes = 64 << 20
            let probe = try CPUBackend(model: model, threadCount: 1)
            limits.memory = 1 << 40
            limits.memory = try probe.memoryPlan(for: limits).leastBudget + budget
        }
        let backend = try CPUBackend(model: model, threadCount: 1, rowLimit: rowLimit, limits: limits)
        return try Engine(model: model, backend: backend)
    }

    private static var recordsPerToken: Int { shape.layerCount }

    /// Ordinary tokens, the same for the same seed.
    package static func tokens(_ count: Int, seed: UInt64) -> [Int32] {
        var random = SplitMix64(state: seed)
        return (0..<count).map { _ in Int32(random.next() % 400) }
    }
}

extension Engine {
    /// Options of an answer that never stops of its own accord: every token matters to those that follow.
    package func endless(
        _ count: Int, temperature: Double = 1, seed: UInt64 = 1
    ) -> GenerationOptions {
        GenerationOptions(
            temperature: temperature, seed: seed, thinks: false, maximumTokens: count,
            logitBias: Dictionary(uniqueKeysWithValues: stopTokens.map { ($0, -10_000) }))
    }

    package func request(
        _ tokens: [Int32], _ options: GenerationOptions, logProbabilityCount: Int? = nil
    ) -> GenerationRequest {
        GenerationRequest(
            tokens: tokens, start: .answer, options: options, logProbabilityCount: logProbabilityCount)
    }
}
