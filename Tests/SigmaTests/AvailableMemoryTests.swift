import Foundation
import Sigma
import Testing

@testable import SigmaBase

/// What limits leave, on folders that look like control groups', and what is said of it.
@Suite struct AvailableMemoryTests {
    private static func limits(_ files: [String: String], membership: [String]) throws -> [AvailableMemory.Limit] {
        let root = FileManager.default.temporaryDirectory.appending(path: "sigma-groups-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: root) }
        for (path, text) in files.merging(
            ["membership": membership.joined(separator: "\n") + "\n"], uniquingKeysWith: { $1 })
        {
            let url = root.appending(path: path)
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: url)
        }
        return AvailableMemory.groups(root: root.path, membership: root.path + "/membership")
    }

    @Test func version2TakesTheTightestGroup() throws {
        let found = try Self.limits(
            [
                "a/memory.max": "4000\n", "a/memory.current": "2500\n",
                "a/memory.stat": "anon 900\nfile 1600\ninactive_file 1000\nactive_file 600\n",
                "a/b/memory.max": "max\n", "a/b/memory.current": "100\n", "a/b/memory.stat": "",
            ], membership: ["0::/a/b"])
        #expect(found == [.init(.controlGroup, bytes: 4000, left: 4000 - 900)])
    }

    @Test func version2IsSlowedDownBeforeItsLimit() throws {
        let found = try Self.limits(
            ["memory.max": "max\n", "memory.high": "700\n", "memory.current": "100\n"], membership: ["0::/"])
        #expect(found == [.init(.controlGroup, bytes: 700, left: 600)])
    }

    @Test func version1ReadsTheMemoryTree() throws {
        let found = try Self.limits(
            [
                "memory/x/memory.limit_in_bytes": "3000\n", "memory/x/memory.usage_in_bytes": "3500\n",
                "memory/x/memory.stat": "total_inactive_file 100\ntotal_active_file 200\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": "5000\n",
                "memory/memory.stat": "",
            ], membership: ["4:cpu:/y", "3:hugetlb,memory:/x", "nonsense", "0::/elsewhere"])
        // What cannot be reclaimed is more than the limit.
        #expect(found == [.init(.controlGroup, bytes: 3000, left: 0)])
    }

    /// The path is the host's, and the tree has only the container's own group.
    @Test func aContainerSeesItsGroupAsTheRoot() throws {
        let found = try Self.limits(
            ["memory/memory.limit_in_bytes": "3000\n", "memory/memory.usage_in_bytes": "1000\n"],
            membership: ["3:memory:/docker/4711/more"])
        #expect(found == [.init(.controlGroup, bytes: 3000, left: 2000)])
    }

    @Test func withoutAListOfGroupsTheRootCounts() throws {
        let root = FileManager.default.temporaryDirectory.appending(path: "sigma-groups-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: root) }
        try FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
        try Data("50\n".utf8).write(to: root.appending(path: "memory.max"))
        try Data("20\n".utf8).write(to: root.appending(path: "memory.current"))
        let found = AvailableMemory.groups(root: root.path, membership: root.path + "/none")
        #expect(found == [.init(.controlGroup, bytes: 50, left: 30)])
    }

    @Test func somethingIsAvailableHere() {
        #expect((AvailableMemory.bytes ?? 0) > 1 << 20)
        #expect(AvailableMemory.ownBytes > 1 << 20)
    }

    @Test func smallLimitsHaveSmallMargins() {
        #expect(AvailableMemory.afterMargin(1 << 34) == (1 << 34) - (1 << 30))
        #expect(AvailableMemory.afterMargin(2 << 30) == (2 << 30) - (256 << 20))
        #expect(AvailableMemory.afterMargin(200 << 20) == 150 << 20)
        #expect(AvailableMemory.afterMargin(60 << 20) == 45 << 20)
        var last = 0
        for bytes in stride(from: 0, through: 8 << 30, by: 13 << 20) {
            let rest = AvailableMemory.afterMargin(bytes)
            #expect(rest >= last, "more memory, larger budgets")
            last = rest
            let room = AvailableMemory.room(for: bytes)
            #expect(AvailableMemory.afterMargin(room) >= bytes && AvailableMemory.afterMargin(room - 64) < bytes + 64)
        }
    }

    /// Limit, what others use and margin are named; the advice is what really stands in the way.
    @Test func advice() {
        let mebibyte = 1 << 20
        let group = AvailableMemory.Offer(
            limit: .init(.controlGroup, bytes: 500 * mebibyte, left: 460 * mebibyte), ownBytes: 20 * mebibyte)
        #expect(group.budget == 360 * mebibyte)
        #expect(
            group.reason
                == "the control group's limit of 500 MiB, less 20 MiB that is in use and 120 MiB that is kept free")
        // Room for it, but for the margin.
        #expect(group.remedy(least: 400 * mebibyte) == .raise(.memory, least: "400 MiB"))
        // --memory would have the process killed. 800 MiB less a quarter, and the 20 MiB of others.
        #expect(
            group.remedy(least: 600 * mebibyte)
                == .advice("Raise the control group's memory limit of 500 MiB to 821 MiB or more."))
        let machine = AvailableMemory.Offer(
            limit: .init(.machine, bytes: 900 * mebibyte, left: 900 * mebibyte), ownBytes: 100 * mebibyte)
        #expect(machine.reason == "1000 MiB that is available, less 250 MiB that is kept free")
        #expect(
            machine.remedy(least: 1500 * mebibyte)
                == .advice("Free 757 MiB of memory: close other programs."))
        let process = AvailableMemory.Offer(
            limit: .init(.process, bytes: 64 * mebibyte, left: 30 * mebibyte), ownBytes: 10 * mebibyte)
        #expect(process.remedy(least: 60 * mebibyte).description.contains("ulimit"))
    }
}
