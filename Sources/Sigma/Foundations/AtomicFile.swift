#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A file that appears under its name whole or not at all: written beside it, synchronised, then renamed.
package final class AtomicFile {
    package let path: String
    private let temporaryPath: String
    private let descriptor: Int32
    private var isFinished = false

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
            guard written > 0 else { throw failure("cannot write") }
            rest = rest.dropFirst(written)
            offset += written
        }
    }

    /// Sets the size, brings everything to the disk and gives the file its name.
    package func finish(size: Int) throws {
        guard ftruncate(descriptor, off_t(size)) == 0 else { throw failure("cannot write") }
        guard fsync(descriptor) == 0 else { throw failure("cannot write") }
        guard rename(temporaryPath, path) == 0 else { throw failure("cannot replace the file") }
        isFinished = true
        close(descriptor)
    }

    private func failure(_ what: String) -> SigmaError {
        let code = errno
        return SigmaError(
            .inputOutput, "\(what): \(systemMessage(code))", path: path,
            remedy: code == ENOSPC || code == EDQUOT ? "Free some space, or write to another disk." : nil)
    }
}
