import ArgumentParser
import Sigma

/// What computes.
public struct EngineArguments: ParsableArguments {
    @OptionGroup public var compute: ComputeOptions

    @Option(help: ArgumentHelp("Memory for experts: a size, all or auto.", valueName: "size"))
    public var expertCache: ExpertCacheSize = .auto

    @Option(
        help: ArgumentHelp(
            "Predict the experts of the next layers and read them ahead: auto (if that is faster), on or off.",
            valueName: "when"))
    package var expertPrediction = PredictionMode.auto

    @Option(help: ArgumentHelp("Which experts the cache evicts first: lru, slru or lfu.", valueName: "name"))
    package var expertPolicy = EvictionPolicyKind.lru

    @Flag(help: "Compute all logits for every token, even if the model file has planes that find the largest.")
    public var fullHead = false

    @Option(
        help: ArgumentHelp(
            "The date that prompts name if the model's template writes one, such as \"26 Jul 2024\" (default: what the template does, mostly today's).",
            valueName: "text"))
    public var date: String?

    public init() {}

    public var configuration: SigmaModel.Configuration {
        var configuration = compute.configuration
        configuration.usesFullHead = fullHead
        configuration.date = date
        configuration.expertCache = expertCache.limit
        configuration.expertPrediction = expertPrediction
        configuration.expertPolicy = expertPolicy
        return configuration
    }

    /// - Throws: `SigmaError`: `.usage`, or as `SigmaModel.loadEngine`.
    package func load() throws -> Engine { try loader()() }

    /// What loads the engine, on any thread.
    ///
    /// - Parameter prefixCache: memory for beginnings that requests share; nil: a part of the budget.
    /// - Throws: `SigmaError` (`.usage`) for a model that cannot be found.
    package func loader(prefixCache: ByteSize? = nil) throws -> @Sendable () throws -> Engine {
        var configuration = configuration
        configuration.prefixCache = prefixCache.map { .bytes($0.bytes) }
        let path = try compute.model.path
        return { [configuration] in try SigmaModel.loadEngine(path: path, configuration: configuration) }
    }
}
