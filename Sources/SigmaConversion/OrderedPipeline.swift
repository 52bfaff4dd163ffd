import Sigma
import Synchronization

/// Work that several threads do side by side and one uses in order: while a result is used, the next ones are being made.
package enum OrderedPipeline {
    /// Calls `produce` for 0..<count on threads of its own, and `consume` for each in order on the calling thread once it is produced.
    ///
    /// - Parameters:
    ///   - slots: how many results there may be at a time; result i is in slot i % slots from `produce(i)` to the end of `consume(i)`.
    ///   - threads: that produce. Where the system gives none, the calling thread does all.
    /// - Throws: the error of the lowest index that failed, whatever the number of threads; `consume` was then called for all below it,
    ///   and nothing runs any more.
    package static func run(
        count: Int, slots: Int, threads: Int, produce: @escaping @Sendable (_ index: Int, _ slot: Int) throws -> Void,
        consume: (_ index: Int, _ slot: Int) throws -> Void
    ) throws {
        precondition(slots > 0)
        let state = State(count: count, slots: slots, produce: produce)
        let workers = (0..<max(1, min(threads, count, slots))).compactMap { _ in try? NativeThread { state.work() } }
        defer {
            state.stop()
            for worker in workers { worker.join() }
        }
        for index in 0..<count {
            if workers.isEmpty {
                try produce(index, index % slots)
            } else {
                try state.waitForResult(index)
            }
            try consume(index, index % slots)
            state.free(index)
        }
    }

    private final class State: @unchecked Sendable {
        private let count: Int
        private let slots: Int
        private let produce: @Sendable (Int, Int) throws -> Void
        private let lock = ConditionLock()
        /// Broadcast at every change.
        private let changed: Condition
        // Under the lock:
        private var next = 0
        private var consumed = 0
        /// [slots]: what is in them.
        private var results: [Result<Void, any Error>?]
        private var isStopped = false

        init(count: Int, slots: Int, produce: @escaping @Sendable (Int, Int) throws -> Void) {
            self.count = count
            self.slots = slots
            self.produce = produce
            results = Array(repeating: nil, count: slots)
            changed = Condition(lock)
        }

        private func locked<T>(_ body: () throws -> T) rethrows -> T {
            defer { changed.broadcast() }
            return try lock.with(body)
        }

        func work() {
            while let index = take() {
                let result = Result { try produce(index, index % slots) }
                locked {
                    results[index % slots] = result
                    // What comes later would not be used.
                    if case .failure = result { next = count }
                }
            }
        }

        /// The next index whose slot is free; nil at the end.
        private func take() -> Int? {
            lock.lock()
            defer { lock.unlock() }
            while !isStopped, next < count, next - consumed >= slots { changed.wait() }
            guard !isStopped, next < count else { return nil }
            next += 1
            return next - 1
        }

        func waitForResult(_ index: Int) throws {
            lock.lock()
            defer { lock.unlock() }
            while true {
                if let result = results[index % slots] { return try result.get() }
                changed.wait()
            }
        }

        func free(_ index: Int) {
            locked {
                results[index % slots] = nil
                consumed = index + 1
            }
        }

        func stop() { locked { isStopped = true } }
    }
}
