import Sigma
import SigmaCommand
import SystemLibrary

/// The file that a chat keeps its conversation in, and what the chat knows of it.
struct ConversationFile {
    let path: String
    /// The file as it was when this chat last read or wrote it; nil: it was not there.
    private var known: Version?

    /// What tells one version of a file from another.
    private struct Version: Equatable {
        var device: UInt64
        var number: UInt64
        var size: Int
        var seconds: Int
        var nanoseconds: Int

        init?(_ path: String) {
            var status = stat()
            guard stat(path, &status) == 0 else { return nil }
            device = UInt64(truncatingIfNeeded: status.st_dev)
            number = UInt64(truncatingIfNeeded: status.st_ino)
            size = Int(status.st_size)
            #if canImport(Darwin)
                let time = status.st_mtimespec
            #else
                let time = status.st_mtim
            #endif
            seconds = Int(time.tv_sec)
            nanoseconds = Int(time.tv_nsec)
        }
    }

    /// Takes the file as it is now.
    init(path: String) {
        self.path = path
        known = Version(path)
    }

    /// Whether a path leads to this file.
    func isAt(_ other: String) -> Bool {
        if other == path { return true }
        guard let here = Version(path), let there = Version(other) else { return false }
        return here.device == there.device && here.number == there.number
    }

    var exists: Bool { access(path, F_OK) == 0 }
    /// Whether somebody else has written the file since.
    var hasChanged: Bool { Version(path).map { $0 != known } ?? false }

    /// Before a place that was named by hand is written: a file that is there must be a conversation, or empty.
    /// - Throws: `SigmaError(.usage)`.
    func checkReplacing() throws {
        guard exists, !Session.isSaved(at: path) else { return }
        throw SigmaError(
            .usage, "there is a file that is no saved conversation", path: path, remedy: "Name another file.")
    }

    /// The chat has read or written it.
    mutating func remember() { known = Version(path) }

    /// Finds out whether the conversation can be written, before there is one to lose.
    ///
    /// - Throws: `SigmaError`: `.usage` for a folder or a device, `.noInput` where there is no such folder, `.inputOutput` where nothing can be
    ///   written.
    func tryPlace() throws {
        var status = stat()
        if stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw SigmaError(.usage, "a session must be a file; this is a folder or a device", path: path)
        }
        // A new file goes beside the old one, wherever a link leads.
        let place = realpath(path, nil).map { resolved in
            defer { SystemLibrary.free(resolved) }
            return String(cString: resolved)
        }
        let folder = Self.folder(of: place ?? path)
        var name = Array((folder + "/.sigma-XXXXXX").utf8CString)
        let descriptor = mkstemp(&name)
        guard descriptor >= 0 else {
            let code = errno
            throw SigmaError(
                code == ENOENT || code == ENOTDIR ? .noInput : .inputOutput,
                "the session cannot be saved here: \(systemMessage(code))", path: folder,
                remedy: "Name another place with --session.")
        }
        close(descriptor)
        unlink(name)
    }

    /// The error of a file that somebody else has changed.
    var changed: SigmaError {
        SigmaError(
            .inputOutput, "the file has changed since this chat read it: another chat may have written it", path: path,
            remedy: "Keep both: /save OTHER-FILE. Or go on with the one in the file: /load.")
    }

    /// A name beside it that no file has.
    var otherPath: String { (2...).lazy.map { "\(path)-\($0)" }.first { access($0, F_OK) != 0 }! }

    private static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}
