#if os(macOS)
    import Darwin

    extension ThreadTeam {
        /// Performance cores; all cores where the system does not tell them apart.
        static var performanceCoreCount: Int {
            for name in ["hw.perflevel0.logicalcpu", "hw.logicalcpu"] {
                var count: Int32 = 0
                var size = MemoryLayout<Int32>.size
                if sysctlbyname(name, &count, &size, nil, 0) == 0, count > 0 { return Int(count) }
            }
            return 1
        }
    }
#endif
