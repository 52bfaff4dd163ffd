import Sigma
import SigmaConversion
import SigmaStudies
import SystemLibrary
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Importance matrices: gathered from a model, kept in a file, and what quantizers get of them.
@Suite struct ImportanceTests {
    private func gather(
        _ model: ModelFile, _ windows: [[Int32]], threads: Int = 2, rowLimit: Int = 512
    ) throws -> ImportanceMatrix {
        let backend = try CPUBackend(model: model, threadCount: threads, rowLimit: rowLimit)
        let gatherer = try ImportanceGatherer(
            engine: Engine(model: model, backend: backend), kvType: .f32, sums: ImportanceSums(model.configuration))
        for window in windows { try gatherer.add(window, isCancelled: { false }) }
        return try gatherer.result()
    }

    private func path() -> String {
        FileManager.default.temporaryDirectory.path + "/sigma-\(UUID().uuidString).imatrix"
    }

    /// Mean square of each column of rows [*, width].
    private func meanSquares(_ rows: [Float], width: Int) -> [Double] {
        let count = rows.count / width
        return (0..<width).map { i in
            (0..<count).reduce(0.0) { $0 + Double(rows[$1 * width + i]) * Double(rows[$1 * width + i]) } / Double(count)
        }
    }

    private func product(_ matrix: WeightMatrix, _ x: ArraySlice<Float>) -> [Double] {
        let weights = matrix.data.assumingMemoryBound(to: Float.self)
        return (0..<matrix.rows).map { row in
            zip(0..<matrix.columns, x).reduce(0.0) { $0 + Double(weights[row * matrix.columns + $1.0]) * Double($1.1) }
        }
    }

    private func hidden(_ gate: WeightMatrix, _ up: WeightMatrix, _ x: ArraySlice<Float>) -> [Float] {
        zip(product(gate, x), product(up, x)).map { Float($0 / (1 + exp(-$0)) * $1) }
    }

    private func isNear(_ found: some Sequence<Float>, _ expected: [Double]) -> Bool {
        zip(found, expected).allSatisfy { abs(Double($0) - $1) <= 2e-4 * abs($1) + 1e-9 }
    }

    /// Against the PyTorch reference's activations.
    @Test(arguments: ["sigma-top1", "sigma-shared-experts", "sigma-topk-per-layer"])
    func meansAreThoseOfTheReference(_ name: String) throws {
        let fixture = ReferenceFixture.named(name)
        let model = try fixture.model(.f32)
        let c = model.configuration
        let expected = try fixture.expected()
        let matrix = try gather(model, [expected.ids("tokens")])
        let tokenCount = try expected.ids("tokens").count
        #expect(matrix.tokenCount == tokenCount)
        #expect(matrix.entries.map(\.name) == ImportanceMatrix.blank(c).map(\.name))
        func check(_ entry: String, group: Int = 0, _ rows: [Float], width: Int) throws {
            let entry = try #require(matrix.entries.first { $0.name == entry })
            #expect(entry.width == width)
            #expect(Int(entry.counts[group]) == rows.count / width, "\(entry.name) \(group)")
            let means = entry.means[(group * width)..<((group + 1) * width)]
            if rows.isEmpty {
                #expect(means.allSatisfy { $0 == 0 })
            } else {
                #expect(isNear(means, meanSquares(rows, width: width)), "\(entry.name) \(group)")
            }
        }
        try check(ImportanceMatrix.headInput, expected.floats("final_norm"), width: c.hiddenSize)
        for (i, layer) in model.weights.layers.enumerated() {
            try check(
                ImportanceMatrix.attentionInput(i), expected.floats("layer.\(i).attention_norm"), width: c.hiddenSize)
            try check(
                ImportanceMatrix.attentionOutputInput(i), expected.floats("layer.\(i).attention"), width: c.queryWidth)
            let input = try expected.floats("layer.\(i).feed_forward_norm")
            try check(ImportanceMatrix.feedForwardInput(i), input, width: c.hiddenSize)
            guard case .mixture(_, _, let experts, let shared) = layer.feedForward else { continue }
            let chosen = try expected.ids("layer.\(i).chosen").map { Int($0) }
            let choices = c.expertsPerToken[i]
            func row(_ token: Int) -> ArraySlice<Float> { input[(token * c.hiddenSize)..<((token + 1) * c.hiddenSize)] }
            for expert in 0..<c.expertCount {
                let tokens = chosen.indices.filter { chosen[$0] == expert }.map { $0 / choices }
                try check(
                    ImportanceMatrix.expertInput(i), group: expert, tokens.flatMap { row($0) }, width: c.hiddenSize)
                try check(
                    ImportanceMatrix.expertDownInput(i), group: expert,
                    tokens.flatMap { hidden(experts.gate(expert), experts.up(expert), row($0)) },
                    width: c.expertIntermediateSize)
            }
            if let shared {
                try check(
                    ImportanceMatrix.alwaysOnDownInput(i),
                    (0..<tokenCount).flatMap { hidden(shared.gate, shared.up, row($0)) },
                    width: c.sharedIntermediateSize)
            }
        }
    }

    @Test func denseLayersHaveTheirInputs() throws {
        let model = try ReferenceFixture.named("sigma-dense-layers").model(.f32)
        let matrix = try gather(model, [[1, 2, 3, 4, 5]])
        let c = model.configuration
        let layer = try #require((0..<c.layerCount).first { c.isDense(layer: $0) })
        let entry = try #require(matrix.entries.first { $0.name == ImportanceMatrix.alwaysOnDownInput(layer) })
        #expect(entry.width == c.denseIntermediateSize && entry.counts == [5] && entry.means.contains { $0 > 0 })
        #expect(!matrix.entries.contains { $0.name == ImportanceMatrix.expertInput(layer) })
    }

