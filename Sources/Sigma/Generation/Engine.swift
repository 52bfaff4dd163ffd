import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A loaded model with its back end, and the thread that runs every step.
///
/// Live generations wait in a ring; the thread takes one step of each in turn. The thread ends when the engine is released.
package final class Engine: Sendable {
    package let model: ModelFile
    package let backend: any Backend
    package let forwardPass: ForwardPass
    package let tokenizer: Tokenizer?
    package let chatFormat: ChatFormat?
    /// Positions a sequence may have.
    package let contextLength: Int
    package let stopTokens: Set<Int32>
    /// [vocabulary]: rows that may be chosen; empty: all.
    package let allowedTokens: [Bool]
    private let ring: Ring

    package var configuration: ModelConfiguration { model.configuration }
    package var vocabularySize: Int { model.configuration.vocabularySize }
    package var modelPath: String { model.path }

    /// - Parameter contextLength: a limit below (or above) what the model states; nil: the model's.
    /// - Throws: `SigmaError` if the model's tokenizer is damaged, or no thread can be had.
    package init(model: ModelFile, backend: any Backend, contextLength: Int? = nil) throws {
        self.model = model
        self.backend = backend
        forwardPass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
        let definition = try model.tokenizerDefinition()
        let tokenizer = try definition.map { try Tokenizer($0) }
        self.tokenizer = tokenizer
        chatFormat = model.chatFormat
        self.contextLength = contextLength ?? model.configuration.contextLength
        var stops = Set(model.chatFormat?.stopTokens ?? [])
        if let eos = tokenizer?.eos { stops.insert(eos) }
        stopTokens = stops
        allowedTokens =
            tokenizer.map { tokenizer in
                (0..<model.configuration.vocabularySize).map { tokenizer.isAllowed(Int32($0)) }
            } ?? []
        ring = Ring()
        try ring.startThread()
    }

    deinit { ring.close() }

    package func makeTimeline(kvType: KVType) throws -> Timeline { Timeline(try backend.makeSequence(kvType: kvType)) }

    /// Runs the generation to its end on the engine thread; then calls `onEnd`, once, on that thread.
    package func run(_ generation: Generation, onEnd: @escaping @Sendable (Result<Void, any Error>) -> Void) {
        ring.append(Ring.Job(generation: generation, onEnd: onEnd))
    }
}

/// The generations that wait for their next step.
private final class Ring: @unchecked Sendable {
    struct Job {
        let generation: Generation
        let onEnd: @Sendable (Result<Void, any Error>) -> Void
    }

    private let mutex: UnsafeMutablePointer<pthread_mutex_t> = .allocate(capacity: 1)
    private let hasWork: UnsafeMutablePointer<pthread_cond_t> = .allocate(capacity: 1)
    private var jobs: [Job] = []
    private var isClosed = false

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(hasWork, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(hasWork)
        mutex.deallocate()
        hasWork.deallocate()
    }

    func startThread() throws {
        #if os(Linux)
            var thread = pthread_t()
        #else
            var thread: pthread_t?
        #endif
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        pthread_attr_setstacksize(&attributes, 8 << 20)
        defer { pthread_attr_destroy(&attributes) }
        let context = Unmanaged.passRetained(self)
        #if os(Linux)
            let result = pthread_create(
                &thread, &attributes,
                { context in
                    Unmanaged<Ring>.fromOpaque(context!).takeRetainedValue().work()
                    return nil
                }, context.toOpaque())
        #else
            let result = pthread_create(
                &thread, &attributes,
                { context in
                    Unmanaged<Ring>.fromOpaque(context).takeRetainedValue().work()
                    return nil
                }, context.toOpaque())
        #endif
        guard result == 0 else {
            context.release()
            throw SigmaError(.unavailable, "cannot start the engine's thread: \(systemMessage(result))")
        }
    }

    func append(_ job: Job) {
        pthread_mutex_lock(mutex)
        jobs.append(job)
        pthread_cond_signal(hasWork)
        pthread_mutex_unlock(mutex)
    }

    func close() {
        pthread_mutex_lock(mutex)
        isClosed = true
        pthread_cond_signal(hasWork)
        pthread_mutex_unlock(mutex)
    }

    /// nil when the engine is gone. A generation holds its engine, so none is waiting then.
    private func next() -> Job? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while jobs.isEmpty && !isClosed { pthread_cond_wait(hasWork, mutex) }
        return jobs.isEmpty ? nil : jobs.removeFirst()
    }

    private func work() {
        while let job = next() {
            do {
                if try job.generation.advance() {
                    append(job)
                } else {
                    job.onEnd(.success(()))
                }
            } catch {
                job.onEnd(.failure(error))
            }
        }
    }
}
