import Dispatch
import Sigma
import Synchronization

/// Runs asynchronous work from a command's thread, which waits for it.
public func waitForTask<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) throws -> Value {
    let ended = DispatchSemaphore(value: 0)
    let box = ResultBox<Value>()
    Task {
        do { box.set(.success(try await body())) } catch { box.set(.failure(error)) }
        ended.signal()
    }
    ended.wait()
    return try box.take().get()
}

private final class ResultBox<Value: Sendable>: Sendable {
    private let result = Mutex<Result<Value, any Error>?>(nil)

    func set(_ value: Result<Value, any Error>) { result.withLock { $0 = value } }
    func take() -> Result<Value, any Error> { result.withLock { $0! } }
}

/// A progress bar that tasks update.
public final class SharedProgressBar: Sendable {
    private let bar: Mutex<ProgressBar>

    public init(_ label: String) { bar = Mutex(ProgressBar(label)) }

    /// - Parameter fraction: 0...1.
    public func update(_ fraction: Double) { bar.withLock { $0.update(fraction) } }
    public func finish() { bar.withLock { $0.finish() } }
}
