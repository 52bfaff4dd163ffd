import Synchronization
import SystemLibrary

/// The terminal at standard input and output: its modes, its size, its bytes, and the signals that concern it.
///
/// There is one. A thread at a time reads; any thread may write.
public final class TerminalDevice: @unchecked Sendable {
    public enum Event: Equatable, Sendable {
        case bytes([UInt8])
        /// The window has another size.
        case resized
        /// Ctrl-C that somebody else sent (`kill -INT`).
        case interrupted
        /// The process shall end: SIGTERM, or the terminal has gone.
        case ended
        /// We were stopped, and go on.
        case continued
        /// Nothing came in time.
        case timedOut
        /// `wake()` was called.
        case woken
    }

    private var original = termios()
    private var isRaw = false
    /// Whether the terminal is gone, or the process is to end: nobody can be asked any more.
    public private(set) var hasEnded = false
    /// Signals arrive here as bytes: their numbers, and 0 of `wake()`.
    private let signalInput: Int32
    private static let signalOutput = Atomic<Int32>(-1)

    private static var isThere: Bool { isatty(0) == 1 && isatty(1) == 1 }

    /// Why there is no device although standard input and output are a terminal; nil: there is no such reason.
    public static var obstacle: String? {
        guard isThere, let kind = getenv("TERM").map({ String(cString: $0) }), kind == "dumb" || kind.isEmpty else {
            return nil
        }
        return "TERM is '\(kind)': a terminal whose cursor cannot be moved"
    }

    /// - Returns: nil if standard input and output are not both a terminal that can move its cursor.
    public init?() {
        guard Self.isThere, Self.obstacle == nil, tcgetattr(0, &original) == 0 else { return nil }
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return nil }
        for end in ends {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
        signalInput = ends[0]
        Self.signalOutput.store(ends[1], ordering: .sequentiallyConsistent)
    }

    /// From now on signals are events, and Ctrl-C and its like are keys. Bracketed paste is on.
    public func enter() {
        for number in [SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT] { signal(number, { TerminalDevice.pass($0) }) }
        makeRaw()
    }

    /// As it was before.
    public func leave() {
        restore()
        for number in [SIGWINCH, SIGCONT] { signal(number, SIG_DFL) }
    }

    private func makeRaw() {
        var raw = original
        // Output stays as it is: a line end returns to the first column.
        raw.c_iflag &= ~tcflag_t(ICRNL | INLCR | IGNCR | IXON | ISTRIP)
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG | IEXTEN)
        setMinimum(&raw)
        // What was typed before is not lost.
        tcsetattr(0, TCSADRAIN, &raw)
        if !isRaw { write("\u{1b}[?2004h") }
        isRaw = true
    }

    /// A read returns as soon as there is a byte.
    private func setMinimum(_ raw: inout termios) {
        withUnsafeMutableBytes(of: &raw.c_cc) { characters in
            characters[Int(VMIN)] = 1
            characters[Int(VTIME)] = 0
        }
    }

    private func restore() {
        guard isRaw else { return }
        write("\u{1b}[?2004l\u{1b}[?25h")
        tcsetattr(0, TCSADRAIN, &original)
        isRaw = false
    }

    /// Ctrl-Z: returns when we are in the foreground again.
    public func suspend() {
        restore()
        kill(0, SIGTSTP)
        makeRaw()
    }

    /// The terminal's size; 80 by 24 if it does not say.
    public var size: (columns: Int, rows: Int) {
        var size = winsize()
        guard ioctl(1, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (80, 24) }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    public func write(_ text: String) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { SystemLibrary.write(1, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                guard errno == EAGAIN else { return }
                var descriptor = pollfd(fd: 1, events: Int16(POLLOUT), revents: 0)
                poll(&descriptor, 1, 1000)
                continue
            }
            rest = rest.dropFirst(count)
        }
    }

    /// The next event.
    /// - Parameter milliseconds: nil: waits as long as it takes.
    public func next(within milliseconds: Int? = nil) -> Event {
        let event = wait(milliseconds)
        if event == .ended { hasEnded = true }
        return event
    }

    private func wait(_ milliseconds: Int?) -> Event {
        while true {
            var descriptors = [
                pollfd(fd: signalInput, events: Int16(POLLIN), revents: 0),
                pollfd(fd: 0, events: Int16(POLLIN), revents: 0),
            ]
            let count = poll(&descriptors, 2, Int32(milliseconds ?? -1))
            if count == 0 { return .timedOut }
            if count < 0 {
                if errno == EINTR { continue }
                return .ended
            }
            if descriptors[0].revents != 0 {
                var number: UInt8 = 0
                guard read(signalInput, &number, 1) == 1 else { continue }
                switch Int32(number) {
                case 0: return .woken
                case SIGWINCH: return .resized
                case SIGINT: return .interrupted
                case SIGCONT:
                    makeRaw()
                    return .continued
                default: return .ended
                }
            }
            guard descriptors[1].revents != 0 else { continue }
            var buffer = [UInt8](repeating: 0, count: 4096)
            let bytes = read(0, &buffer, buffer.count)
            if bytes < 0, errno == EINTR || errno == EAGAIN { continue }
            return bytes > 0 ? .bytes(Array(buffer[..<bytes])) : .ended
        }
    }

    /// Makes `next` return `.woken`, now or when it is called. From any thread.
    public func wake() { Self.pass(0) }

    /// In signal handlers too: async-signal-safe calls only.
    private static func pass(_ number: Int32) {
        let descriptor = signalOutput.load(ordering: .sequentiallyConsistent)
        let savedError = errno
        var byte = UInt8(truncatingIfNeeded: number)
        _ = SystemLibrary.write(descriptor, &byte, 1)
        errno = savedError
    }
}