    /// Windows are read from their beginning; steps and threads change nothing.
    @Test func stepsAndThreadsDoNotMatter() throws {
        let model = try ReferenceFixture.named("sigma-topk-per-layer").model(.q8_0)
        let windows: [[Int32]] = [Array(1..<40), Array(5..<22)]
        let whole = try gather(model, windows, threads: 1)
        #expect(try gather(model, windows, threads: 3, rowLimit: 7) == whole)
        #expect(whole.tokenCount == 56)
        #expect(try gather(model, windows.reversed()).entries.map(\.counts) == whole.entries.map(\.counts))
    }

    // MARK: - The file

    private func example() throws -> (ImportanceMatrix, ModelConfiguration) {
        let model = try ReferenceFixture.named("sigma-top1").model(.q8_0)
        return (try gather(model, [Array(1..<30)]), model.configuration)
    }

    @Test func fileReadsBack() throws {
        let (matrix, configuration) = try example()
        let file = path()
        defer { try? FileManager.default.removeItem(atPath: file) }
        try matrix.write(to: file, for: configuration)
        #expect(try ImportanceMatrix(path: file, for: configuration) == matrix)
    }

    private func failure(_ path: String, _ configuration: ModelConfiguration) -> SigmaError? {
        do {
            _ = try ImportanceMatrix(path: path, for: configuration)
            return nil
        } catch {
            return error as? SigmaError
        }
    }

    @Test func foreignAndDamagedFilesAreRefused() throws {
        let (matrix, configuration) = try example()
        let file = path()
        defer { try? FileManager.default.removeItem(atPath: file) }
        #expect(failure(file, configuration)?.kind == .noInput)
        try matrix.write(to: file, for: configuration)
        let bytes = try Data(contentsOf: URL(filePath: file))

        var other = configuration
        other.hiddenSize += 32
        #expect(failure(file, other)?.message.contains("another model") == true)
        other = configuration
        other.expertsPerToken[0] += 1
        #expect(failure(file, other)?.message.contains("another model") == true)

        func refused(_ change: (inout Data) -> Void) throws -> SigmaError? {
            var changed = bytes
            change(&changed)
            try changed.write(to: URL(filePath: file))
            return failure(file, configuration)
        }
        // A number, and every prefix of the file.
        let damaged = try refused { $0[$0.count - 200] ^= 1 }
        #expect(damaged?.kind == .damaged && damaged?.message.contains("checksum") == true)
        for length in stride(from: 1, to: bytes.count - 64, by: 37) {
            #expect(try refused { $0 = $0.prefix(length) }?.kind == .damaged, "\(length) bytes")
        }
        // Not a number, where it is: the last entry ends the file.
        let name = ImportanceMatrix.headInput
        let nan = try refused { data in
            let tensor = GGUFTensorPlace(data, file: file, name)
            withUnsafeBytes(of: Float.nan) { data.replaceSubrange(tensor.offset..<tensor.offset + 4, with: $0) }
        }
        #expect(nan?.kind == .damaged && nan?.item == name && nan?.offset != nil)
        // Another GGUF file.
        let model = try ReferenceFixture.named("sigma-top1").model(.q8_0)
        try Data(model.gguf.file.bytes).write(to: URL(filePath: file))
        #expect(failure(file, configuration)?.message.contains("importance matrix") == true)
    }

    private struct GGUFTensorPlace {
        let offset: Int
        init(_ data: Data, file: String, _ name: String) {
            try? data.write(to: URL(filePath: file))
            offset = (try? GGUFFile(path: file).tensor(name)?.offset) ?? 0
        }
    }

    // MARK: - For quantizers

    @Test func expertsWithoutTokensHaveTheirLayersMean() throws {
        let (_, c) = try example()
        var entries = ImportanceMatrix.blank(c)
        let place = try #require(entries.firstIndex { $0.name == ImportanceMatrix.expertInput(0) })
        let width = entries[place].width
        // Expert 0 has seen many tokens with a strong first column, expert 1 few with a strong second one, the others none.
        for (expert, count, strong) in [(0, UInt32(96_000), 0), (1, 4, 1)] {
            entries[place].counts[expert] = count
            for i in 0..<width { entries[place].means[expert * width + i] = i == strong ? 9 : 1 }
        }
        let matrix = ImportanceMatrix(modelName: "", tokenCount: 96_004, entries: entries)
        func columns(_ expert: Int) throws -> [Float] {
            try #require(matrix.columns(ImportanceMatrix.expertInput(0), expert: expert))
        }
        let mean = Float(width + 8) / Float(width)
        #expect(try abs(columns(0)[0] - 9 / mean) < 0.01 && abs(columns(0)[1] - 1 / mean) < 0.01)
        let silent = try columns(2)
        #expect(abs(silent[0] - 9 / mean) < 0.01 && abs(silent[1] - 1 / mean) < 0.01)
        // Four tokens are not enough to be believed.
        #expect(try columns(1)[1] > columns(0)[1] && columns(1)[1] < 3 / mean && columns(1)[0] > 6 / mean)
        for expert in 0..<c.expertCount {
            let columns = try columns(expert)
            #expect(columns.allSatisfy { $0 > 0 && $0.isFinite })
            #expect(abs(columns.reduce(0, +) / Float(width) - 1) < 0.01)
        }
        // An entry that nothing reached says nothing.
        #expect(matrix.columns(ImportanceMatrix.headInput) == [Float](repeating: 1, count: c.hiddenSize))
        #expect(matrix.columns("blk.0.unknown") == nil)
    }
}
