import Synchronization

/// A loaded model: immutable, shared by any number of sessions.
///
/// On the CPU the weights stay in the mapped file if they fit into the memory budget; loading then reads only its header. Otherwise loading reads
/// what every token needs, and experts come from disk when they are needed. All computation runs on one thread team that belongs to the model.
/// On a GPU loading copies the weights to the device.
public final class SigmaModel: Sendable {
    /// What a loaded model may use.
    public struct Configuration: Sendable {
        /// The device that computes.
        public enum Backend: String, Sendable, CaseIterable {
            /// The best that is there and that the model fits.
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
        /// Threads that compute; nil: one for each fast core of one memory node that the process may use.
        public var threads: Int?
        public var backend: Backend
        /// Tokens in a sequence; nil: what the model states.
        public var contextLength: Int?
        /// Element type of the key-value cache.
        public var kvType: KVType
        /// Memory for kept prefixes of earlier requests; nil: a part of what keys and values can have.
        public var prefixCache: ByteCount?
        /// The date that prompts name, if the model's do, instead of today's: any text, such as `26 Jul 2024`. With it a prompt is the same every day.
        /// Marks of `strftime` (`%d %b %Y`) in it stand for today's date.
        public var date: String?
        /// Whether loading reads the whole file and compares the checksums of all weights. Without it only the header's is compared.
        public var verifiesChecksums: Bool
        /// Called while the model loads, on its thread, with one line that says why `auto` did not use a device. Not called where there is no
        /// GPU. nil: no warnings.
        public var warn: (@Sendable (String) -> Void)?
        /// Whether all logits are computed for every token, where a file's screening planes would find the largest.
        public var usesFullHead: Bool

        public init(
            memory: ByteCount? = nil, expertCache: ExpertCache = .auto, threads: Int? = nil, backend: Backend = .auto,
            contextLength: Int? = nil, kvType: KVType = .f16, prefixCache: ByteCount? = nil,
            verifiesChecksums: Bool = false, usesFullHead: Bool = false
        ) {
            self.memory = memory
            self.expertCache = expertCache
            self.threads = threads
            self.backend = backend
            self.contextLength = contextLength
            self.kvType = kvType
            self.prefixCache = prefixCache
            self.verifiesChecksums = verifiesChecksums
            self.usesFullHead = usesFullHead
        }
    }

    package let engine: Engine
    let loadConfiguration: Configuration

    package init(engine: Engine, configuration: Configuration) {
        self.engine = engine
        loadConfiguration = configuration
    }

    /// Shape and rules of the model.
    public var configuration: ModelConfiguration { engine.configuration }
    /// Name of the checkpoint that the file was made from.
    public var name: String { engine.model.name }
    /// Name of the back end that computes.
    public var backend: String { engine.backend.report.name }
    /// Tokens that a sequence may have.
    public var contextLength: Int { engine.contextLength }

