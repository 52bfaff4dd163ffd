import Foundation
import Testing

/// The table of rooms in docs/architecture.md is what the sources do.
@Suite struct RoomsTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    private static func table() throws -> RoomTable {
        let text = try String(contentsOf: root.appending(path: "docs/architecture.md"), encoding: .utf8)
        let rooms = try #require(text.range(of: "## Rooms"))
        let end = try #require(text.range(of: "## Four walks"))
        return RoomTable(markdown: String(text[rooms.upperBound..<end.lowerBound]))
    }

    @Test func everyRoomUsesWhatTheTableAllows() throws {
        let sources = try RoomSources(folder: Self.root.appending(path: "Sources"))
        let table = try Self.table()
        #expect(table.allowed.count >= 20)
        #expect(sources.violations(table) == [])
    }

    @Test func everyFolderHasARow() throws {
        let sources = try RoomSources(folder: Self.root.appending(path: "Sources"))
        let table = try Self.table()
        let rooms = Set(sources.files.map(\.room)).filter { !$0.hasPrefix("sigma-") }
        #expect(rooms.filter { table.uses(of: $0) == nil }.sorted() == [])
        #expect(table.allowed.map(\.room).filter { !rooms.contains($0) } == [])
    }

    @Test func thereIsNoCircle() throws { #expect(try Self.table().circles == []) }

    @Test func nothingCastsToABackEnd() throws {
        #expect(try RoomSources(folder: Self.root.appending(path: "Sources")).casts == [])
    }

    // What the checks are worth: each finds what is planted.

    private static let planted = RoomTable(
        markdown: """
            | room | may use |
            |---|---|
            | `Sigma/Model` | nothing |
            | `Sigma/Backend` | `Sigma/Model` |
            | `Sigma/CPU` | `Backend` |
            """)

    @Test func aPlantedUseIsFound() {
        let sources = RoomSources([
            ("Sigma/Model", "Model.swift", "package struct Weights {}\n"),
            ("Sigma/Backend", "Backend.swift", "protocol Backend { var weights: Weights { get } }\n"),
            ("Sigma/CPU", "Fine.swift", "// Weights\nlet text = \"Weights \\(1)\"\nlet cpu: Backend? = nil\n"),
            ("Sigma/CPU", "Planted.swift", "final class CPU {\n    var weights: Weights\n}\n"),
            ("Sigma/Model", "Upwards.swift", "func f(_ backend: any Backend) {}\n"),
            (
                "Sigma/Model", "Own.swift",
                "enum Table {\n    private struct CPU { let backend: Table }\n    let cpus: [CPU]\n}\n"
            ),
        ])
        #expect(
            sources.violations(Self.planted) == [
                "Sigma/CPU/Planted.swift: Weights of Sigma/Model",
                "Sigma/Model/Upwards.swift: Backend of Sigma/Backend",
            ])
    }

    @Test func aPlantedCircleIsFound() {
        let table = RoomTable(
            markdown: "| `A` | `B` |\n| `B` | `C` |\n| `C` | `A` |\n| `D` | `A` |\n")
        #expect(table.circles == ["A", "B", "C"])
    }

    @Test func aPlantedCastIsFound() {
        let sources = RoomSources([
            ("Sigma/CPU", "CPU.swift", "let a = b as? CPUBackend\n"),
            ("Sigma/Library", "Planted.swift", "let a = b as! CUDABackend // as? CPUBackend\n"),
        ])
        #expect(sources.casts == ["Sigma/Library/Planted.swift: as! CUDABackend"])
    }
}
