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
        // Not blocking: a pipe without a reader would otherwise hold us forever.
        let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0o600)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        guard Self.makePrivate(descriptor) else { return }
        // One call: entries of chats side by side do not mix.
        let line = Array((Self.escaped(text) + "\n").utf8)
        _ = line.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
    }

    /// Makes the file readable by its owner alone, even if another program has made it.
    /// - Returns: false for what is no file.
    private static func makePrivate(_ descriptor: Int32) -> Bool {
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return false }
        if status.st_mode & 0o077 != 0 { fchmod(descriptor, 0o600) }
        return true
    }

    /// Writes the entries into a new file, which takes the old one's place, also where a link leads to that.
    private func rewrite() {
        guard let path, let resolved = realpath(path, nil) else { return }
        defer { free(resolved) }
        let place = String(cString: resolved)
        var name = Array((place + ".XXXXXX").utf8CString)
        // Readable by its owner alone from the beginning.
        let descriptor = mkstemp(&name)
        guard descriptor >= 0 else { return }
        let bytes = Array(entries.map { Self.escaped($0) + "\n" }.joined().utf8)
        let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        let isWritten = count == bytes.count && fsync(descriptor) == 0
        close(descriptor)
        if !isWritten || rename(name, place) != 0 { unlink(name) }
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