    /// Loads a native model file, on a thread of its own.
    ///
    /// - Parameters:
    ///   - path: the model file (`sigma-convert` makes one).
    ///   - configuration: what the model may use.
    ///   - progress: called with 0...1 as loading goes on, by that thread.
    /// - Throws: `SigmaError`: `.noInput`, `.damaged`, or `.unavailable` where the configuration asks for what cannot be had;
    ///   `CancellationError` if the task was cancelled.
    public static func load(
        from path: String, configuration: Configuration = Configuration(),
        progress: (@Sendable (Double) -> Void)? = nil
    ) async throws -> SigmaModel {
        let isCancelled = CancellationFlag()
        let engine = try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                do {
                    try NativeThread {
                        continuation.resume(
                            with: Result {
                                try loadEngine(path: path, configuration: configuration) { done in
                                    if isCancelled.value { throw CancellationError() }
                                    progress?(done)
                                }
                            })
                    }.detach()
                } catch { continuation.resume(throwing: error) }
            }
        } onCancel: {
            isCancelled.set()
        }
        return SigmaModel(engine: engine, configuration: configuration)
    }

    private final class CancellationFlag: Sendable {
        private let isSet = Atomic(false)
        var value: Bool { isSet.load(ordering: .relaxed) }
        func set() { isSet.store(true, ordering: .relaxed) }
    }

    /// - Parameter progress: called with 0...1; what it throws ends the loading.
    package static func loadEngine(
        path: String, configuration: Configuration, progress: (Double) throws -> Void = { _ in }
    ) throws -> Engine {
        try progress(0)
        if let threads = configuration.threads, !(1...256).contains(threads) {
            throw SigmaError(.usage, "the number of threads must be from 1 to 256, and is \(threads)")
        }
        if let context = configuration.contextLength, context < 1 {
            throw SigmaError(.usage, "the context must be at least 1 token, and is \(context)")
        }
        if let date = configuration.date, CalendarDate.now.text(date) == nil {
            throw SigmaError(.usage, "the date '\(date)' has a mark that is not known here", remedy: "Write % as %%.")
        }
        let model = try ModelFile(path: path)
        if configuration.date != nil, model.chatFormat?.date.isEmpty != false {
            configuration.warn?("the model's prompts name no date, so the one that is given has no effect")
        }
        if configuration.verifiesChecksums { try verify(model, progress: progress) }
        // A name in the environment that means nothing is an error whatever computes.
        _ = try InstructionSet.fromEnvironment()
        // The end comes when the model can be used.
        let backend = try makeBackend(model, configuration) { try progress(min($0, 0.99)) }
        let engine = try Engine(
            model: model, backend: backend, contextLength: configuration.contextLength, date: configuration.date,
            prefixCacheBytes: configuration.prefixCache?.bytes)
        // Fails early where the model cannot have this type.
        _ = try engine.makeTimeline(kvType: configuration.kvType)
        try progress(1)
        return engine
    }

    private static func verify(_ model: ModelFile, progress: (Double) throws -> Void) throws {
        var failure: (any Error)?
        do {
            try model.verify { share in
                // The end comes when the model can be used.
                do { try progress(min(share, 0.99)) } catch { failure = error }
                return failure == nil
            }
        } catch { throw failure ?? error }
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
        return makeSession(instructions: instructions, options: options, observer: routing)
    }

    package func makeSession(
        instructions: String, options: GenerationOptions, observer: (any RoutingObserver)?
    ) -> Session {
        Session(
            engine: engine, kvType: loadConfiguration.kvType, instructions: instructions, options: options,
            observer: observer)
    }
}

// Tokens, for programs that work with them.
extension SigmaModel {
    /// An empty sequence of tokens.
    /// - Throws: `SigmaError(.unavailable)` if memory ends.
    public func makeSequence() throws -> TokenSequence {
        try TokenSequence(engine: engine, kvType: loadConfiguration.kvType)
    }

    /// The tokens of a text, as they are: without bos and template.
    ///
    /// - Parameters:
    ///   - text: any text.
    ///   - recognizingSpecials: whether a special token's name in the text is that token, or ordinary characters.
    /// - Throws: `SigmaError(.damaged)` for a model file without tokenizer.
    public func tokens(of text: String, recognizingSpecials: Bool = false) throws -> [Int32] {
        guard let tokenizer = engine.tokenizer else { throw engine.missingTokenizer }
        return tokenizer.encode(text, recognizingSpecials: recognizingSpecials)
    }

    /// The text of tokens, special tokens by their names. What is no UTF-8 (a token may end inside a character) becomes U+FFFD.
    /// - Throws: `SigmaError(.damaged)` for a model file without tokenizer.
    public func text(of tokens: some Sequence<Int32>) throws -> String {
        guard let tokenizer = engine.tokenizer else { throw engine.missingTokenizer }
        return String(decoding: tokenizer.decode(tokens, specials: .named), as: UTF8.self)
    }

    /// The token that a sequence begins with, if the tokenizer asks for one.
    public var beginToken: Int32? { engine.tokenizer.flatMap { $0.addsBos ? $0.bos : nil } }
    /// Tokens that end an answer.
    public var stopTokens: Set<Int32> { engine.stopTokens }
    /// Whether the token may be chosen: rows of the vocabulary without a token, and reserved ones, may not.
    public func allows(_ token: Int32) -> Bool {
        (0..<Int32(engine.vocabularySize)).contains(token) && engine.choosable.allows(Int(token))
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
