import Hummingbird
import NIOCore
import Synchronization

/// What a request carries through the router.
struct ServerContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel
    let observation = Observation()

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        channel = source.channel
    }

    /// Runs `body` as a task that is cancelled when the client goes away, or with all others in `tasks`.
    func whileConnected<Value: Sendable>(
        _ tasks: RunningTasks, _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let work = Task { try await body() }
        let number = tasks.add { work.cancel() }
        defer { tasks.remove(number) }
        return try await withTaskCancellationHandler {
            guard let connection = try? await channel.pipeline.handler(type: ConnectionGuard.self).get() else {
                // A connection that was reset has no handlers any more.
                if !channel.isActive { work.cancel() }
                return try await work.value
            }
            return try await connection.watching(onGone: { work.cancel() }) { try await work.value }
        } onCancel: {
            work.cancel()
        }
    }
}

/// Who watches the request, once its body is read; and why its stream ended early, if it did.
final class Observation: Sendable {
    private let observer = Mutex<RequestObserver?>(nil)
    private let error = Mutex<String?>(nil)

    var current: RequestObserver? { observer.withLock { $0 } }
    func set(_ new: RequestObserver) { observer.withLock { $0 = new } }
    var failure: String? { error.withLock { $0 } }
    func fail(_ message: String) { error.withLock { $0 = message } }
}

/// The work of all requests, to end it together.
final class RunningTasks: Sendable {
    private let state = Mutex<(last: Int, cancellations: [Int: @Sendable () -> Void], isOver: Bool)>((0, [:], false))

    var isEmpty: Bool { state.withLock { $0.cancellations.isEmpty } }

    func add(_ cancel: @escaping @Sendable () -> Void) -> Int {
        let (number, isOver) = state.withLock { state in
            state.last += 1
            state.cancellations[state.last] = cancel
            return (state.last, state.isOver)
        }
        if isOver { cancel() }
        return number
    }

    func remove(_ number: Int) { state.withLock { $0.cancellations[number] = nil } }

    /// Cancels all, and whatever comes later.
    func cancelAll() {
        let cancellations = state.withLock { state in
            state.isOver = true
            return Array(state.cancellations.values)
        }
        for cancel in cancellations { cancel() }
    }
}
