import CSigma
import SystemLibrary

/// A file that appears under its name whole or not at all: written beside it, synchronised, then renamed.
///
/// A symbolic link is followed: the file that it names is written, beside that file. A file that is replaced keeps its mode and, where the
/// system allows it, its owner.
package final class AtomicFile {
    /// Who may read a file.
    package enum Access: Sendable {
        /// As the file that is replaced, else as the process's umask says.
        case usual
        /// The owner alone: mode 600, whatever the file that is replaced had.
        case ownerOnly
    }

    package let path: String
    /// Where the file will be: `path`, with links followed.
    private let target: String
    private let temporary: TemporaryName.File
    private let replaced: stat?
    private let access: Access
    private var isFinished = false
    /// Bytes that may wait in memory for the disk: enough to keep it busy, so few that the end doesn't take long.
    private static let waitingBytes = 256 << 20
    private var waiting: [(offset: Int, count: Int)] = []
    private var waitingCount = 0

    private var descriptor: Int32 { temporary.descriptor }

    /// Removes what earlier processes left behind when they were killed while they wrote this file.
    ///
    /// - Parameter size: bytes that will be written; the disk must have room for them.
    /// - Throws: `SigmaError`: `.usage` if `path` is something that is not a file, `.noInput` if its folder doesn't exist,
    ///   `.inputOutput` if it can't be written or the disk has no room.
    package init(path: String, size: Int, access: Access = .usual) throws {
        try checkPath(path)
        self.path = path
        self.access = access
        var status = stat()
        // Before links are followed: those of /dev/stdout lead to a pipe's number, which is no path.
        let isPresent = stat(path, &status) == 0
        if isPresent, status.st_mode & S_IFMT != S_IFREG {
            throw SigmaError(.usage, "the output must be a file; this is a folder or a device", path: path)
        }
        target = try Self.followingLinks(path)
        let (folder, name) = splitPath(target)
        if isPresent {
            replaced = status
        } else {
            // Renaming would say so, after all the work.
            guard errno != ENAMETOOLONG else {
                throw SigmaError(.inputOutput, "cannot create the file: \(systemMessage(errno))", path: path)
            }
            replaced = nil
        }
        guard stat(folder, &status) == 0 else {
            throw SigmaError(.noInput, "the output's folder: \(systemMessage(errno))", path: folder)
        }
        let names = TemporaryName(folder: folder, name: name)
        // Before the room is counted: a leftover may be as large as the file.
        names.removeLeftovers()
        try Self.checkRoom(for: size, in: folder)
        // What is not for others is not so for a moment, either.
        let mode: mode_t = access == .ownerOnly || replaced != nil ? 0o600 : 0o666
        guard let file = names.create(mode: mode) else {
            throw SigmaError(.inputOutput, "cannot create the file: \(systemMessage(errno))", path: path)
        }
        temporary = file
        // What other programs write meanwhile cannot take the room.
        guard sigma_reserve_file(descriptor, Int64(size)) == 0 else {
            throw failure("cannot reserve \(size) bytes", at: nil)
        }
    }

    /// Removes what was written, unless `finish` was reached.
    deinit {
        if !isFinished { unlink(temporary.path) }
        // The lock on the name ends with the descriptor.
        close(descriptor)
    }

    package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws {
        var rest = bytes[...]
        var offset = offset
        while !rest.isEmpty {
            let slice = UnsafeRawBufferPointer(rebasing: rest)
            let written = pwrite(descriptor, slice.baseAddress, slice.count, off_t(offset))
            if written < 0, errno == EINTR { continue }
            guard written > 0 else { throw failure("cannot write", at: offset) }
            rest = rest.dropFirst(written)
            offset += written
        }
        startWriting(bytes.count, at: offset - bytes.count)
    }

    /// Starts writing recent bytes to the disk, and waits for those that were written long ago.
    private func startWriting(_ count: Int, at offset: Int) {
        sigma_start_writing(descriptor, Int64(offset), Int64(count))
        waiting.append((offset, count))
        waitingCount += count
        while waitingCount > Self.waitingBytes, let first = waiting.first {
            sigma_wait_for_writing(descriptor, Int64(first.offset), Int64(first.count))
            waiting.removeFirst()
            waitingCount -= first.count
        }
    }

    /// Sets the size, brings everything to the disk and gives the file its name.
    package func finish(size: Int) throws {
        guard ftruncate(descriptor, off_t(size)) == 0 else { throw failure("cannot write", at: nil) }
        if let replaced {
            // Only the superuser may give a file away, and a file system may have no owners.
            if replaced.st_uid != geteuid() { _ = fchown(descriptor, replaced.st_uid, replaced.st_gid) }
            let mode = access == .ownerOnly ? 0o600 : replaced.st_mode & 0o7777
            if fchmod(descriptor, mode) != 0, errno != EPERM, errno != ENOTSUP {
                throw failure("cannot give the file its mode", at: nil)
            }
        }
        guard fsync(descriptor) == 0 else { throw failure("cannot write", at: nil) }
        guard rename(temporary.path, target) == 0 else { throw failure("cannot replace the file", at: nil) }
        isFinished = true
    }

    private func failure(_ what: String, at offset: Int?) -> SigmaError {
        let code = errno
        return SigmaError(
            .inputOutput, "\(what): \(systemMessage(code))", path: path, offset: offset.map { UInt64($0) },
            remedy: code == ENOSPC || code == EDQUOT ? "Free some space, or write to another disk." : nil)
    }

    private static func checkRoom(for size: Int, in folder: String) throws {
        var space = statvfs()
        guard statvfs(folder, &space) == 0 else { return }
        let free = UInt64(space.f_bavail).multipliedReportingOverflow(by: UInt64(space.f_frsize))
        if !free.overflow, free.partialValue < UInt64(size) {
            throw SigmaError(
                .inputOutput, "the disk has no room: expected \(size) bytes, found \(free.partialValue) free",
                path: folder,
                remedy: "Free some space, or write to another disk.")
        }
    }

    /// Where a path leads when the links at its end are followed, whether or not there is a file.
    private static func followingLinks(_ path: String) throws -> String {
        var path = path
        // As many as the system follows itself.
        for _ in 0..<40 {
            guard let target = linkTarget(path) else { return path }
            path = target
        }
        throw SigmaError(.inputOutput, "cannot create the file: \(systemMessage(ELOOP))", path: path)
    }
}
