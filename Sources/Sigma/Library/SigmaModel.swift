/// A loaded model: immutable, shared by any number of sessions.
///
/// The weights stay in the mapped file if they fit into the memory budget; loading then reads only its header. Otherwise loading reads what every
/// token needs, and experts come from disk when they are needed. All computation runs on one thread team that belongs to the model.
public final class SigmaModel: Sendable {
    /// What a loaded model may use.
    public struct Configuration: Sendable {
        /// The device that computes.
        public enum Backend: String, Sendable, CaseIterable {
            /// The best that is there.
            case auto
            case cpu
            case cuda
        }

        /// Memory for experts.
        public enum ExpertCache: Sendable, Equatable {
            /// All of them if they fit; else what the memory budget leaves.
            case auto
            /// All of them: the file is mapped, and the system pages it.
            case all
            case size(ByteCount)
        }

        /// All the memory the process may use; nil: what is available when the model is loaded. Experts that don't fit are read from disk when they
        /// are needed.
        public var memory: ByteCount?
        public var expertCache: ExpertCache
        package var expertPolicy = EvictionPolicyKind.lru
        package var expertPrediction = PredictionMode.auto
        /// Threads that compute; nil: the processors that the process may use.
        public var threads: Int?
        public var backend: Backend
        /// Tokens in a sequence; nil: what the model states.
        public var contextLength: Int?
        /// Element type of the key-value cache.
        public var kvType: KVType

        public init(
            memory: ByteCount? = nil, expertCache: ExpertCache = .auto, threads: Int? = nil, backend: Backend = .auto,
            contextLength: Int? = nil, kvType: KVType = .f16
        ) {
            self.memory = memory
            self.expertCache = expertCache
            self.threads = threads
            self.backend = backend
            self.contextLength = contextLength
            self.kvType = kvType
        }
    }

    package let engine: Engine
    private let loadConfiguration: Configuration

    package init(engine: Engine, configuration: Configuration) {
        self.engine = engine
        loadConfiguration = configuration
    }

    /// Shape and rules of the model.
    public var configuration: ModelConfiguration { engine.configuration }
    /// Name of the checkpoint that the file was made from.
    public var name: String { engine.model.name }
    /// Name of the back end that computes.
    public var backend: String { engine.backend.name }
    /// Tokens that a sequence may have.
    public var contextLength: Int { engine.contextLength }

    /// Loads a native model file.
    ///
    /// - Parameters:
    ///   - path: the model file (`sigma-convert` makes one).
    ///   - progress: called with 0...1 as loading goes on.
    /// - Throws: `SigmaError`: `.noInput`, `.damaged`, or `.unavailable` where the configuration asks for what cannot be had.
    public static func load(
        from path: String, configuration: Configuration = Configuration(),
        progress: (@Sendable (Double) -> Void)? = nil
    ) async throws -> SigmaModel {
        progress?(0)
        let engine = try loadEngine(path: path, configuration: configuration)
        try Task.checkCancellation()
        progress?(1)
        return SigmaModel(engine: engine, configuration: configuration)
    }

    package static func loadEngine(path: String, configuration: Configuration) throws -> Engine {
        if configuration.backend == .cuda {
            throw SigmaError(
                .unavailable, "this version has no CUDA back end", remedy: "Use the CPU: --backend cpu.")
        }
        if let threads = configuration.threads, !(1...256).contains(threads) {
            throw SigmaError(.usage, "the number of threads must be from 1 to 256, and is \(threads)")
        }
        if let context = configuration.contextLength, context < 1 {
            throw SigmaError(.usage, "the context must be at least 1 token, and is \(context)")
        }
        let model = try ModelFile(path: path)
        let instructionSet = try InstructionSet.fromEnvironment()
        let backend = try CPUBackend(
            model: model, threadCount: configuration.threads, instructionSet: instructionSet,
            limits: configuration.memoryLimits)
        let engine = try Engine(model: model, backend: backend, contextLength: configuration.contextLength)
        // Fails early where the model cannot have this type.
        _ = try engine.makeTimeline(kvType: configuration.kvType)
        return engine
    }

    /// A new conversation.
    ///
    /// - Parameters:
    ///   - instructions: the system prompt; empty: none.
    ///   - options: how its answers are made, unless a request says otherwise.
    ///   - routing: sees which experts the session's tokens use; made for this model. Several sessions may share one.
    public func makeSession(
        instructions: String = "", options: GenerationOptions = GenerationOptions(), routing: RoutingMonitor? = nil
    ) -> Session {
        precondition(routing.map { $0.engine === engine } ?? true, "the monitor was made for another model")
        return Session(
            engine: engine, kvType: loadConfiguration.kvType, instructions: instructions, options: options,
            routing: routing)
    }
}

extension SigmaModel.Configuration {
    package var memoryLimits: MemoryLimits {
        let cache: MemoryLimits.Cache =
            switch expertCache {
            case .auto: .auto
            case .all: .all
            case .size(let size): .bytes(size.bytes)
            }
        return MemoryLimits(memory: memory?.bytes, cache: cache, policy: expertPolicy, prediction: expertPrediction)
    }
}
