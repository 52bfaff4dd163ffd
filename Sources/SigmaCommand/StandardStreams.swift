import Sigma
import SystemLibrary

/// Standard output: the result of a command and nothing else. Buffered; `flush` after each piece that a reader waits for.
/// One thread at a time.
public enum StandardOutput {
    /// The reader is gone. `runCommand` ends the process quietly with 0.
    public struct Closed: Error {}

    private nonisolated(unsafe) static var buffer: [UInt8] = []

    /// - Throws: `Closed`, or `SigmaError` (`.inputOutput`), for example where the disk is full.
    public static func write(_ text: String) throws {
        var text = text
        try text.withUTF8 { try write(UnsafeRawBufferPointer($0)) }
    }

    public static func write(_ bytes: UnsafeRawBufferPointer) throws {
        buffer.append(contentsOf: bytes)
        if buffer.count >= 1 << 16 { try flush() }
    }

    public static func flush() throws {
        defer { buffer.removeAll(keepingCapacity: true) }
        let code = buffer.withUnsafeBytes { writeAll(1, $0) }
        if code == EPIPE { throw Closed() }
        guard code == 0 else {
            throw SigmaError(.inputOutput, "cannot write: \(systemMessage(code))", path: "standard output")
        }
    }
}

/// Standard error: talk, progress, warnings. Failures are ignored: there is nobody left to tell.
public enum StandardError {
    public static func write(_ text: String) {
        var text = text
        _ = text.withUTF8 { writeAll(2, UnsafeRawBufferPointer($0)) }
    }
}

/// - Returns: 0 or an `errno` value.
private func writeAll(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) -> Int32 {
    var rest = bytes[...]
    while !rest.isEmpty {
        let slice = UnsafeRawBufferPointer(rebasing: rest)
        let written = SystemLibrary.write(descriptor, slice.baseAddress, slice.count)
        if written < 0 {
            // A non-blocking descriptor (inherited from a terminal program) is waited for.
            if errno == EINTR { continue }
            if errno == EAGAIN {
                var descriptor = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&descriptor, 1, 1000)
                continue
            }
            return errno
        }
        rest = rest.dropFirst(written)
    }
    return 0
}

/// What the terminal can show. Colour and progress bars appear only there.
public enum Terminal {
    public static let standardErrorIsTerminal = isTerminal(2)
    public static let standardOutputIsTerminal = isTerminal(1)
    /// `NO_COLOR` (any value but an empty one) turns colour off.
    private static let allowsColour = getenv("NO_COLOR").map { $0.pointee == 0 } ?? true

    private static func isTerminal(_ descriptor: Int32) -> Bool {
        isatty(descriptor) == 1 && getenv("TERM").map { String(cString: $0) != "dumb" } ?? false
    }

    // For stderr; unchanged text where it shows no colour.
    public static func red(_ text: String) -> String { coloured(text, "31", standardErrorIsTerminal) }
    public static func yellow(_ text: String) -> String { coloured(text, "33", standardErrorIsTerminal) }
    public static func dim(_ text: String) -> String { coloured(text, "2", standardErrorIsTerminal) }
    /// For stdout.
    public static func dimOnOutput(_ text: String) -> String { coloured(text, "2", standardOutputIsTerminal) }
    private static func coloured(_ text: String, _ code: String, _ isTerminal: Bool) -> String {
        isTerminal && allowsColour ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text
    }

    /// Columns of the terminal that stderr goes to; 80 if it doesn't say.
    static var width: Int {
        var size = winsize()
        guard ioctl(2, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }
}
