/// A loaded model: immutable, shared by any number of sessions.
///
/// The weights stay in the mapped file; loading reads only its header. All computation runs on one thread team that belongs to the model.
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

        /// All the memory the engine may use; nil: the mapped file may be resident as far as the system lets it. A budget needs the expert
        /// cache, which this version does not have: it is refused if the model does not fit.
        public var memory: ByteCount?
        /// Threads that compute; nil: the processors that the process may use.
        public var threads: Int?
        public var backend: Backend
        /// Tokens in a sequence; nil: what the model states.
        public var contextLength: Int?
        /// Element type of the key-value cache.
        public var kvType: KVType

        public init(
            memory: ByteCount? = nil, threads: Int? = nil, backend: Backend = .auto, contextLength: Int? = nil,
            kvType: KVType = .f16
        ) {
            self.memory = memory
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
        if let memory = configuration.memory, memory.bytes < model.byteCount {
            throw SigmaError(
                .unavailable,
                "the model needs \(model.byteCount >> 20) MiB and the budget is \(memory.bytes >> 20) MiB: paging experts under a budget is not in this version",
                path: path, remedy: "Raise --memory, or leave it out: the file is mapped and the system pages it.")
        }
        let instructionSet = try InstructionSet.fromEnvironment()
        let backend = try CPUBackend(model: model, threadCount: configuration.threads, instructionSet: instructionSet)
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
