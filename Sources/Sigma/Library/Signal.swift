import Synchronization

/// The end of some work on the engine's thread, awaited by one task.
final class Signal: Sendable {
    private struct State {
        var result: Result<Void, any Error>?
        var continuation: CheckedContinuation<Void, Never>?
    }

    private let state = Mutex(State())

    var result: Result<Void, any Error>? { state.withLock { $0.result } }

    func send(_ result: Result<Void, any Error>) {
        let continuation = state.withLock { state in
            state.result = result
            return state.continuation
        }
        continuation?.resume()
    }

    func wait() async {
        await withCheckedContinuation { continuation in
            let isOver = state.withLock { state in
                state.continuation = continuation
                return state.result != nil
            }
            // Whoever comes second resumes.
            if isOver { continuation.resume() }
        }
    }
}
