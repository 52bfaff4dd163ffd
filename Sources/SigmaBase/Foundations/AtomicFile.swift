import CSigma
import SystemLibrary

/// A file that appears under its name whole or not at all: written beside it, synchronised, then renamed.
package final class AtomicFile {
    package let path: String
    private let temporaryPath: String
    private let descriptor: Int32
    private var isFinished = false
    /// Bytes that may wait in memory for the disk: enough to keep it busy, so few that the end doesn't take long.
    private static let waitingBytes = 256 << 20
    private var waiting: [(offset: Int, count: Int)] = []
    private var waitingCount = 0

    /// - Parameter size: bytes that will be written; the disk must have room for them.
    /// - Throws: `SigmaError`: `.usage` if `path` is something that is not a file, `.noInput` if its folder doesn't exist,
    ///   `.inputOutput` if it can't be written or the disk has no room.
    package init(path: String, size: Int) throws {
        self.path = path
        let slash = path.lastIndex(of: "/")
        let folder = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        var status = stat()
        if stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw SigmaError(.usage, "the output must be a file; this is a folder or a device", path: path)
        }
        guard stat(folder, &status) == 0 else {
            throw SigmaError(.noInput, "the output's folder: \(systemMessage(errno))", path: folder)
        }
        var space = statvfs()
        if statvfs(folder, &space) == 0 {
            let free = UInt64(space.f_bavail).multipliedReportingOverflow(by: UInt64(space.f_frsize))
            if !free.overflow, free.partialValue < UInt64(size) {
                throw SigmaError(
                    .inputOutput, "the disk has no room: expected \(size) bytes, found \(free.partialValue) free",
                    path: folder,
                    remedy: "Free some space, or write to another disk.")
            }
        }
        temporaryPath = path + ".partial-\(getpid())"
        // A leftover of a killed process with our number.
        unlink(temporaryPath)
        descriptor = open(temporaryPath, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else {
            throw SigmaError(.inputOutput, "cannot create the file: \(systemMessage(errno))", path: path)
        }
        // What other programs write meanwhile cannot take the room.
        guard sigma_reserve_file(descriptor, Int64(size)) == 0 else {
            throw failure("cannot reserve \(size) bytes", at: nil)
        }
    }

    /// Removes what was written, unless `finish` was reached.
    deinit {
        if !isFinished {
            close(descriptor)
            unlink(temporaryPath)
        }
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

    /// Has the disk begin with what was written now, and waits for what was written long ago.
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
        guard fsync(descriptor) == 0 else { throw failure("cannot write", at: nil) }
        guard rename(temporaryPath, path) == 0 else { throw failure("cannot replace the file", at: nil) }
        isFinished = true
        close(descriptor)
    }

    private func failure(_ what: String, at offset: Int?) -> SigmaError {
        let code = errno
        return SigmaError(
            .inputOutput, "\(what): \(systemMessage(code))", path: path, offset: offset.map { UInt64($0) },
            remedy: code == ENOSPC || code == EDQUOT ? "Free some space, or write to another disk." : nil)
    }
}
