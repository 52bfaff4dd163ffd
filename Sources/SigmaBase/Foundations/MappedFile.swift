import CSigma
import SystemLibrary

/// A file mapped read-only and shared. It stays mapped as long as the object lives.
///
/// If the file shrinks or cannot be read while it is mapped, reads of what is lost give zeros and `checkIntact()` throws.
package final class MappedFile: @unchecked Sendable {
    package let path: String
    /// All bytes of the file. Page-aligned; valid as long as `self` lives.
    package let bytes: UnsafeRawBufferPointer
    private let guardSlot: Int32
    /// Kept open to see whether the file shrinks.
    package let descriptor: Int32

    /// - Throws: `SigmaError`: `.noInput` where there is no such file or it may not be read, `.damaged` for a folder, a
    ///   device or an empty file, `.unavailable` where it cannot be mapped, `.usage` for a path with a NUL in it.
    package init(path: String) throws {
        try checkPath(path)
        self.path = path
        // Not blocking: a pipe without a writer would otherwise hold us forever.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw Self.cannotOpen(path)
        }
        var isOpen = false
        defer { if !isOpen { close(descriptor) } }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw SigmaError(.inputOutput, "cannot examine the file: \(systemMessage(errno))", path: path)
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            let what = status.st_mode & S_IFMT == S_IFDIR ? "a folder" : "not a regular file"
            throw SigmaError(.damaged, "expected a file, found \(what)", path: path)
        }
        guard status.st_size > 0 else { throw SigmaError(.damaged, "the file is empty", path: path, offset: 0) }
        let length = Int(status.st_size)
        guard let base = mmap(nil, length, PROT_READ, MAP_SHARED, descriptor, 0), base != MAP_FAILED else {
            throw SigmaError(.unavailable, "cannot map \(length) bytes: \(systemMessage(errno))", path: path)
        }
        bytes = UnsafeRawBufferPointer(start: base, count: length)
        let slot = sigma_guard_add(base, length)
        guard slot >= 0 else {
            munmap(base, length)
            throw SigmaError(.unavailable, "too many files are mapped at once", path: path)
        }
        guardSlot = slot
        self.descriptor = descriptor
        isOpen = true
    }

    /// Names a dangling link: "no such file" would confuse a reader who sees its name in a listing.
    private static func cannotOpen(_ path: String) -> SigmaError {
        let code = errno
        if code == ENOENT, let target = linkTarget(path) {
            return SigmaError(
                .noInput, "the link leads to \(target), which does not exist", path: path,
                remedy: "Complete the download, or copy the folder together with the targets of its links.")
        }
        return SigmaError(.noInput, "cannot open the file: \(systemMessage(code))", path: path)
    }

    deinit {
        sigma_guard_remove(guardSlot)
        close(descriptor)
        munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress!), bytes.count)
    }

    /// Tells the system that a range will be read soon: it is fetched as one request, and the call returns before it is there.
    package func prefetch(_ range: Range<Int>) { advise(range, MADV_WILLNEED) }

    /// Tells the system that a range is not needed for now: what is read once may be larger than the memory. Pages at its ends go too, and
    /// come back when a neighbour is read: what stays must not add up over thousands of tensors.
    package func release(_ range: Range<Int>) { advise(range, MADV_DONTNEED) }

    /// Tells the system whether a range is read here and there, so that a page that is read brings no others with it; or as usual.
    package func setScattered(_ isScattered: Bool, _ range: Range<Int>) {
        advise(range, isScattered ? MADV_RANDOM : MADV_NORMAL)
    }

    /// Whether a descriptor is open on the mapped file itself.
    package func isSameFile(as other: Int32) -> Bool {
        var mine = stat()
        var its = stat()
        return fstat(descriptor, &mine) == 0 && fstat(other, &its) == 0 && mine.st_dev == its.st_dev
            && mine.st_ino == its.st_ino
    }

    /// Pages are counted from the mapping's beginning, which is on a page: before it and after its end there is other memory.
    private func advise(_ range: Range<Int>, _ advice: Int32) {
        let start = max(0, range.lowerBound) / 16384 * 16384
        let end = min(range.upperBound, bytes.count)
        if start < end { madvise(UnsafeMutableRawPointer(mutating: bytes.baseAddress! + start), end - start, advice) }
    }

    /// Cheap: one system call.
    ///
    /// - Throws: `SigmaError` (`.inputOutput`) if bytes were lost since the file was mapped. What was computed from it is then void.
    package func checkIntact() throws {
        var lost: UInt64?
        var status = stat()
        if sigma_guard_is_damaged(guardSlot) != 0 {
            lost = UInt64(sigma_guard_damaged_offset(guardSlot))
        } else if fstat(descriptor, &status) == 0, status.st_size < bytes.count {
            // The rest of a page that still exists reads as zeros without a fault.
            lost = UInt64(max(0, status.st_size))
        }
        if let lost {
            throw SigmaError(
                .inputOutput, "the file was truncated or could not be read while in use", path: path, offset: lost,
                remedy: "Restore the file and load it again.")
        }
    }
}

/// The system's text for an `errno` value.
package func systemMessage(_ code: Int32) -> String { String(cString: strerror(code)) }
