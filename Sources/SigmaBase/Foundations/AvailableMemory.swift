import CSigma
import SystemLibrary

/// What the machine, the control groups that the process is in, and its own limits have left.
package enum AvailableMemory {
    /// Whose limit it is.
    package enum Holder: Sendable, Equatable { case machine, controlGroup, process }

    /// One limit on the process's memory.
    package struct Limit: Sendable, Equatable {
        package var holder: Holder
        /// What is allowed in all; of a machine what is free.
        package var bytes: Int
        /// What can still be taken without anything being swapped, and without the process being killed.
        package var left: Int

        package init(_ holder: Holder, bytes: Int, left: Int) {
            self.holder = holder
            self.bytes = bytes
            self.left = left
        }
    }

    /// The memory that a process may use if no budget is set.
    package struct Offer: Sendable, Equatable {
        package var limit: Limit
        /// What the process has by now: it counts against the limit.
        package var ownBytes: Int

        package init(limit: Limit, ownBytes: Int) {
            self.limit = limit
            self.ownBytes = ownBytes
        }

        /// What the process could have if nothing were kept free.
        private var room: Int { limit.left.addingReportingOverflow(ownBytes).partialValue }
        package var margin: Int { AvailableMemory.margin(of: room) }
        package var budget: Int { room - margin }

        /// Where the budget comes from.
        package var reason: String {
            let kept = "\(text(margin)) that is kept free"
            switch limit.holder {
            case .machine: return "\(text(room)) that is available, less \(kept)"
            case .process:
                return "the process's own limit of \(text(limit.bytes)), less what is in use and \(kept)"
            case .controlGroup:
                let others = max(0, limit.bytes - room)
                return "the control group's limit of \(text(limit.bytes)), less "
                    + (others >> 20 > 0 ? "\(text(others)) that is in use and " : "") + kept
            }
        }

        /// What makes a budget of `least` bytes possible.
        package func remedy(least: Int) -> Remedy {
            // A budget of one's own does without the margin, but not beyond the limit.
            if least <= room - room / 16 { return .raise(.memory, least: text(least)) }
            let missing = AvailableMemory.room(for: least) - room
            switch limit.holder {
            case .machine: return .advice("Free \(text(missing)) of memory: close other programs.")
            case .process:
                return .advice("Raise the process's limit on memory (ulimit -v or -d) by \(text(missing)) or more.")
            case .controlGroup:
                return .advice(
                    "Raise the control group's memory limit of \(text(limit.bytes)) to \(text(limit.bytes + missing)) or more."
                )
            }
        }
    }

    /// What is kept free for others, of what the process could have: a sixteenth, at least 256 MiB, but never more than a quarter.
    package static func margin(of bytes: Int) -> Int { min(max(256 << 20, bytes / 16), bytes / 4) }

    package static func afterMargin(_ bytes: Int) -> Int { bytes - margin(of: bytes) }

    /// The least room whose margin leaves `bytes`.
    static func room(for bytes: Int) -> Int {
        let candidates = [bytes + bytes / 3, bytes + (256 << 20), bytes + bytes / 15]
        // Rounded up by what the divisions cut off.
        return candidates.map { $0 + 4 }.sorted().first { afterMargin($0) >= bytes } ?? candidates.max()! + 4
    }

    /// Bytes that the process can still take; nil if that is unknown.
    package static var bytes: Int? { tightest?.left }

    /// What the tightest limit lets the process have; nil if that is unknown.
    package static var offer: Offer? { tightest.map { Offer(limit: $0, ownBytes: ownBytes) } }

    package static var tightest: Limit? { limits.min { $0.left < $1.left } }

    /// All limits there are.
    package static var limits: [Limit] {
        #if os(Linux)
            var found = groups(root: "/sys/fs/cgroup", membership: "/proc/self/cgroup")
            // Without /proc the machine tells what lies idle, which is less.
            let machine =
                field("MemAvailable:", in: lines("/proc/meminfo")).map { $0 * 1024 }
                ?? { $0 > 0 ? $0 * sysconf(Int32(_SC_PAGESIZE)) : nil }(sysconf(Int32(_SC_AVPHYS_PAGES)))
            if let machine { found.append(Limit(.machine, bytes: machine, left: machine)) }
            return found + processLimits
        #else
            var total: UInt64 = 0
            var size = MemoryLayout<UInt64>.size
            guard sysctlbyname("hw.memsize", &total, &size, nil, 0) == 0 else { return [] }
            // Of what others use, most can be compressed or dropped: half of the machine is a fair share.
            return [Limit(.machine, bytes: Int(total / 2), left: Int(total / 2))]
        #endif
    }

    /// The limit that ends the process when it is crossed, whatever others use; nil: there is none.
    package static var killingLimit: Int? { limits.filter { $0.holder == .controlGroup }.map(\.bytes).min() }

    // MARK: - Control groups

    /// The limits of the group and of the groups around it: what they leave is the limit less what cannot be reclaimed.
    ///
    /// - Parameters:
    ///   - root: where the groups' files are mounted.
    ///   - membership: the file that says which groups the process is in.
    package static func groups(root: String, membership: String) -> [Limit] {
        var group = sigma_group()
        var found: [Limit] = []
        var isGroup = sigma_first_group(&group, root, membership, "memory")
        while isGroup != 0 {
            let folder = withUnsafePointer(to: &group.folder) {
                $0.withMemoryRebound(to: CChar.self, capacity: 4096) { String(cString: $0) }
            }
            if let limit = group.version == 2 ? version2(folder) : version1(folder) { found.append(limit) }
            isGroup = sigma_next_group(&group)
        }
        return found
    }

    private static func version1(_ folder: String) -> Limit? {
        limit(
            number(folder + "/memory.limit_in_bytes"), used: number(folder + "/memory.usage_in_bytes"),
            reclaimable: ["total_inactive_file", "total_active_file"], in: folder)
    }

    private static func version2(_ folder: String) -> Limit? {
        // "max": no limit. Above "high" the group is slowed down until nothing moves.
        let limits = [number(folder + "/memory.max"), number(folder + "/memory.high")].compactMap { $0 }
        return limit(
            limits.min(), used: number(folder + "/memory.current"), reclaimable: ["inactive_file", "active_file"],
            in: folder)
    }

    private static func limit(_ bytes: Int?, used: Int?, reclaimable: [String], in folder: String) -> Limit? {
        // Version 1 writes the largest number of pages for no limit.
        guard let bytes, let used, bytes < 1 << 60 else { return nil }
        let statistics = lines(folder + "/memory.stat")
        let held = max(0, used - reclaimable.reduce(0) { $0 + (field($1, in: statistics) ?? 0) })
        return Limit(.controlGroup, bytes: bytes, left: max(0, bytes - held))
    }

    // MARK: - The process

    /// Limits on addresses, which mapped files and stacks take, too, and on memory of the process's own.
    package static var processLimits: [Limit] {
        #if os(Linux)
            let status = lines("/proc/self/status")
            return [(RLIMIT_AS, "VmSize:"), (RLIMIT_DATA, "VmData:")].compactMap { resource, name in
                var limit = rlimit()
                // No limit is the largest number there is.
                guard getrlimit(__rlimit_resource_t(resource.rawValue), &limit) == 0, limit.rlim_cur < 1 << 60 else {
                    return nil
                }
                let bytes = Int(clamping: limit.rlim_cur)
                let used = field(name, in: status).map { $0 * 1024 } ?? bytes / 2
                return Limit(.process, bytes: bytes, left: max(0, bytes - used))
            }
        #else
            return []
        #endif
    }

    /// An allocation that fails would end the process in the middle of something: where little is left of a limit, nothing is begun.
    /// - Throws: `SigmaError(.unavailable)` with the limit.
    package static func checkProcessLimits() throws {
        for limit in processLimits where limit.left < 4 << 20 {
            throw SigmaError(
                .unavailable,
                "the process's memory is limited to \(limit.bytes >> 10) KiB, and \(limit.left >> 10) KiB are left",
                remedy: "Raise the limit (ulimit -v, -d).")
        }
    }

    /// Memory that the process has of its own by now: without what it maps of files.
    package static var ownBytes: Int {
        field("RssAnon:", in: lines("/proc/self/status")).map { $0 * 1024 } ?? 64 << 20
    }

    // MARK: - Files

    private static func number(_ path: String) -> Int? {
        lines(path).first.flatMap { UInt64($0).map { Int(clamping: $0) } }
    }

    /// The number after a line's first word.
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
}

/// In whole mebibytes, rounded up.
private func text(_ bytes: Int) -> String { "\((bytes + (1 << 20) - 1) >> 20) MiB" }
