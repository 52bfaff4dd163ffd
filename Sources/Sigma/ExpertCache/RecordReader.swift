import CSigma
import SystemLibrary

/// Brings bytes of a model file into memory. Everything that a disk can do wrong comes through here.
package protocol RecordReader: Sendable {
    /// Fills `target` with `count` bytes of the file from `offset` on. `target` and `offset` are multiples of 4096, and `target` has room for
    /// `count` rounded up to one. Called by several threads at once.
    ///
    /// - Throws: `SigmaError(.inputOutput)` if the bytes cannot be had.
    func read(_ count: Int, at offset: Int, into target: UnsafeMutableRawPointer) throws
}

/// Reads past the page cache: what is read once must not displace what is needed for every token.
///
/// Where the file system has no direct reads, the page cache is asked to forget each range as soon as it was read, and not to read ahead.
package final class DirectFileReader: RecordReader, @unchecked Sendable {
    package let path: String
    /// Whether reads go past the page cache.
    package let isDirect: Bool
    private let descriptor: Int32
    static let alignment = 4096

    /// Opens the file that `file` maps, once more.
    ///
    /// - Parameter direct: false: through the page cache, as where the file system refuses direct reads.
    /// - Throws: `SigmaError(.inputOutput)` if the name stands for another file by now, or it cannot be opened.
    package init(_ file: MappedFile, direct: Bool = true) throws {
        path = file.path
        var name = file.path
        #if os(Linux)
            // The very file, whatever its name stands for by now.
            if access("/proc/self/fd/\(file.descriptor)", R_OK) == 0 { name = "/proc/self/fd/\(file.descriptor)" }
        #endif
        var opened = direct ? sigma_open_direct(name) : -1
        isDirect = opened >= 0
        if !isDirect { opened = open(name, O_RDONLY | O_CLOEXEC) }
        guard opened >= 0 else {
            throw SigmaError(.inputOutput, "cannot open the file again: \(systemMessage(errno))", path: path)
        }
        descriptor = opened
        guard file.isSameFile(as: opened) else {
            close(opened)
            throw SigmaError(
                .inputOutput, "the file was replaced while it was opened", path: path, remedy: "Load it again.")
        }
        #if os(Linux)
            if !isDirect { posix_fadvise(descriptor, 0, 0, POSIX_FADV_RANDOM) }
        #endif
    }

    deinit { close(descriptor) }

    package func read(_ count: Int, at offset: Int, into target: UnsafeMutableRawPointer) throws {
        let wanted = (count + Self.alignment - 1) / Self.alignment * Self.alignment
        var done = 0
        while done < count {
            let result = pread(descriptor, target + done, wanted - done, off_t(offset + done))
            if result < 0, errno == EINTR { continue }
            guard result > 0 else {
                let what =
                    result == 0
                    ? "the file was truncated while in use: expected \(count) bytes, found \(done)"
                    : "cannot read \(count) bytes: \(systemMessage(errno))"
                throw SigmaError(
                    .inputOutput, what, path: path, offset: UInt64(offset + done),
                    remedy: "Check the disk, restore the file and load it again.")
            }
            done += result
            // A direct read goes on where the disk's blocks begin.
            if done < count { done = done / Self.alignment * Self.alignment }
            if done < count, result < Self.alignment {
                throw SigmaError(
                    .inputOutput,
                    "the file was truncated while in use: expected \(count) bytes, found \(done + result)",
                    path: path, offset: UInt64(offset + done + result),
                    remedy: "Restore the file and load it again.")
            }
        }
        #if os(Linux)
            if !isDirect { posix_fadvise(descriptor, off_t(offset), off_t(wanted), POSIX_FADV_DONTNEED) }
        #endif
    }
}
