import SampleFiles
import Sigma
import SigmaStudies
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

@Suite struct ExpertTraceTests {
    static func path() -> String { FileManager.default.temporaryDirectory.path + "/sigma-\(UUID().uuidString).trace" }
    static func bytes(_ path: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    /// A trace of 45 random tokens in windows of 20 and steps of 8, with what it must hold.
    struct Sample {
        let model: ModelFile
        let tokens: [Int32]
        let report: RoutingReport
        let bytes: [UInt8]

        init(_ name: String = "sigma-topk-per-layer") throws {
            model = try ReferenceFixture.named(name).model(.q8_0)
            tokens = SameBytesTests.tokens(45, vocabulary: model.configuration.vocabularySize, seed: 2)
            let path = ExpertTraceTests.path()
            defer { try? FileManager.default.removeItem(atPath: path) }
            let writer = try ExpertTraceWriter(path: path, model: ExpertTrace.Model(model))
            report = try RoutingStatisticsTests.survey(
                model, tokens, context: 20, rowLimit: 8, alsoTo: [writer])
            try writer.close()
            bytes = try ExpertTraceTests.bytes(path)
        }
    }

    static func read(_ bytes: [UInt8]) throws -> (ExpertTrace.Model, [ExpertTrace.Block]) {
        let path = path()
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let reader = try ExpertTraceReader(path: path)
        var blocks: [ExpertTrace.Block] = []
        while let block = try reader.next() { blocks.append(block) }
        return (reader.model, blocks)
    }

    @Test(arguments: ["sigma-topk-per-layer", "sigma-dense-layers"]) func whatIsWrittenIsRead(name: String) throws {
        let sample = try Sample(name)
        let (model, blocks) = try Self.read(sample.bytes)
        #expect(model == ExpertTrace.Model(sample.model))
        #expect(blocks.flatMap(\.tokens) == sample.tokens)
        #expect(blocks.map(\.tokens.count) == [8, 8, 4, 8, 8, 4, 5])
        #expect(blocks.map(\.sequence) == [0, 0, 0, 1, 1, 1, 2])
        #expect(blocks.map(\.position) == [0, 8, 16, 0, 8, 16, 0])
        // The same statistics come out of it.
        var statistics = try RoutingStatistics(.init(sample.model))
        for block in blocks {
            block.choices.withUnsafeBufferPointer { choices in
                for row in block.tokens.indices {
                    let width = model.choicesPerToken
                    statistics.add(
                        choices: UnsafeBufferPointer(rebasing: choices[(row * width)..<((row + 1) * width)]))
                }
            }
        }
        #expect(statistics.report.layers.map(\.counts) == sample.report.layers.map(\.counts))
        #expect(statistics.report.cache.optimal == sample.report.cache.optimal)
        #expect(statistics.report.layers.allSatisfy { $0.gatingProbability == nil && $0.margins == nil })
    }

    /// The format by hand, from docs/expert-trace.md: 300 experts take two bytes each.
    @Test func theFormatToTheByte() throws {
        let model = ExpertTrace.Model(
            name: "m", checksum: 0x0102_0304, vocabularySize: 5, expertCount: 300, choices: [0, 2])
        var bytes: [UInt8] = Array("SIGTRACE".utf8)
        bytes += [1, 0, 0, 0, 45, 0, 0, 0, 4, 3, 2, 1, 5, 0, 0, 0, 0x2c, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]
        bytes += [UInt8(ascii: "m"), 0, 0, 2, 0]
        bytes += Self.checksum(bytes)
        var block: [UInt8] = [2, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]
        block += [4, 0, 0, 0, 0x2b, 1, 3, 0, 0, 0, 0, 0, 1, 0, 0, 1]
        block += Self.checksum(block)
        let (found, blocks) = try Self.read(bytes + block)
        #expect(found == model)
        #expect(
            blocks == [
                ExpertTrace.Block(sequence: 7, position: 9, tokens: [4, 0], choices: [299, 3, 1, 256])
            ])
        let path = Self.path()
        defer { try? FileManager.default.removeItem(atPath: path) }
        try ExpertTraceWriter(path: path, model: model).close()
        #expect(try Self.bytes(path) == bytes)
    }

    static func checksum(_ bytes: [UInt8]) -> [UInt8] {
        withUnsafeBytes(of: definedCRC32C(bytes).littleEndian) { Array($0) }
    }

    @Test func everyDamagedByteIsFound() throws {
        let sample = try Sample()
        for index in sample.bytes.indices {
            var damaged = sample.bytes
            damaged[index] ^= UInt8(1 << (index % 8))
            let error = #expect(throws: SigmaError.self, "byte \(index)") { try Self.read(damaged) }
            #expect(error?.kind == .damaged && error?.offset != nil)
        }
    }

    @Test func everyShortFileIsFound() throws {
        let sample = try Sample()
        let (_, blocks) = try Self.read(sample.bytes)
        var whole = 0
        for length in 0..<sample.bytes.count {
            do {
                // A file may end behind any block.
                let (_, found) = try Self.read(Array(sample.bytes[..<length]))
                #expect(found == Array(blocks[..<found.count]))
                whole += 1
            } catch let error as SigmaError {
                #expect(error.kind == .damaged)
            }
        }
        #expect(whole == blocks.count)
    }

    @Test func otherModelsAreRefused() throws {
        let sample = try Sample()
        let path = Self.path()
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data(sample.bytes).write(to: URL(fileURLWithPath: path))
        let reader = try ExpertTraceReader(path: path)
        try reader.check(madeWith: sample.model)
        // The same checkpoint in another type is another model file.
        for other in [
            try ReferenceFixture.named("sigma-topk-per-layer").model(.f32),
            try ReferenceFixture.named("sigma-top1").model(.q8_0),
        ] {
            let error = #expect(throws: SigmaError.self) { try reader.check(madeWith: other) }
            #expect(error?.kind == .damaged)
        }
        #expect(throws: SigmaError.self) { try ExpertTraceReader(path: path + ".missing") }
        #expect(throws: SigmaError.self) {
            try ExpertTraceWriter(path: "/no/such/folder/trace", model: ExpertTrace.Model(sample.model))
        }
    }

    @Test func aFullDiskIsAnError() throws {
        guard FileManager.default.fileExists(atPath: "/dev/full") else { return }
        let sample = try Sample()
        let writer = try ExpertTraceWriter(path: "/dev/full", model: ExpertTrace.Model(sample.model))
        let error = #expect(throws: SigmaError.self) { try writer.close() }
        #expect(error?.kind == .inputOutput)
    }
}
