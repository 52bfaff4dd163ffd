import SystemLibrary

/// A thread of the operating system, for work that must not sit on Swift's cooperative pool.
package struct NativeThread {
    private let thread: pthread_t

    private final class Start: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Bytes of a thread's stack, whatever the process's limit on stacks is.
    private static let stackBytes = 4 << 20

    /// Starts `body` on a new thread.
    /// - Throws: `SigmaError(.unavailable)` if the system gives none.
    package init(_ body: @escaping @Sendable () -> Void) throws {
        let argument = Unmanaged.passRetained(Start(body))
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        pthread_attr_setstacksize(&attributes, Self.stackBytes)
        defer { pthread_attr_destroy(&attributes) }
        #if canImport(Darwin)
            var thread: pthread_t?
            let status = pthread_create(&thread, &attributes, { NativeThread.run($0) }, argument.toOpaque())
        #else
            var thread: pthread_t? = pthread_t()
            let status = pthread_create(&thread!, &attributes, { NativeThread.run($0!) }, argument.toOpaque())
        #endif
        guard status == 0, let thread else {
            argument.release()
            throw SigmaError(
                .unavailable, "the system does not give this process another thread: \(systemMessage(status))",
                remedy: "Raise the limits on processes and memory (ulimit -u, -v), or close other programs.")
        }
        self.thread = thread
    }

    private static func run(_ argument: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? {
        Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
        return nil
    }

    /// Waits for the end of the thread. Each thread is either joined or detached, once.
    package func join() { pthread_join(thread, nil) }

    /// Lets the thread run on its own.
    package func detach() { pthread_detach(thread) }
}
