import SystemLibrary

/// What this process has used so far.
package enum ProcessUsage {
    /// Highest resident size so far, in bytes.
    package static var peakMemory: Int {
        // The kernel's ru_maxrss starts with that of the process that started this one.
        if let kilobytes = number("VmHWM:", in: "/proc/self/status") { return kilobytes * 1024 }
        var usage = rusage()
        #if os(Linux)
            getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
            return Int(usage.ru_maxrss) * 1024
        #else
            getrusage(RUSAGE_SELF, &usage)
            return Int(usage.ru_maxrss)
        #endif
    }

    /// Resident size now, in bytes; the highest where the system does not tell.
    package static var residentMemory: Int {
        number("VmRSS:", in: "/proc/self/status").map { $0 * 1024 } ?? peakMemory
    }

    /// Bytes that the kernel fetched from storage for this process; 0 where the system does not tell.
    package static var diskBytes: Int { number("read_bytes:", in: "/proc/self/io") ?? 0 }

    /// The number of a line that begins with the name.
    private static func number(_ name: String, in path: String) -> Int? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 128)
        while fgets(&line, Int32(line.count), file) != nil {
            let text = line.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            if text.hasPrefix(name) { return Int(text.drop { !$0.isNumber }.prefix { $0.isNumber }) }
        }
        return nil
    }
}
