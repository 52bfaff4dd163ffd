import SystemLibrary

/// A thread of the operating system, for work that must not sit on Swift's cooperative pool.
package struct NativeThread {
    private let thread: pthread_t

    private final class Start: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Starts `body` on a new thread.
    /// - Throws: `SigmaError(.unavailable)` if the system gives none.
    package init(_ body: @escaping @Sendable () -> Void) throws {
        let argument = Unmanaged.passRetained(Start(body))
        #if canImport(Darwin)
            var thread: pthread_t?
            let status = pthread_create(&thread, nil, { NativeThread.run($0) }, argument.toOpaque())
        #else
            var thread: pthread_t? = pthread_t()
            let status = pthread_create(&thread!, nil, { NativeThread.run($0!) }, argument.toOpaque())
        #endif
        guard status == 0, let thread else {
            argument.release()
            throw SigmaError(.unavailable, "cannot start a thread: \(systemMessage(status))")
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
