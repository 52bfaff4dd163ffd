import Sigma
import SigmaTerminal
import SystemLibrary

// What is written may come from a model or a file. A terminal gets no control character of it but line ends and tabs (`DisplayText`); pipes and
// files get the bytes as they are. Our own sequences go another way: styles, and `StandardError.draw`.

/// Standard output: the result of a command and nothing else. Buffered; `flush` after each piece that a reader waits for.
/// One thread at a time.
public enum StandardOutput {
    /// The reader is gone. `runCommand` ends the process quietly with 0.
    public struct Closed: Error {}

    private nonisolated(unsafe) static var buffer: [UInt8] = []

    /// - Throws: `Closed`, or `SigmaError` (`.inputOutput`), for example where the disk is full.
    public static func write(_ text: String, _ style: Terminal.Style = .plain) throws {
        try append(
            Terminal.isOutput ? style.around(DisplayText.printable(text), Terminal.standardOutputIsTerminal) : text)
    }

    /// Bytes that need not be text.
    public static func write(_ bytes: UnsafeRawBufferPointer) throws {
        if Terminal.isOutput { return try write(String(decoding: bytes, as: UTF8.self)) }
        buffer.append(contentsOf: bytes)
        if buffer.count >= 1 << 16 { try flush() }
    }

    /// JSON, which stays JSON on a terminal: control characters become escapes.
    public static func writeJSON(_ text: String) throws {
        try append(Terminal.isOutput ? DisplayText.escapedInJSON(text) : text)
    }

    private static func append(_ text: String) throws {
        buffer.append(contentsOf: text.utf8)
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

/// Standard error: talk, progress, warnings. Failures are ignored: there is nowhere left to report them.
public enum StandardError {
    /// - Parameter label: of ours, in the style, before the text: both in one piece.
    public static func write(label: String, _ style: Terminal.Style, _ text: String) {
        draw(
            style.around(label, Terminal.standardErrorIsTerminal)
                + (Terminal.isError ? DisplayText.printable(text) : text))
    }

    public static func write(_ text: String, _ style: Terminal.Style = .plain) {
        draw(Terminal.isError ? style.around(DisplayText.printable(text), Terminal.standardErrorIsTerminal) : text)
    }

    /// Control sequences and all.
    static func draw(_ text: String) {
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
    /// Whether the stream goes to a terminal, whatever that can show.
    static let isOutput = isatty(1) == 1
    static let isError = isatty(2) == 1
    /// Whether it is one that knows control sequences.
    public static let standardErrorIsTerminal = isError && isCapable
    public static let standardOutputIsTerminal = isOutput && isCapable
    /// `NO_COLOR` (any value but an empty one) turns colour off.
    private static let allowsColour = getenv("NO_COLOR").map { $0.pointee == 0 } ?? true

    private static let isCapable = getenv("TERM").map { String(cString: $0) != "dumb" } ?? false

    /// How text looks where colour can be shown.
    public enum Style: String, Sendable {
        case plain = ""
        case dim = "2"
        case red = "31"
        case yellow = "33"

        func around(_ text: String, _ isCapable: Bool) -> String {
            self != .plain && isCapable && allowsColour ? "\u{1b}[\(rawValue)m\(text)\u{1b}[0m" : text
        }
    }

    // For what is drawn on the terminal at standard output, by those who have made its text printable.
    public static func red(_ text: String) -> String { Style.red.around(text, standardOutputIsTerminal) }
    public static func dim(_ text: String) -> String { Style.dim.around(text, standardOutputIsTerminal) }

    /// Columns of the terminal that stderr goes to; 80 if it doesn't say.
    static var width: Int {
        var size = winsize()
        guard ioctl(2, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }
}
