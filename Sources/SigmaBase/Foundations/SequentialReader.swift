import SystemLibrary

/// Reads a file from its begin to its end: a regular file, a pipe or a device. One thread.
///
/// Opening never waits. A named pipe that nobody writes to is refused; one that has a writer is waited for.
package final class SequentialReader {
    /// As errors name it.
    package let path: String
    /// Asked ten times a second while nothing comes; true: `read` throws `CancellationError`.
    package var isCancelled: () -> Bool = { false }
    /// Bytes read so far.
    package private(set) var offset = 0
    private let descriptor: Int32
    private let isOwner: Bool
    private let isPipe: Bool
    /// A terminal would start again after its end.
    private var isAtEnd = false

    /// - Throws: `SigmaError`: `.noInput` where there is no such file or it may not be read, `.damaged` for a folder, `.usage` for a path
    ///   with a NUL in it.
    package init(path: String) throws {
        try checkPath(path)
        self.path = path
        // Without O_NONBLOCK, a pipe without a writer would hold us here.
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw SigmaError(.noInput, "cannot open the file: \(systemMessage(errno))", path: path)
        }
        isOwner = true
        isPipe = Self.kind(of: descriptor) == S_IFIFO
        try checkKind()
    }

    /// - Parameter descriptor: stays open.
    /// - Throws: `SigmaError(.damaged)` for a folder.
    package init(descriptor: Int32, name: String) throws {
        path = name
        self.descriptor = descriptor
        isOwner = false
        // Perhaps the parent has closed the other end: an empty input.
        isPipe = false
        try checkKind()
    }

    deinit { if isOwner { close(descriptor) } }

    private func checkKind() throws {
        if Self.kind(of: descriptor) == S_IFDIR {
            throw SigmaError(.damaged, "expected a file, found a folder", path: path)
        }
    }

    private static func kind(of descriptor: Int32) -> mode_t {
        var status = stat()
        return fstat(descriptor, &status) == 0 ? status.st_mode & S_IFMT : 0
    }

    /// Fills `buffer`, except at the end of the file.
    ///
    /// - Returns: the bytes that were read; 0: there are no more.
    /// - Throws: `SigmaError`: `.inputOutput` if reading fails, `.noInput` for a named pipe that nobody writes to; `CancellationError`.
    package func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        var filled = 0
        while filled < buffer.count, !isAtEnd {
            // Reading what we have not opened may hold us.
            if !isOwner { try wait() }
            let count = SystemLibrary.read(descriptor, buffer.baseAddress! + filled, buffer.count - filled)
            if count == 0 {
                guard offset > 0 || !isPipe else {
                    throw SigmaError(.noInput, "expected a file, found a pipe that nothing writes to", path: path)
                }
                isAtEnd = true
                break
            }
            if count < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN {
                    try wait()
                    continue
                }
                throw SigmaError(
                    .inputOutput, "cannot read: \(systemMessage(errno))", path: path, offset: UInt64(offset))
            }
            filled += count
            offset += count
        }
        return filled
    }

    /// Until there is something to read, or the end.
    private func wait() throws {
        var waited = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while poll(&waited, 1, 100) <= 0 { if isCancelled() { throw CancellationError() } }
    }
}
