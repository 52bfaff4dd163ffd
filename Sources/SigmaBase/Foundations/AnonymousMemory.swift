import SystemLibrary

/// Pages of the process's own, zero until they are touched, which go back to the system at once when they are freed.
package struct AnonymousMemory: @unchecked Sendable {
    package let base: UnsafeMutableRawPointer
    package let byteCount: Int

    /// - Parameter hugePages: whether large pages are asked for: fewer translations, for what is never given back in part.
    /// - Throws: `SigmaError(.unavailable)` if the system gives no such range.
    package init(byteCount: Int, hugePages: Bool = false) throws {
        self.byteCount = max(byteCount, 1)
        #if os(Linux)
            let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        #else
            let flags = MAP_PRIVATE | MAP_ANON
        #endif
        guard let base = mmap(nil, self.byteCount, PROT_READ | PROT_WRITE, flags, -1, 0), base != MAP_FAILED else {
            throw SigmaError(
                .unavailable, "no memory for \(byteCount) bytes: \(systemMessage(errno))",
                remedy: .anyOf(["Close other programs.", .lower(.memory)]))
        }
        self.base = base
        #if os(Linux)
            madvise(base, self.byteCount, hugePages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE)
        #endif
    }

    /// A range that was taken before.
    package init(base: UnsafeMutableRawPointer, byteCount: Int) {
        self.base = base
        self.byteCount = max(byteCount, 1)
    }

    package func free() { munmap(base, byteCount) }

    /// Gives a range's pages back; they read as zeros until they are touched again.
    package func release(_ range: Range<Int>) {
        #if os(Linux)
            madvise(base + range.lowerBound, range.count, MADV_DONTNEED)
        #else
            // The only call there that takes the pages away for certain.
            mmap(
                base + range.lowerBound, range.count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0)
        #endif
    }
}
