import SigmaBase
import SystemLibrary

/// Messages of this and earlier chats, oldest first, in a file that only its owner reads: one a line, line ends as `\n` and backslashes as `\\`.
///
/// A file that cannot be read or written makes a history without memory, and no error.
public struct InputHistory: Sendable {
    public private(set) var entries: [String] = []
    private let path: String?
    private let limit: Int
    /// What a damaged or foreign file may cost.
    private static let fileLimit = 1 << 22

    /// - Parameters:
    ///   - path: nil: nothing is kept.
    ///   - limit: entries that are kept. A file with more than twice as many is shortened.
    public init(path: String?, limit: Int = 1000) {
        self.path = path
        self.limit = limit
        guard let path, let bytes = Self.read(path) else { return }
        let lines = bytes.split(separator: UInt8(ascii: "\n"))
        entries = lines.suffix(limit).map { Self.unescaped(String(decoding: $0, as: UTF8.self)) }
        if lines.count > 2 * limit { rewrite() }
    }

    /// `$XDG_STATE_HOME/sigma/history`, else `~/.local/state/sigma/history`; nil without a home. Makes the folder.
    public static func defaultPath() -> String? {
        func variable(_ name: String) -> String? {
            getenv(name).map { String(cString: $0) }.flatMap { $0.hasPrefix("/") ? $0 : nil }
        }
        guard let state = variable("XDG_STATE_HOME") ?? variable("HOME").map({ $0 + "/.local/state" }) else {
            return nil
        }
        let folder = state + "/sigma"
        var end = folder.startIndex
        while end < folder.endIndex {
            end = folder[folder.index(after: end)...].firstIndex(of: "/") ?? folder.endIndex
            mkdir(String(folder[..<end]), 0o700)
        }
        return folder + "/history"
    }

    /// Adds a message, unless it is the same as the last one or empty.
    public mutating func append(_ text: String) {
        guard !text.isEmpty, text != entries.last else { return }
        entries.append(text)
        if entries.count > limit { entries.removeFirst(entries.count - limit) }
        guard let path else { return }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        // One call: entries of chats side by side do not mix.
        let line = Array((Self.escaped(text) + "\n").utf8)
        _ = line.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
    }

    private func rewrite() {
        guard let path else { return }
        let bytes = Array(entries.map { Self.escaped($0) + "\n" }.joined().utf8)
        guard let file = try? AtomicFile(path: path, size: bytes.count) else { return }
        try? bytes.withUnsafeBytes { try file.write($0, at: 0) }
        try? file.finish(size: bytes.count)
        chmod(path, 0o600)
    }

    private static func read(_ path: String) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        let size = min(Int(status.st_size), fileLimit)
        // The newest entries are at its end.
        var bytes = [UInt8](repeating: 0, count: size)
        let count = bytes.withUnsafeMutableBytes {
            pread(descriptor, $0.baseAddress, size, off_t(Int(status.st_size) - size))
        }
        guard count > 0 else { return nil }
        return Array(bytes[..<count])
    }

    static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\n": result += "\\n"
            case "\\": result += "\\\\"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    static func unescaped(_ line: String) -> String {
        var result = String.UnicodeScalarView()
        var isEscaped = false
        for scalar in line.unicodeScalars {
            if isEscaped {
                result.append(scalar == "n" ? "\n" : scalar)
                isEscaped = false
            } else if scalar == "\\" {
                isEscaped = true
            } else {
                result.append(scalar)
            }
        }
        return String(result)
    }
}
