import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Runs pieces of work on threads of its own.
enum Workers {
    /// Processors that are online, at most 64.
    static var processorCount: Int { max(1, min(64, sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }

    /// Calls `body` for 0..<count, each once, on up to `threads` threads (the caller's among them), and returns when all are done.
    ///
    /// - Throws: the error of the lowest index that failed; the calls after a failure may not happen.
    static func forEach(_ count: Int, threads: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        let job = Job(count: count, body: body)
        #if canImport(Darwin)
            var running: [pthread_t?] = []
        #else
            var running: [pthread_t] = []
        #endif
        for _ in 0..<max(0, min(threads, count) - 1) {
            #if canImport(Darwin)
                var thread: pthread_t?
            #else
                var thread = pthread_t()
            #endif
            let argument = Unmanaged.passRetained(job).toOpaque()
            let status = pthread_create(
                &thread, nil,
                { argument in
                    #if canImport(Darwin)
                        let pointer = argument
                    #else
                        let pointer = argument!
                    #endif
                    Unmanaged<Job>.fromOpaque(pointer).takeRetainedValue().work()
                    return nil
                }, argument)
            guard status == 0 else {
                // Fewer threads do the same work.
                Unmanaged<Job>.fromOpaque(argument).release()
                break
            }
            running.append(thread)
        }
        job.work()
        for thread in running {
            #if canImport(Darwin)
                pthread_join(thread!, nil)
            #else
                pthread_join(thread, nil)
            #endif
        }
        if let failure = job.failure.withLock({ $0 }) { throw failure.error }
    }

    private final class Job: Sendable {
        let count: Int
        let body: @Sendable (Int) throws -> Void
        let next = Atomic<Int>(0)
        let failure = Mutex<(index: Int, error: any Error)?>(nil)

        init(count: Int, body: @escaping @Sendable (Int) throws -> Void) {
            self.count = count
            self.body = body
        }

        func work() {
            while true {
                let index = next.add(1, ordering: .relaxed).oldValue
                guard index < count else { return }
                do {
                    try body(index)
                } catch {
                    failure.withLock { current in
                        if current.map({ index < $0.index }) ?? true { current = (index, error) }
                    }
                    next.store(count, ordering: .relaxed)
                }
            }
        }
    }
}
