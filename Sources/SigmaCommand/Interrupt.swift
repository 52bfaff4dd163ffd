import Sigma
import Synchronization
import SystemLibrary

/// Ctrl-C (SIGINT), SIGTERM and SIGHUP as a flag, so that work can stop at a point of its choice and clean up.
public enum Interrupt {
    private static let count = Atomic<Int>(0)
    private static let wakeUp = Atomic<Int32>(-1)

    /// True once the user asked to stop. Cheap; any thread.
    public static var isRequested: Bool { count.load(ordering: .relaxed) > 0 }

    /// Until `install`: a signal ends the process with exit code 130, as it will later.
    static func endsProcess() { watch { _ in _exit(130) } }

    /// Starts to watch.
    /// - Parameter forced: whether a second Ctrl-C ends the process at once with exit code 130. Not for commands that
    ///   have a half-written file to remove.
    public static func install(secondEndsProcess forced: Bool) {
        // Touched here, so that the handler never runs a lazy initialiser.
        count.store(0, ordering: .relaxed)
        let handler: @convention(c) (Int32) -> Void =
            forced
            ? { _ in
                if Interrupt.received() > 1 { _exit(130) }
            }
            : { _ in _ = Interrupt.received() }
        watch(handler)
    }

    private static func watch(_ handler: @escaping @convention(c) (Int32) -> Void) {
        for number in [SIGINT, SIGTERM, SIGHUP] {
            // The parent (nohup, a shell's background job) has set it to be ignored: it stays ignored.
            var previous = sigaction()
            sigaction(number, nil, &previous)
            #if canImport(Darwin)
                let isIgnored = unsafeBitCast(previous.__sigaction_u.__sa_handler, to: Int.self) == 1
            #else
                let isIgnored = unsafeBitCast(previous.__sigaction_handler.sa_handler, to: Int.self) == 1
            #endif
            if !isIgnored { signal(number, handler) }
        }
    }

    /// Calls `body` once, on a thread of its own, when the user asks to stop: for cancelling a task.
    public static func onRequest(_ body: @escaping @Sendable () -> Void) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        wakeUp.store(ends[1], ordering: .sequentiallyConsistent)
        let input = ends[0]
        let thread = try? NativeThread {
            var byte: UInt8 = 0
            while read(input, &byte, 1) < 0, errno == EINTR {}
            body()
        }
        thread?.detach()
    }

    /// In the signal handler: async-signal-safe calls only.
    private static func received() -> Int {
        let number = count.add(1, ordering: .relaxed).newValue
        let descriptor = wakeUp.load(ordering: .sequentiallyConsistent)
        if descriptor >= 0 {
            let savedError = errno
            var byte: UInt8 = 1
            _ = write(descriptor, &byte, 1)
            errno = savedError
        }
        return number
    }
}
