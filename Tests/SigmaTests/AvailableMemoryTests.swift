import Sigma
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// What control groups leave, on folders that look like theirs.
@Suite struct AvailableMemoryTests {
    private static func tree(_ files: [String: String]) throws -> String {
        let root = FileManager.default.temporaryDirectory.path + "/sigma-groups-\(UUID().uuidString)"
        for (path, text) in files {
            let folder = root + "/" + path.split(separator: "/").dropLast().joined(separator: "/")
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: URL(fileURLWithPath: root + "/" + path))
        }
        return root
    }

    @Test func version2TakesTheTightestGroup() throws {
        let root = try Self.tree([
            "a/memory.max": "4000\n", "a/memory.current": "2500\n",
            "a/memory.stat": "anon 900\nfile 1600\ninactive_file 1000\nactive_file 600\n",
            "a/b/memory.max": "max\n", "a/b/memory.current": "100\n", "a/b/memory.stat": "",
        ])
        defer { try? FileManager.default.removeItem(atPath: root) }
        let found = AvailableMemory.groups(root: root, membership: ["0::/a/b"])
        #expect(found.compactMap { $0 } == [4000 - 900])
    }

    @Test func version1ReadsTheMemoryTree() throws {
        let root = try Self.tree([
            "memory/x/memory.limit_in_bytes": "3000\n", "memory/x/memory.usage_in_bytes": "3500\n",
            "memory/x/memory.stat": "total_inactive_file 100\ntotal_active_file 200\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": "5000\n",
            "memory/memory.stat": "",
        ])
        defer { try? FileManager.default.removeItem(atPath: root) }
        let found = AvailableMemory.groups(root: root, membership: ["4:cpu:/y", "3:memory:/x", "nonsense"])
        #expect(found.compactMap { $0 }.min() == 0, "what cannot be reclaimed is more than the limit")
        #expect(found.compactMap { $0 }.count == 2)
    }

    @Test func somethingIsAvailableHere() {
        #expect((AvailableMemory.bytes ?? 0) > 1 << 20)
        #expect(AvailableMemory.ownBytes > 1 << 20)
        #expect(AvailableMemory.afterMargin(1 << 34) == (1 << 34) - (1 << 30))
        #expect(AvailableMemory.afterMargin(1 << 20) == 0)
    }
}
