import SystemLibrary

/// What the machine, or the control group that the process is in, has left.
package enum AvailableMemory {
    /// Kept free for others: a sixteenth, at least 256 MiB.
    package static func afterMargin(_ bytes: Int) -> Int { max(0, bytes - max(256 << 20, bytes / 16)) }

    /// Bytes that the process can still take without anything being swapped, and without it being killed; nil where nobody tells.
    package static var bytes: Int? {
        #if os(Linux)
            let machine = field("MemAvailable:", in: lines("/proc/meminfo")).map { $0 * 1024 }
            return ([machine] + groups(root: "/sys/fs/cgroup", membership: lines("/proc/self/cgroup"))).compactMap {
                $0
            }.min()
        #else
            var total: UInt64 = 0
            var size = MemoryLayout<UInt64>.size
            guard sysctlbyname("hw.memsize", &total, &size, nil, 0) == 0 else { return nil }
            // Of what others use, most can be compressed or dropped: half of the machine is a fair share.
            return Int(total / 2)
        #endif
    }

    /// What the limits of the group and of the groups around it leave: the limit less what cannot be reclaimed.
    ///
    /// - Parameters:
    ///   - root: where the groups' files are mounted.
    ///   - membership: the lines of /proc/self/cgroup.
    package static func groups(root: String, membership: [Substring]) -> [Int?] {
        membership.flatMap { line -> [Int?] in
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { return [] }
            // Version 2 has one tree without a name, version 1 one for memory.
            let isVersion2 = parts[0] == "0" && parts[1].isEmpty
            guard isVersion2 || parts[1].split(separator: ",").contains("memory") else { return [] }
            let tree = isVersion2 ? root : root + "/memory"
            var path = String(parts[2])
            var found: [Int?] = []
            while true {
                let folder = tree + (path == "/" ? "" : path)
                found.append(isVersion2 ? version2(folder) : version1(folder))
                guard let slash = path.lastIndex(of: "/"), path != "/" else { break }
                path = slash == path.startIndex ? "/" : String(path[..<slash])
            }
            return found
        }
    }

    private static func version1(_ folder: String) -> Int? {
        guard let limit = number(folder + "/memory.limit_in_bytes"),
            let used = number(folder + "/memory.usage_in_bytes")
        else { return nil }
        let statistics = lines(folder + "/memory.stat")
        return left(
            limit: limit, used: used,
            reclaimable: (field("total_inactive_file", in: statistics) ?? 0)
                + (field("total_active_file", in: statistics) ?? 0))
    }

    private static func version2(_ folder: String) -> Int? {
        // "max": no limit.
        guard let limit = number(folder + "/memory.max"), let used = number(folder + "/memory.current") else {
            return nil
        }
        let statistics = lines(folder + "/memory.stat")
        return left(
            limit: limit, used: used,
            reclaimable: (field("inactive_file", in: statistics) ?? 0) + (field("active_file", in: statistics) ?? 0))
    }

    private static func left(limit: Int, used: Int, reclaimable: Int) -> Int {
        let held = max(0, used - reclaimable)
        return limit > held ? limit - held : 0
    }

    private static func number(_ path: String) -> Int? {
        lines(path).first.flatMap { UInt64($0).map { Int(clamping: $0) } }
    }

    /// The number behind a line's first word.
    static func field(_ name: String, in lines: [Substring]) -> Int? {
        for line in lines {
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            if words.count >= 2, words[0] == name { return Int(words[1]) }
        }
        return nil
    }

    /// A small text file's lines; none where it cannot be read.
    static func lines(_ path: String) -> [Substring] {
        guard let file = fopen(path, "re") else { return [] }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n")
    }

    /// Memory that the process has of its own by now: without what it maps of files.
    package static var ownBytes: Int {
        field("RssAnon:", in: lines("/proc/self/status")).map { $0 * 1024 } ?? 64 << 20
    }
}
