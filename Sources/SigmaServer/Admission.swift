import Sigma
import SigmaRequests
import Synchronization

/// Gives answers their places: an `AdmissionQueue`, and those who wait for it. Any thread may call.
final class Admission: Sendable {
    private struct State {
        var queue: AdmissionQueue
        var waiters: [Int: CheckedContinuation<Void, any Error>] = [:]
        /// Seconds that an answer had its place, a running mean.
        var meanSeconds = 0.0
    }

    private let state: Mutex<State>
    /// Whether memory has room for a sequence of so many positions.
    private let hasRoom: @Sendable (_ positions: Int) -> Bool

    init(_ limits: AdmissionQueue.Limits, hasRoom: @escaping @Sendable (_ positions: Int) -> Bool) {
        state = Mutex(State(queue: AdmissionQueue(limits)))
        self.hasRoom = hasRoom
    }

    var running: Int { state.withLock { $0.queue.runningCount } }
    var waiting: Int { state.withLock { $0.queue.waitingCount } }
    /// Whether no request is there.
    var isIdle: Bool { state.withLock { $0.queue.isEmpty } }

    /// A request's right to be there, until it is released.
    final class Ticket: Sendable {
        fileprivate let number: Int
        private let admission: Admission

        fileprivate init(_ number: Int, _ admission: Admission) {
            self.number = number
            self.admission = admission
        }

        deinit { admission.state.withLock { $0.queue.leave(number) } }

        /// Waits for a place, and keeps it while `body` runs.
        /// - Throws: `CancellationError` if the task was cancelled while it waited.
        func withPlace<Value: Sendable>(positions: Int, _ body: () async throws -> Value) async throws -> Value {
            let (admission, number) = (admission, number)
            let place = admission.state.withLock { $0.queue.nextNumber() }
            do {
                try await withTaskCancellationHandler {
                    try await withCheckedThrowingContinuation { waiter in
                        admission.wait(for: place, number, positions: positions, waiter)
                    }
                } onCancel: {
                    admission.stopWaiting(place)
                }
            } catch {
                admission.giveBack(place, after: nil)
                throw error
            }
            let before = monotonicTime()
            do {
                let value = try await body()
                admission.giveBack(place, after: monotonicTime() - before)
                return value
            } catch {
                admission.giveBack(place, after: nil)
                throw error
            }
        }
    }

    /// A request comes.
    /// - Throws: `Refusal` if the queue is full.
    func enter(promptTokens: Int) throws -> Ticket {
        let number = state.withLock { $0.queue.enter(promptTokens: promptTokens) }
        guard let number else { throw Refusal.busy(retryAfter: retryAfter) }
        return Ticket(number, self)
    }

    /// Seconds after which a place is probably free: those that wait, at the speed that answers had.
    private var retryAfter: Int {
        state.withLock { state in
            let rounds = Double(state.queue.waitingCount + 1) / Double(state.queue.limits.parallel)
            return min(120, max(1, Int((state.meanSeconds * rounds).rounded(.up))))
        }
    }

    // MARK: - Waiting

    private func wait(
        for place: Int, _ ticket: Int, positions: Int, _ waiter: CheckedContinuation<Void, any Error>
    ) {
        state.withLock { state in
            state.queue.wait(for: place, ticket, positions: positions)
            state.waiters[place] = waiter
        }
        // A request that was cancelled before is not notified again.
        if Task.isCancelled { stopWaiting(place) }
        begin()
    }

    private func stopWaiting(_ place: Int) {
        let waiter = state.withLock { $0.waiters.removeValue(forKey: place) }
        waiter?.resume(throwing: CancellationError())
    }

    private func giveBack(_ place: Int, after seconds: Double?) {
        state.withLock { state in
            state.queue.giveBack(place)
            guard let seconds else { return }
            state.meanSeconds += (state.meanSeconds == 0 ? 1 : 0.1) * (seconds - state.meanSeconds)
        }
        begin()
    }

    private func begin() {
        let begun = state.withLock { state in
            state.queue.begin(hasRoom: hasRoom).compactMap { state.waiters.removeValue(forKey: $0) }
        }
        for waiter in begun { waiter.resume() }
    }
}
