import Sigma
import Synchronization

/// Runs pieces of work on threads of its own.
enum Workers {
    /// Cores that this process may use, at most 64.
    static var processorCount: Int { min(64, ThreadTeam.availableProcessors) }

    /// Calls `body` for 0..<count, each once, on up to `threads` threads (the caller's among them), and returns when all are done.
    ///
    /// - Throws: the error of the lowest index that failed; the calls after a failure may not happen.
    static func forEach(_ count: Int, threads: Int, _ body: @escaping @Sendable (Int) throws -> Void) throws {
        let job = Job(count: count, body: body)
        // Where the system gives fewer threads, they do the same work.
        let helpers = (1..<max(1, min(threads, count))).compactMap { _ in try? NativeThread { job.work() } }
        job.work()
        for helper in helpers { helper.join() }
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
