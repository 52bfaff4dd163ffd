import CSigma
import Sigma
import SigmaConversion
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Synthetic models: their weights, and how they route.
@Suite struct SyntheticModelTests {
    /// Small in every direction; 16 experts are enough for shares of a percent.
    private static let narrow = SyntheticModel.Shape(
        name: "narrow", layerCount: 4, hiddenSize: 512, headCount: 8, kvHeadCount: 2, headDim: 64, expertCount: 16,
        expertIntermediateSize: 256, vocabularySize: 4096, contextLength: 4096)

    private func options(
        _ type: WeightType = .q8_0, seed: UInt64 = 0, predictability: Double = 0.75, layers: Int = 4, threads: Int = 2
    ) -> SyntheticModel.Options {
        var options = SyntheticModel.Options(type: type, outputType: type)
        options.shape = Self.narrow
        options.shape.layerCount = layers
        options.seed = seed
        options.predictability = predictability
        options.threads = threads
        return options
    }

    @discardableResult
    private func write(_ options: SyntheticModel.Options, to path: String) throws -> SyntheticModel {
        let model = try SyntheticModel(options)
        try Converter.convert(
            model.input,
            Converter.Options(
                input: "", output: path, form: options.isQwen3MoE ? .plainGGUF : .native, type: options.type,
                outputType: options.outputType, overrides: try Overrides(), threads: options.threads))
        return model
    }

    // MARK: the same bytes

    @Test(arguments: [WeightType.q4_0, .bf16]) func bytesDependOnTheSeedAlone(_ type: WeightType) throws {
        let scratch = try Scratch()
        try write(options(type, threads: 1), to: scratch / "one")
        try write(options(type, threads: 5), to: scratch / "five")
        try write(options(type, seed: 1), to: scratch / "other")
        let one = try scratch.read("one")
        #expect(try scratch.read("five") == one)
        #expect(try scratch.read("other") != one)
        try ModelFile(path: scratch / "one").verify()
    }

    // MARK: weights

    /// Weights of rows of a source.
    private func values(_ source: any MatrixSource, rows: Int, columns: Int) throws -> [Float] {
        let type = source.type
        let scratch = UnsafeMutableRawPointer.allocate(byteCount: rows * type.rowBytes(columns), alignment: 64)
        defer { scratch.deallocate() }
        let bytes = try source.bytes(rows: 0..<rows, columns: columns, scratch: scratch)
        var values = [Float](repeating: 0, count: rows * columns)
        let group = UnsafeMutableRawPointer.allocate(
            byteCount: max(64, type.isQuantized ? type.groupBytes(columns) : 0), alignment: 64)
        defer { group.deallocate() }
        for row in 0..<rows {
            let from = bytes + row * type.rowBytes(columns)
            values.withUnsafeMutableBufferPointer { values in
                let out = values.baseAddress! + row * columns
                if type.isQuantized {
                    sigma_pack_group(Int32(type.rawValue), from, 1, columns, group)
                    sigma_dequantize_row(Int32(type.rawValue), group, 0, columns, out)
                } else {
                    sigma_kernels_best().pointee.widen(from, Int32(type.rawValue), out, Int32(columns))
                }
            }
        }
        return values
    }

