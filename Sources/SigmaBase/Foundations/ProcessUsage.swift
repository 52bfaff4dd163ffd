import SystemLibrary

/// What this process has used so far.
package enum ProcessUsage {
    /// Highest resident size so far, in bytes.
    package static var peakMemory: Int {
        var usage = rusage()
        #if os(Linux)
            getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
            return Int(usage.ru_maxrss) * 1024
        #else
            getrusage(RUSAGE_SELF, &usage)
            return Int(usage.ru_maxrss)
        #endif
    }

    /// Bytes that the kernel fetched from storage for this process; 0 where the system does not tell.
    package static var diskBytes: Int {
        guard let file = fopen("/proc/self/io", "r") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 128)
        while fgets(&line, Int32(line.count), file) != nil {
            let text = line.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            if text.hasPrefix("read_bytes: ") { return Int(text.dropFirst(12).prefix { $0.isNumber }) ?? 0 }
        }
        return 0
    }
}
