import Sigma
import SigmaConversion
import SystemLibrary
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A model file that is lost while it is in use: a clear error, and everything else goes on.
@Suite struct FaultTests {
    static func temporaryModel() throws -> String {
        let path = FileManager.default.temporaryDirectory.path + "/sigma-fault-\(UUID().uuidString).gguf"
        try Converter.convert(
            Converter.Options(input: DemoModel.checkpoint, output: path, type: .q8_0, overrides: try Overrides()))
        return path
    }

    static func truncate(_ path: String, to length: UInt64) throws {
        let handle = try #require(fopen(path, "r+"))
        defer { fclose(handle) }
        try #require(ftruncate(fileno(handle), Int(length)) == 0)
    }

    @Test func aTruncatedFileFailsTheRequestAndNothingElse() async throws {
        let path = try Self.temporaryModel()
        defer { try? FileManager.default.removeItem(atPath: path) }
        let model = try await SigmaModel.load(from: path)
        let session = model.makeSession(options: GenerationOptions(temperature: 0, maximumTokens: 5))
        let before = try await session.respond(to: "What is 1 + 2?")
        #expect(!before.isEmpty)

        try Self.truncate(path, to: 1 << 20)
        for _ in 0..<2 {
            let error = await #expect(throws: SigmaError.self) { try await session.respond(to: "What is 3 + 4?") }
            #expect(error?.kind == .inputOutput && error?.path == path && error?.offset != nil)
        }
        // Another model in the same process is not touched.
        #expect(try await Answer(DemoModel.session(try DemoModel.engine()), "What is 1 + 2?").text.isEmpty == false)
        // And the damaged file is refused when it is opened again.
        let refused = await #expect(throws: SigmaError.self) { try await SigmaModel.load(from: path) }
        #expect(refused?.kind == .damaged)
    }

    @Test func aReplacedFileChangesNothingForWhoeverHasItOpen() async throws {
        let path = try Self.temporaryModel()
        defer { try? FileManager.default.removeItem(atPath: path) }
        let model = try await SigmaModel.load(from: path)
        let first = try await Answer(model.makeSession(options: GenerationOptions(temperature: 0)), "What is 1 + 2?")
        let other = path + ".other"
        try Data("something else".utf8).write(to: URL(fileURLWithPath: other))
        try #require(rename(other, path) == 0)
        // The mapping is of the old file: the same question on a new session of the same model has the same answer.
        let fresh = model.makeSession(options: GenerationOptions(temperature: 0))
        #expect(try await Answer(fresh, "What is 1 + 2?") == first)
    }
}
