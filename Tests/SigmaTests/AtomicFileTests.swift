import Sigma
import SystemLibrary
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Files that appear whole or not at all: through links, beside each other, with their modes, and after a kill.
@Suite struct AtomicFileTests {
    private final class Folder: Sendable {
        let path = FileManager.default.temporaryDirectory.path + "/sigma-\(UUID().uuidString)"
        init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
        deinit { try? FileManager.default.removeItem(atPath: path) }

        static func / (folder: Folder, name: String) -> String { folder.path + "/" + name }
        var names: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted() }
        func text(_ name: String) -> String? {
            (try? Data(contentsOf: URL(filePath: self / name))).map { String(decoding: $0, as: UTF8.self) }
        }
        func put(_ name: String, _ text: String, mode: mode_t = 0o644) throws {
            try Data(text.utf8).write(to: URL(filePath: self / name))
            #expect(chmod(self / name, mode) == 0)
        }
        func mode(_ name: String) -> mode_t {
            var status = stat()
            return lstat(self / name, &status) == 0 ? status.st_mode & 0o7777 : 0
        }
    }

    private let folder: Folder
    init() throws { folder = try Folder() }

    private func write(_ text: String, to path: String, access: AtomicFile.Access = .usual) throws {
        let bytes = Array(text.utf8)
        let file = try AtomicFile(path: path, size: bytes.count, access: access)
        try bytes.withUnsafeBytes { try file.write($0, at: 0) }
        try file.finish(size: bytes.count)
    }

    @Test func abandonedFilesLeaveNothing() throws {
        try folder.put("a", "old")
        do { _ = try AtomicFile(path: folder / "a", size: 3) }
        #expect(folder.names == ["a"] && folder.text("a") == "old")
    }

    @Test func linksAreFollowed() throws {
        try FileManager.default.createDirectory(atPath: folder / "big", withIntermediateDirectories: true)
        #expect(symlink("big/m", folder / "link") == 0 && symlink("link", folder / "second") == 0)
        // The target need not be there yet.
        try write("one", to: folder / "second")
        #expect(folder.text("big/m") == "one" && folder.names == ["big", "link", "second"])
        try write("two", to: folder / "link")
        #expect(folder.text("big/m") == "two")
        var status = stat()
        #expect(lstat(folder / "link", &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
        let within = try AtomicFile(path: folder / "link", size: 1)
        let beside = try FileManager.default.contentsOfDirectory(atPath: folder / "big")
        #expect(beside.count == 2 && folder.names == ["big", "link", "second"])
        withExtendedLifetime(within) {}
        #expect(symlink("loop", folder / "loop") == 0)
        #expect(sigmaError { try write("x", to: folder / "loop") }?.kind == .inputOutput)
        #expect(symlink("nowhere/m", folder / "lost") == 0)
        #expect(sigmaError { try write("x", to: folder / "lost") }?.kind == .noInput)
    }

    @Test func modes() throws {
        let mask = umask(0o027)
        defer { umask(mask) }
        try write("x", to: folder / "new")
        #expect(folder.mode("new") == 0o640)
        try folder.put("kept", "old", mode: 0o600)
        try write("x", to: folder / "kept")
        #expect(folder.mode("kept") == 0o600)
        try folder.put("wide", "old", mode: 0o664)
        try write("x", to: folder / "wide")
        #expect(folder.mode("wide") == 0o664)
        try write("x", to: folder / "own", access: .ownerOnly)
        #expect(folder.mode("own") == 0o600)
        try folder.put("shown", "old", mode: 0o644)
        try write("x", to: folder / "shown", access: .ownerOnly)
        #expect(folder.mode("shown") == 0o600)
        // Not for others at any moment.
        let unfinished = try AtomicFile(path: folder / "hidden", size: 1, access: .ownerOnly)
        let name = try #require(folder.names.first { $0.hasPrefix("hidden") })
        #expect(folder.mode(name) == 0o600)
        withExtendedLifetime(unfinished) {}
    }

    /// Writers of one file in one process don't disturb each other: the last to finish wins, whole.
    @Test func writersOfOneFile() async throws {
        let path = folder / "shared"
        await withTaskGroup(of: Void.self) { group in
            for writer in 0..<8 {
                group.addTask {
                    for round in 0..<20 {
                        let text = String(repeating: "\(writer)", count: 4000 + round)
                        let error = sigmaError { try write(text, to: path) }
                        #expect(error == nil, "\(error?.description ?? "")")
                        let found = folder.text("shared") ?? ""
                        #expect(found.utf8.count >= 4000 && Set(found.utf8).count == 1)
                    }
                }
            }
        }
        #expect(folder.names == ["shared"])
    }

    @Test func leftoversOfKilledProcesses() throws {
        let long = String(repeating: "x", count: 252)
        for name in ["m", long] {
            // What a killed process leaves has no lock; what is being written has one.
            let alive = try AtomicFile(path: folder / name, size: 1)
            let living = try #require(folder.names.first { $0.hasPrefix(name.prefix(10)) && $0.contains(".partial-") })
            let dead = String(living.prefix { $0 != "." }) + ".partial-1-77"
            let others = ["other.partial-1-1", name.prefix(3) + ".partial-", name.prefix(3) + ".partial-1-x"]
            for other in [dead] + others { try folder.put(other, "left") }
            try write("new", to: folder / name)
            #expect(!folder.names.contains(dead))
            for other in [living] + others { #expect(folder.names.contains(other), "\(other)") }
            for other in others { unlink(folder / other) }
            withExtendedLifetime(alive) {}
        }
        #expect(folder.names == ["m", long].sorted())
    }

    @Test(arguments: [1, 200, 230, 255]) func longNames(_ length: Int) throws {
        let names = [String(repeating: "n", count: length), String(repeating: "é", count: length / 2)]
        for name in names where !name.isEmpty {
            try write("x", to: folder / name)
            #expect(folder.text(name) == "x")
        }
        // Names that begin alike have temporary names of their own.
        let two = ["a", "b"].map { String(repeating: "n", count: 254) + $0 }
        let files = try two.map { try AtomicFile(path: folder / $0, size: 1) }
        #expect(folder.names.count(where: { $0.contains(".partial-") }) == 2)
        try write("y", to: folder / two[0])
        withExtendedLifetime(files) {}
    }

    @Test func whatIsNoPlaceForAFile() throws {
        #expect(sigmaError { try write("x", to: folder.path) }?.kind == .usage)
        #expect(sigmaError { try write("x", to: folder / "no/where") }?.kind == .noInput)
        #expect(sigmaError { try write("x", to: folder / String(repeating: "n", count: 256)) }?.kind == .inputOutput)
        #expect(mkfifo(folder / "pipe", 0o600) == 0)
        #expect(sigmaError { try write("x", to: folder / "pipe") }?.kind == .usage)
    }

    /// The system would cut such a name, and take another file.
    @Test func namesWithNUL() throws {
        try folder.put("a", "kept")
        let path = folder / "a\0b"
        #expect(sigmaError { try write("x", to: path) }?.kind == .usage)
        #expect(sigmaError { _ = try MappedFile(path: path) }?.kind == .usage)
        #expect(sigmaError { _ = try ModelFile(path: path) }?.kind == .usage)
        #expect(folder.text("a") == "kept" && folder.names == ["a"])
    }
}