    /// Of a whole matrix: mean 0 within the error of a sample, the root mean square that the plan asks for, the shape of a normal
    /// distribution; and blocks that are each the negative of another use as often as not.
    @Test(arguments: WeightType.allCases.filter(\.isTarget)) func weightsAreNormal(_ type: WeightType) throws {
        let weights = try SyntheticModel(options(type)).input.weights
        let source = try #require(
            try weights.find(.expert(layer: 1, 3, .gate), rows: 2048, columns: 512))
        #expect(source.type == type)
        let values = try values(source, rows: 2048, columns: 512).map { Double($0) }
        let count = Double(values.count)
        let deviation = (values.reduce(0) { $0 + $1 * $1 } / count).squareRoot()
        #expect(abs(deviation * 512.0.squareRoot() - 1) < 0.005)
        // Blocks of 256 share a sign, but inside a block the weights are independent.
        #expect(abs(values.reduce(0, +) / count) < 4 * deviation / count.squareRoot())
        let kurtosis =
            values.reduce(0) { $0 + $1 * $1 * $1 * $1 } / count / (deviation * deviation * deviation * deviation)
        #expect((2.8...3.2).contains(kurtosis), "\(kurtosis)")
        // The largest weights of each sign are as large.
        #expect(abs(values.max()! + values.min()!) < 0.2 * values.max()!)
    }

    /// Rows of a matrix, and matrices, have nothing to do with each other.
    @Test func rowsAreIndependent() throws {
        let weights = try SyntheticModel(options(.q4_0)).input.weights
        func rows(_ role: WeightRole) throws -> [[Float]] {
            let source = try #require(try weights.find(role, rows: 256, columns: 512))
            let all = try values(source, rows: 256, columns: 512)
            return (0..<256).map { Array(all[$0 * 512..<($0 + 1) * 512]) }
        }
        func correlation(_ a: [Float], _ b: [Float]) -> Double {
            func dot(_ a: [Float], _ b: [Float]) -> Double { zip(a, b).reduce(0) { $0 + Double($1.0) * Double($1.1) } }
            return dot(a, b) / (dot(a, a) * dot(b, b)).squareRoot()
        }
        let gate = try rows(.expert(layer: 0, 0, .gate))
        let up = try rows(.expert(layer: 0, 0, .up))
        let later = try rows(.expert(layer: 1, 0, .gate))
        var squares = 0.0
        for i in 0..<256 {
            let found = [
                correlation(gate[i], up[i]), correlation(gate[i], later[i]), correlation(gate[i], gate[(i + 1) % 256]),
            ]
            // 1/sqrt(512) is the standard deviation of what independent rows give.
            for r in found { #expect(abs(r) < 5.5 / 512.0.squareRoot()) }
            squares += found.reduce(0) { $0 + $1 * $1 } / 3
        }
        #expect((0.8...1.2).contains(squares / 256 * 512))
    }

    @Test func routersPreferNoExpert() throws {
        let weights = try SyntheticModel(options()).input.weights
        let source = try #require(try weights.find(.layer(2, .router), rows: 16, columns: 512))
        #expect(source.type == .bf16)
        let rows = try values(source, rows: 16, columns: 512).map { Double($0) }
        for i in 0..<16 {
            for j in 0...i {
                let dot = (0..<512).reduce(0) { $0 + rows[i * 512 + $1] * rows[j * 512 + $1] }
                #expect(abs(dot - (i == j ? 1 : 0)) < 2e-3)
            }
        }
    }

    // MARK: routing

    @Test(arguments: [0.6, 0.75, 0.9]) func predictabilityIsAsAsked(_ share: Double) throws {
        let scratch = try Scratch()
        let model = try write(options(predictability: share, layers: 6), to: scratch / "model")
        #expect(abs(model.predictability - share) < 0.01)
        let measured = try RoutingMeasurement(
            model: ModelFile(path: scratch / "model"), windows: 8, length: 256, seed: 7, threads: 2)
        #expect(measured.tokenCount == 2048)
        #expect(abs(try #require(measured.predictability) - share) < 0.04, "\(measured)")
    }

    @Test func loadsAreBalanced() throws {
        let scratch = try Scratch()
        try write(options(), to: scratch / "model")
        let measured = try RoutingMeasurement(
            model: ModelFile(path: scratch / "model"), windows: 80, length: 250, seed: 3, threads: 2)
        #expect(measured.tokenCount == 20_000)
        for layer in 0..<4 {
            #expect(measured.loads[layer].reduce(0, +) == 20_000)
            #expect(measured.loads[layer].allSatisfy { $0 > 0 })
            #expect(measured.imbalance(layer: layer) < 1.3, "\(measured.loads[layer])")
        }
    }

    /// The same for a file of any size: SIGMA_SYNTHETIC_MODEL names it. Takes minutes for the whole of Sigma-MoE-Tiny.
    @Test(.enabled(if: ProcessInfo.processInfo.environment["SIGMA_SYNTHETIC_MODEL"] != nil))
    func loadsOfAGivenFile() throws {
        let path = try #require(ProcessInfo.processInfo.environment["SIGMA_SYNTHETIC_MODEL"])
        let measured = try RoutingMeasurement(
            model: ModelFile(path: path), windows: 40, length: 500, seed: 11, threads: 2)
        #expect(measured.tokenCount == 20_000)
        let imbalances = (0..<measured.layerCount).map { measured.imbalance(layer: $0) }
        print("predictability \(measured.predictability ?? 0), largest load over the mean, by layer: \(imbalances)")
        #expect(measured.loads.allSatisfy { $0.allSatisfy { $0 > 0 } })
        #expect(imbalances.allSatisfy { $0 < 1.5 })
    }

    /// Every layer adds the same share of the residual's norm, and nothing grows out of hand.
    @Test func activationsStaySane() throws {
        let scratch = try Scratch()
        try write(options(layers: 8), to: scratch / "model")
        let model = try ModelFile(path: scratch / "model")
        let backend = try CPUBackend(model: model, threadCount: 2)
        let batch = Batch()
        batch.append((0..<200).map { Int32($0 * 19 % 4096) }[...], to: try backend.makeSequence(kvType: .f16))
        func rms(_ values: [Float]) -> Double {
            (values.reduce(0) { $0 + Double($1) * Double($1) } / Double(values.count)).squareRoot()
        }
        try backend.begin(batch)
        backend.embed()
        var before = backend.activation(.residual)
        var shares: [Double] = []
        for layer in 0..<8 {
            backend.attend(layer: layer)
            try backend.feedForward(layer: layer)
            let after = backend.activation(.residual)
            shares.append(rms(zip(before, after).map { $1 - $0 }) / rms(before))
            before = after
        }
        // 16 experts are predicted at 75 % with less noise than 96, or more: the same share in all layers is what counts.
        let mean = shares.reduce(0, +) / 8
        #expect((0.1...0.4).contains(mean))
        for share in shares { #expect(abs(share / mean - 1) < 0.15, "\(shares)") }
        let logits = backend.head(rows: 0..<8)
        #expect((1...4).contains(rms(Array(logits))))
        try backend.end()
    }

    // MARK: files

    @Test func qwen3MoEHasTheSameWeights() throws {
        let scratch = try Scratch()
        try write(options(.q4_0), to: scratch / "native")
        var plain = options(.q4_0)
        plain.isQwen3MoE = true
        try write(plain, to: scratch / "plain")
        #expect(try GGUFFile(path: scratch / "plain")["general.architecture"]?.string == "qwen3moe")
        try Converter.convert(
            Converter.Options(input: scratch / "plain", output: scratch / "imported", overrides: try Overrides()))
        let native = try ModelFile(path: scratch / "native")
        let imported = try ModelFile(path: scratch / "imported")
        #expect(imported.configuration.scoring == .softmax)
        #expect(imported.configuration.weightNormalization == .always)
        func bytes(_ matrix: WeightMatrix) -> [UInt8] {
            Array(UnsafeRawBufferPointer(start: matrix.data, count: matrix.byteCount))
        }
        #expect(bytes(native.weights.head) == bytes(imported.weights.head))
        for (a, b) in zip(native.weights.layers, imported.weights.layers) {
            #expect(bytes(a.query) == bytes(b.query))
            guard case .mixture(_, _, let left, _) = a.feedForward, case .mixture(_, _, let right, _) = b.feedForward
            else {
                Issue.record("expected experts")
                return
            }
            for expert in 0..<left.count { #expect(bytes(left.down(expert)) == bytes(right.down(expert))) }
        }
    }

    @Test func tokenizer() throws {
        let scratch = try Scratch()
        var real = options()
        real.shape.vocabularySize = 200_064
        real.shape.layerCount = 1
        for (options, shift) in [(options(), 4096 - 200_064), (real, 0)] {
            try write(options, to: scratch / "model")
            let model = try ModelFile(path: scratch / "model")
            let tokenizer = try Tokenizer(#require(try model.tokenizerDefinition()))
            let text = "Größe <t300> 5 €\n"
            #expect(tokenizer.encode(text, recognizingSpecials: false) == Array(text.utf8).map { Int32($0) })
            #expect(
                tokenizer.encode("<|user|>a<|end|>", recognizingSpecials: true) == [
                    Int32(200_001 + shift), 97, Int32(200_003 + shift),
                ])
            #expect(String(decoding: tokenizer.decode([300], specials: .skipped), as: UTF8.self) == "<t300>")
            #expect(tokenizer.isAllowed(Int32(199_997 + shift)))
            #expect(!tokenizer.isAllowed(Int32(199_998 + shift)))
            #expect(!tokenizer.isAllowed(Int32(200_063 + shift)))
            #expect(model.chatFormat?.stopTokens == [Int32(200_003 + shift), Int32(199_999 + shift)])
        }
    }

    // MARK: errors

    @Test(arguments: [0, 1, -0.5, 1.5, Double.nan, Double.infinity]) func sharesThatAreNone(_ share: Double) {
        #expect(sigmaError { _ = try SyntheticModel(options(predictability: share)) }?.kind == .usage)
    }

    @Test func sharesThatManyLayersCannotHave() throws {
        _ = try SyntheticModel(options(predictability: 0.3, layers: 2))
        let error = sigmaError { _ = try SyntheticModel(options(predictability: 0.3, layers: 100)) }
        #expect(error?.kind == .usage)
        #expect(error?.message.contains("100 layers") == true)
    }

    @Test func interruptedWhileWriting() throws {
        let scratch = try Scratch()
        let model = try SyntheticModel(options())
        var calls = 0
        let error = sigmaError {
            try Converter.convert(
                model.input,
                Converter.Options(input: "", output: scratch / "out.gguf", type: .q8_0, overrides: try Overrides()),
                isCancelled: {
                    calls += 1
                    return calls > 20
                })
        }
        #expect(error?.kind == .interrupted)
        #expect(scratch.files.isEmpty)
    }
}
