import CSigma
import Sigma
import SigmaConversion
import SigmaStudies
import Testing

/// Conversion with an importance matrix: every matrix gets the importance of its own inputs.
@Suite struct WeightedConversionTests {
    /// Random means, different in every entry and group, written for the demo model.
    private func importance(_ configuration: ModelConfiguration, to path: String) throws -> ImportanceMatrix {
        var random = SplitMix64(state: 7)
        var entries = ImportanceMatrix.blank(configuration)
        for i in entries.indices {
            for j in entries[i].means.indices {
                entries[i].means[j] = random.next() % 8 == 0 ? 30 : Float(random.next() % 1000 + 1) / 1000
            }
            for j in entries[i].counts.indices { entries[i].counts[j] = 10_000 }
        }
        let matrix = ImportanceMatrix(modelName: "demo", tokenCount: 10_000, entries: entries)
        try matrix.write(to: path, for: configuration)
        return matrix
    }

    private func values(_ matrix: WeightMatrix) -> [Float] {
        (0..<matrix.rows).flatMap { row in
            var values = [Float](repeating: .nan, count: matrix.columns)
            if matrix.type.isQuantized {
                sigma_dequantize_row(
                    Int32(matrix.type.rawValue), matrix.data(row: row / 16 * 16), Int32(row % 16), matrix.columns,
                    &values)
            } else {
                let source = matrix.data(row: row).assumingMemoryBound(to: Float.self)
                values = Array(UnsafeBufferPointer(start: source, count: matrix.columns))
            }
            return values
        }
    }

    @Test(arguments: [WeightType.q5_k, .q4_k, .q3_k], [Converter.Options.Form.native, .plainGGUF])
    func everyMatrixIsWeighedByItsInputs(_ type: WeightType, _ form: Converter.Options.Form) throws {
        let scratch = try Scratch()
        let checkpoint = packageRoot + "/Models/demo/checkpoint"
        func model(_ type: WeightType, importance: String? = nil) throws -> ModelFile {
            let name = scratch / "\(type)-\(importance == nil ? "plain" : "weighted").gguf"
            try Converter.convert(
                .init(
                    input: checkpoint, output: name, form: form, type: type, importance: importance,
                    overrides: try Overrides([])))
            if form == .plainGGUF {
                // Blocks are copied as they are.
                try Converter.convert(.init(input: name, output: name + ".native", overrides: try Overrides([])))
                return try ModelFile(path: name + ".native")
            }
            return try ModelFile(path: name)
        }
        let exact = try model(.f32)
        let file = scratch / "demo.imatrix"
        let matrix = try importance(exact.configuration, to: file)
        let plain = try model(type)
        let weighted = try model(type, importance: file)

        func check(_ name: String, _ columns: [Float]?, _ part: (ModelFile) -> WeightMatrix) throws {
            let reference = values(part(exact))
            func error(_ model: ModelFile) -> Double {
                QuantizerTests.error(reference, values(part(model)), importance: columns)
            }
            if columns == nil {
                #expect(values(part(plain)) == values(part(weighted)), "\(name)")
            } else {
                #expect(error(weighted) < 0.93 * error(plain), "\(name)")
            }
        }
        try check("embedding", nil) { $0.weights.embedding }
        try check("head", matrix.columns(ImportanceMatrix.headInput)) { $0.weights.head }
        for layer in [0, 3] {
            let input = matrix.columns(ImportanceMatrix.attentionInput(layer))
            try check("query", input) { $0.weights.layers[layer].query }
            try check("key", input) { $0.weights.layers[layer].key }
            try check("value", input) { $0.weights.layers[layer].value }
            try check("output", matrix.columns(ImportanceMatrix.attentionOutputInput(layer))) {
                $0.weights.layers[layer].output
            }
            func experts(_ model: ModelFile) -> ExpertRecords {
                guard case .mixture(_, _, let experts, _) = model.weights.layers[layer].feedForward else {
                    preconditionFailure("the demo model's layers have experts")
                }
                return experts
            }
            for expert in [0, 5] {
                let input = matrix.columns(ImportanceMatrix.expertInput(layer), expert: expert)
                try check("gate", input) { experts($0).gate(expert) }
                try check("up", input) { experts($0).up(expert) }
                try check("down", matrix.columns(ImportanceMatrix.expertDownInput(layer), expert: expert)) {
                    experts($0).down(expert)
                }
            }
        }
    }

    @Test func aMatrixOfAnotherModelIsRefused() throws {
        let scratch = try Scratch()
        try scratch.copyFixture("sigma-top1")
        let file = scratch / "demo.imatrix"
        let demo = try Checkpoint(folder: packageRoot + "/Models/demo/checkpoint")
        _ = try importance(CheckpointConfiguration(demo, overrides: Overrides([])).model, to: file)
        let before = scratch.files
        let error = sigmaError {
            try Converter.convert(
                .init(
                    input: scratch.path, output: scratch / "out.gguf", importance: file, overrides: try Overrides([])))
        }
        #expect(error?.kind == .damaged && error?.path == file)
        #expect(scratch.files == before)
        let overwriting = sigmaError {
            try Converter.convert(
                .init(
                    input: packageRoot + "/Models/demo/checkpoint", output: file, importance: file,
                    overrides: try Overrides([])))
        }
        #expect(overwriting?.kind == .usage)
    }
}
