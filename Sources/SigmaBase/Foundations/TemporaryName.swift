import Synchronization
import SystemLibrary

/// Names for the unfinished forms of one file, in its own folder: `NAME.partial-PROCESS-NUMBER`.
///
/// A process that writes such a file holds a lock on it. A file without a lock is what a killed process left behind; that works across containers,
/// whose process numbers say nothing to each other.
struct TemporaryName {
    struct File {
        let path: String
        /// Open for reading and writing, locked.
        let descriptor: Int32
    }

    /// What file systems allow.
    private static let longestName = 255
    private static let count = Atomic<Int>(0)

    let folder: String
    /// What the names of this file's unfinished forms begin with.
    private let prefix: String

    init(folder: String, name: String) {
        self.folder = folder
        let mark = ".partial-"
        // Room for the process's number and the file's.
        let room = Self.longestName - mark.utf8.count - 32
        if name.utf8.count <= room {
            prefix = name + mark
        } else {
            // The name's checksum keeps long names with the same beginning apart.
            var name = name
            let checksum = name.withUTF8 { CRC32C.checksum(UnsafeRawBufferPointer($0)) }
            while name.utf8.count > room - 9 { name.removeLast() }
            prefix = name + "~" + String(checksum, radix: 16) + mark
        }
    }

    private func path(_ name: String) -> String { folder.hasSuffix("/") ? folder + name : folder + "/" + name }

    /// A new file under a name of its own; nil, with `errno` set, if there can be none.
    func create(mode: mode_t) -> File? {
        for _ in 0..<1000 {
            let number = Self.count.add(1, ordering: .relaxed).oldValue
            let path = path("\(prefix)\(getpid())-\(number)")
            let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode)
            guard descriptor >= 0 else {
                // A live process of another container may have the same numbers.
                if errno == EEXIST { continue }
                return nil
            }
            // Before the lock is held, another process may take the file for a leftover.
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK, isSame(descriptor, path) {
                return File(path: path, descriptor: descriptor)
            }
            close(descriptor)
        }
        errno = EEXIST
        return nil
    }

    /// Removes files that nobody writes any more. What cannot be removed stays.
    func removeLeftovers() {
        guard let directory = opendir(folder) else { return }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: entry.pointee.d_name)) {
                    String(cString: $0)
                }
            }
            guard name.utf8.starts(with: prefix.utf8), isOurs(name.utf8.dropFirst(prefix.utf8.count)) else { continue }
            let path = path(name)
            let descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0, isSame(descriptor, path) { unlink(path) }
        }
    }

    /// Whether the rest of a name is what `create` makes: two numbers.
    private func isOurs(_ rest: Substring.UTF8View) -> Bool {
        let parts = rest.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
        return parts.count == 2
            && parts.allSatisfy {
                !$0.isEmpty && $0.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
            }
    }

    /// Whether the path still names the open file.
    private func isSame(_ descriptor: Int32, _ path: String) -> Bool {
        var mine = stat()
        var its = stat()
        return fstat(descriptor, &mine) == 0 && lstat(path, &its) == 0 && mine.st_dev == its.st_dev
            && mine.st_ino == its.st_ino && mine.st_mode & S_IFMT == S_IFREG
    }
}
