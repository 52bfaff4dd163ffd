import CSigma
import Foundation
import Testing

/// Which processors a team uses by default, on machines that only exist as files.
@Suite struct ProcessorTests {
    /// A machine's description, as Linux gives it under /sys/devices.
    private func choose(_ files: [String: String], of allowed: Range<Int>) throws -> (cores: Int, processors: [Int]) {
        let root = FileManager.default.temporaryDirectory.appending(path: "processors-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: root) }
        for (name, text) in files {
            let url = root.appending(path: name)
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data((text + "\n").utf8).write(to: url)
        }
        var set = sigma_processor_set()
        withUnsafeMutableBytes(of: &set) { bytes in for index in allowed { bytes[index] = 1 } }
        let cores = sigma_choose_processors(root.path, &set)
        let processors = withUnsafeBytes(of: &set) { bytes in bytes.indices.filter { bytes[$0] == 1 } }
        return (Int(cores), processors)
    }

    private func siblings(_ pairs: [(Int, Int)]) -> [String: String] {
        var files: [String: String] = [:]
        for (a, b) in pairs {
            for cpu in [a, b] { files["system/cpu/cpu\(cpu)/topology/thread_siblings_list"] = "\(a),\(b)" }
        }
        return files
    }

    @Test func nothingDescribed() throws {
        let (cores, processors) = try choose([:], of: 0..<4)
        #expect(cores == 4)
        #expect(processors == [0, 1, 2, 3])
    }

    @Test func hardwareThreadsOfACoreCountOnce() throws {
        let (cores, processors) = try choose(siblings([(0, 2), (1, 3)]), of: 0..<4)
        #expect(cores == 2)
        #expect(processors == [0, 1, 2, 3])
    }

    @Test func intelNamesItsPerformanceCores() throws {
        var files = siblings([(0, 1), (2, 3)])
        files["cpu_core/cpus"] = "0-3"
        files["cpu_atom/cpus"] = "4-7"
        let (cores, processors) = try choose(files, of: 0..<8)
        #expect(cores == 2)
        #expect(processors == [0, 1, 2, 3])
    }

    @Test func armGivesCoresCapacities() throws {
        var files: [String: String] = [:]
        for (cpu, capacity) in [250, 250, 250, 250, 870, 870, 1024, 1024].enumerated() {
            files["system/cpu/cpu\(cpu)/cpu_capacity"] = "\(capacity)"
        }
        #expect(try choose(files, of: 0..<8) == (4, [4, 5, 6, 7]))
        // What the process may not use is not chosen, be it ever so fast.
        #expect(try choose(files, of: 0..<4) == (4, [0, 1, 2, 3]))
    }

    @Test func oneMemoryNode() throws {
        let files = [
            "system/node/online": "0-1", "system/node/node0/cpulist": "0-3", "system/node/node1/cpulist": "4-7",
        ]
        #expect(try choose(files, of: 0..<8) == (4, [0, 1, 2, 3]))
        #expect(try choose(files, of: 3..<8) == (4, [4, 5, 6, 7]))
    }

    // MARK: - Quotas

    /// The quota of groups that only exist as files.
    private func quota(_ files: [String: String], membership: String?) throws -> Int {
        let root = FileManager.default.temporaryDirectory.appending(path: "quotas-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: root) }
        var files = files
        files["membership"] = membership
        for (name, text) in files {
            let url = root.appending(path: name)
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data((text + "\n").utf8).write(to: url)
        }
        return Int(sigma_processor_quota(root.path, root.path + "/membership"))
    }

    @Test func theTightestQuotaAroundTheProcessCounts() throws {
        #expect(try quota(["a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"], membership: "0::/a/b/c") == 3)
        #expect(try quota(["a/b/cpu.max": "100000 100000", "a/cpu.max": "250000 100000"], membership: "0::/a/b") == 1)
        #expect(try quota(["a/cpu.max": "max 100000"], membership: "0::/a") == 0)
        #expect(try quota(["other/cpu.max": "100000 100000", "cpu.max": "max 100000"], membership: "0::/a") == 0)
    }

    @Test func version1HasATreeForProcessors() throws {
        let files = [
            "cpu/x/cpu.cfs_quota_us": "150000", "cpu/x/cpu.cfs_period_us": "50000", "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
        ]
        #expect(try quota(files, membership: "4:cpu,cpuacct:/x/y\n3:memory:/z\n0::/x") == 3)
        #expect(try quota(files, membership: "4:cpuset:/x\n3:cpu:/") == 0)
        // A container sees the host's path, and its own group as the root.
        let container = ["cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"]
        #expect(try quota(container, membership: "3:cpu:/docker/0815") == 2)
        #expect(try quota(container, membership: nil) == 2)
        #expect(
            try quota(
                ["cpu,cpuacct/x/cpu.cfs_quota_us": "1", "cpu,cpuacct/x/cpu.cfs_period_us": "1000"],
                membership: "4:cpu,cpuacct:/x") == 1)
    }

    @Test func quotasThatAreNoNumbers() throws {
        for text in ["", "max", "x y", "-1 100000", "100000 0", "100000"] {
            #expect(try quota(["cpu.max": text], membership: "0::/") == 0, "\(text)")
        }
        #expect(try quota([:], membership: "nonsense\n::\n0:") == 0)
    }

    @Test func damagedDescriptionsNarrowNothing() throws {
        let files = [
            "system/node/online": "0-", "cpu_core/cpus": "x", "system/cpu/cpu0/cpu_capacity": "",
            "system/cpu/cpu0/topology/thread_siblings_list": "-5--1",
        ]
        #expect(try choose(files, of: 0..<2) == (2, [0, 1]))
    }
}
