import SystemLibrary

/// What a command writes beside its result.
package enum OutputFile {
    /// Opens a file to write it from its begin, a pipe that somebody reads, or a device. What a regular file had is gone.
    ///
    /// - Returns: the descriptor, which the caller closes.
    /// - Throws: `SigmaError`: `.noInput` without its folder, `.usage` for a folder or a path with a NUL in it, else `.inputOutput`.
    package static func open(_ path: String) throws -> Int32 {
        try checkPath(path)
        // Without O_NONBLOCK, a pipe without a reader would hold us here.
        let descriptor = SystemLibrary.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0o666)
        guard descriptor >= 0 else {
            let code = errno
            let reason = code == ENXIO ? "nothing reads from this pipe" : systemMessage(code)
            throw SigmaError(kind(ofOpening: code), "cannot create the file: \(reason)", path: path)
        }
        // A slow reader is waited for.
        let flags = fcntl(descriptor, F_GETFL)
        if flags >= 0 { _ = fcntl(descriptor, F_SETFL, flags & ~O_NONBLOCK) }
        return descriptor
    }

    /// What a file that cannot be opened for writing is to a user, by `errno`.
    package static func kind(ofOpening code: Int32) -> SigmaError.Kind {
        switch code {
        case ENOENT, ENOTDIR: .noInput
        case EISDIR: .usage
        default: .inputOutput
        }
    }

    /// Makes sure that `write` could begin now: for what takes long before it has anything to write. A file that is there stays as it is.
    ///
    /// - Parameter inputs: files that are read meanwhile, none of which it may be, under whatever name.
    /// - Throws: `SigmaError`: as `AtomicFile`; `.usage` if it is an input.
    package static func check(_ path: String, inputs: [String] = []) throws {
        try refuse(path, as: inputs)
        var status = stat()
        guard stat(path, &status) == 0, ![S_IFREG, S_IFDIR].contains(status.st_mode & S_IFMT) else {
            // It goes when nothing finishes it.
            _ = try AtomicFile(path: path, size: 0)
            return
        }
    }

    /// - Throws: `SigmaError(.usage)` if the file is one of the inputs, under whatever name.
    package static func refuse(_ path: String, as inputs: [String]) throws {
        var target = stat()
        guard stat(path, &target) == 0, target.st_mode & S_IFMT == S_IFREG else { return }
        for input in inputs {
            var status = stat()
            if stat(input, &status) == 0, status.st_dev == target.st_dev, status.st_ino == target.st_ino {
                throw SigmaError(
                    .usage, "the output would overwrite the input \(SigmaError.printable(input))", path: path,
                    remedy: "Name another file.")
            }
        }
    }

    /// Writes a whole file: a regular one appears under its name whole or not at all, a pipe or a device gets the bytes.
    ///
    /// - Throws: `SigmaError`: as `open`, and as `AtomicFile`.
    package static func write(_ bytes: UnsafeRawBufferPointer, to path: String) throws {
        var status = stat()
        guard stat(path, &status) == 0, ![S_IFREG, S_IFDIR].contains(status.st_mode & S_IFMT) else {
            let file = try AtomicFile(path: path, size: bytes.count)
            try file.write(bytes, at: 0)
            return try file.finish(size: bytes.count)
        }
        let descriptor = try open(path)
        defer { close(descriptor) }
        var rest = bytes[...]
        while !rest.isEmpty {
            let slice = UnsafeRawBufferPointer(rebasing: rest)
            let count = SystemLibrary.write(descriptor, slice.baseAddress, slice.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw SigmaError(.inputOutput, "cannot write: \(systemMessage(errno))", path: path)
            }
            rest = rest.dropFirst(count)
        }
    }
}
