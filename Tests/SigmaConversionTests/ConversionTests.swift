import CSigma
import Sigma
import SigmaConversion
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Checkpoints to model files: the values, the choices, and that nothing is left behind by what fails.
@Suite struct ConversionTests {
    private func scratch(_ fixture: String) throws -> Scratch {
        let scratch = try Scratch()
        try scratch.copyFixture(fixture)
        return scratch
    }

    /// fp64 values of a checkpoint's tensor, by the formats' definitions.
    private func values(_ tensor: SourceTensor) -> [Double] {
        func bits16(_ i: Int) -> UInt16 { tensor.bytes.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self) }
        let count = tensor.shape.reduce(1, *)
        switch tensor.type {
        case .f32: return (0..<count).map { Double(tensor.bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self)) }
        case .bf16: return (0..<count).map { float(bits16($0), exponentBits: 8) }
        default: return (0..<count).map { float(bits16($0), exponentBits: 5) }
        }
    }

    /// A 16-bit float's value: sign, exponent, fraction.
    private func float(_ bits: UInt16, exponentBits: Int) -> Double {
        let fractionBits = 15 - exponentBits
        let exponent = Int(bits >> fractionBits) & (1 << exponentBits - 1)
        let fraction = Double(Int(bits) & (1 << fractionBits - 1)) / Double(1 << fractionBits)
        let bias = 1 << (exponentBits - 1) - 1
        let magnitude =
            exponent == 0 ? fraction * power(1 - bias) : (1 + fraction) * power(exponent - bias)
        return bits & 0x8000 == 0 ? magnitude : -magnitude
    }
    private func power(_ exponent: Int) -> Double { Double(sign: .plus, exponent: exponent, significand: 1) }

    /// The value of a weight as it should be after rounding to a type with that many significant bits, ties to even.
    private func rounded(_ value: Double, bits: Int, minimumExponent: Int) -> Double {
        if value == 0 { return value }
        let step = power(max(value.exponent, minimumExponent) - (bits - 1))
        return (value / step).rounded(.toNearestOrEven) * step
    }

    /// What `expected` weights [rows, columns] become as `type`.
    private func expected(_ weights: [Double], columns: Int, _ type: WeightType) -> [Double] {
        switch type {
        case .f32: return weights
        case .bf16: return weights.map { rounded($0, bits: 8, minimumExponent: -126) }
        case .f16: return weights.map { rounded($0, bits: 11, minimumExponent: -14) }
        default: preconditionFailure("these have no single right answer")
        }
    }

    /// What a matrix of a model file holds.
    private func values(_ matrix: WeightMatrix) -> [Double] {
        let bytes = UnsafeRawBufferPointer(start: matrix.data, count: matrix.byteCount)
        func bits16(_ offset: Int) -> UInt16 { bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self) }
        let count = matrix.rows * matrix.columns
        switch matrix.type {
        case .f32: return (0..<count).map { Double(bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self)) }
        case .bf16: return (0..<count).map { float(bits16(2 * $0), exponentBits: 8) }
        case .f16: return (0..<count).map { float(bits16(2 * $0), exponentBits: 5) }
        default:
            return (0..<matrix.rows).flatMap { row in
                var values = [Float](repeating: .nan, count: matrix.columns)
                sigma_dequantize_row(
                    Int32(matrix.type.rawValue), matrix.data(row: row / 16 * 16), Int32(row % 16), matrix.columns,
                    &values)
                return values.map(Double.init)
            }
        }
    }

    /// Whether no weight is farther off than a share of the largest of its 32 neighbours: the right rows in the right places. How
    /// good the quantizers are, `QuantizerTests` says.
    private func isNear(_ found: [Double], _ exact: [Double], share: Double) -> Bool {
        found.count == exact.count
            && stride(from: 0, to: exact.count, by: 32).allSatisfy { first in
                let largest = exact[first..<first + 32].map(\.magnitude).max()!
                return (first..<first + 32).allSatisfy { abs(found[$0] - exact[$0]) <= share * largest }
            }
    }

    private static func share(_ type: WeightType) -> Double {
        switch type {
        case .q8_0: 0.0081
        case .q6_k: 0.05
        case .q5_k: 0.1
        case .q3_k: 0.4
        default: 0.2
        }
    }

    @Test(
        arguments: ["sigma-top1", "sigma-f16", "sigma-f32", "sigma-odd-sizes", "qwen3moe-mixed-layers"],
        WeightType.allCases.filter(\.isTarget))
    func weightsAreTheCheckpoints(_ fixture: String, _ type: WeightType) throws {
        let scratch = try scratch(fixture)
        let model = try ModelFile(path: scratch.convert(type: type, outputType: type).path)
        let checkpoint = try Checkpoint(folder: scratch.path)
        func check(_ matrix: WeightMatrix, _ name: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
            let source = try #require(checkpoint.tensor(name))
            let float: WeightType = source.type == .f32 ? .f32 : .bf16
            let types = [type, .q8_0, float].filter { matrix.columns % $0.blockLength == 0 }
            #expect(matrix.type == types[0], sourceLocation: sourceLocation)
            let (found, exact) = (values(matrix), values(source))
            if matrix.type.isQuantized {
                #expect(
                    isNear(found, exact, share: Self.share(matrix.type)),
                    "\(name)", sourceLocation: sourceLocation)
            } else {
                #expect(
                    found == expected(exact, columns: matrix.columns, matrix.type), "\(name)",
                    sourceLocation: sourceLocation)
            }
        }
        try check(model.weights.embedding, "model.embed_tokens.weight")
        try check(model.weights.head, "lm_head.weight")
        for (i, layer) in model.weights.layers.enumerated() {
            let prefix = "model.layers.\(i)."
            try check(layer.query, prefix + "self_attn.q_proj.weight")
            try check(layer.key, prefix + "self_attn.k_proj.weight")
            try check(layer.value, prefix + "self_attn.v_proj.weight")
            try check(layer.output, prefix + "self_attn.o_proj.weight")
            let norm = try #require(checkpoint.tensor(prefix + "input_layernorm.weight"))
            #expect(layer.attentionNorm.values.map { Double($0) } == values(norm))
            switch layer.feedForward {
            case .dense(let mlp):
                try check(mlp.gate, prefix + "mlp.gate_proj.weight")
                try check(mlp.up, prefix + "mlp.up_proj.weight")
                try check(mlp.down, prefix + "mlp.down_proj.weight")
            case .mixture(let router, let bias, let experts, _):
                let source = try #require(checkpoint.tensor(prefix + "mlp.gate.weight"))
                #expect(router.type == source.type)
                #expect(values(router) == values(source))
                if let bias, let source = checkpoint.tensor(prefix + "mlp.gate.e_score_correction_bias") {
                    #expect(bias.values.map { Double($0) } == values(source))
                }
                for e in 0..<experts.count {
                    try check(experts.gate(e), prefix + "mlp.experts.\(e).gate_proj.weight")
                    try check(experts.up(e), prefix + "mlp.experts.\(e).up_proj.weight")
                    try check(experts.down(e), prefix + "mlp.experts.\(e).down_proj.weight")
                }
            }
        }
    }

    @Test func configurationReadsBack() throws {
        for fixture in [
            "sigma-shared-experts", "sigma-dense-layers", "sigma-tied", "sigma-rope-yarn-override", "qwen3moe",
        ] {
            let scratch = try scratch(fixture)
            let overrides = fixture.contains("override") ? ["rope_scaling=on"] : []
            let model = try ModelFile(path: scratch.convert(overrides: overrides).path)
            #expect(try model.configuration == scratch.configuration(overrides).model)
        }
    }

    @Test func everyBfloatAndHalfRoundTrips() {
        for bits in UInt16.min...UInt16.max {
            let wide = FloatBits.float(bf16: bits)
            if !wide.isNaN { #expect(FloatBits.bf16(wide) == bits) }
            let half = FloatBits.float(f16: bits)
            if !half.isNaN {
                #expect(FloatBits.f16(half) == bits)
                if half.isFinite { #expect(Double(half) == float(bits, exponentBits: 5)) }
            }
        }
        #expect(FloatBits.f16(65519.996) == 0x7bff)
        #expect(FloatBits.f16(65520) == 0x7c00)
        #expect(FloatBits.f16(0x1p-25) == 0)
        #expect(FloatBits.f16(0x1.000002p-25) == 1)
        #expect(FloatBits.bf16(.nan) & 0x7fff > 0x7f80)
        #expect(FloatBits.f16(-.infinity) == 0xfc00)
    }

    @Test func threadsDoNotMatter() throws {
        let scratch = try scratch("sigma-topk-per-layer")
        try scratch.convert(to: "one.gguf", threads: 1)
        try scratch.convert(to: "many.gguf", threads: 7)
        #expect(try scratch.read("one.gguf") == scratch.read("many.gguf"))
    }

    @Test func outputType() throws {
        let untied = try scratch("sigma-top1")
        let model = try ModelFile(path: untied.convert(type: .q8_0, outputType: .f16).path)
        #expect(model.weights.head.type == .f16)
        #expect(model.weights.embedding.type == .q8_0)
        let tied = try scratch("sigma-tied")
        let tiedModel = try ModelFile(path: tied.convert(type: .q8_0, outputType: .f16).path)
        #expect(tiedModel.weights.embedding.type == .f16)
        #expect(tiedModel.weights.head.data == tiedModel.weights.embedding.data)
    }

    @Test func fallbacksAreToldOnce() throws {
        let warnings = try scratch("sigma-odd-sizes").convert(type: .q8_0).warnings
        #expect(warnings.filter { $0.contains("blocks") }.count == 1)
        #expect(try scratch("sigma-odd-sizes").convert(type: .bf16).warnings.filter { $0.contains("blocks") }.isEmpty)
    }

    // MARK: refusals

    private typealias Tensors = [(name: String, shape: [Int], values: [Float])]

    /// Rewrites the checkpoint's tensors as fp32, changed.
    private func replaceTensors(_ scratch: Scratch, _ change: (Tensors) -> Tensors) throws {
        let checkpoint = try Checkpoint(folder: scratch.path)
        let tensors = checkpoint.names.map { name in
            let tensor = checkpoint.tensor(name)!
            return (name: name, shape: tensor.shape, values: values(tensor).map { Float($0) })
        }
        try scratch.write("model.safetensors", safetensors(change(tensors)))
    }

    private func expectRefused(
        _ item: String, _ message: String, type: WeightType = .q8_0,
        sourceLocation: SourceLocation = #_sourceLocation,
        _ change: (Tensors) -> Tensors
    ) throws {
        let scratch = try scratch("sigma-top1")
        try replaceTensors(scratch, change)
        let before = scratch.files
        let error = sigmaError { try scratch.convert(type: type) }
        #expect(error?.kind == .damaged, sourceLocation: sourceLocation)
        #expect(error?.item == item, sourceLocation: sourceLocation)
        #expect(
            error?.message.contains(message) == true, "\(error?.description ?? "no error")",
            sourceLocation: sourceLocation)
        #expect(scratch.files == before, "something was left behind", sourceLocation: sourceLocation)
    }

    @Test func missingTensor() throws {
        try expectRefused("model.layers.1.mlp.experts.2.up_proj.weight", "missing") { tensors in
            tensors.filter { $0.name != "model.layers.1.mlp.experts.2.up_proj.weight" }
        }
    }
    @Test func missingQueryNorm() throws {
        try expectRefused("model.layers.0.self_attn.q_layernorm.weight", "missing") { tensors in
            tensors.filter { $0.name != "model.layers.0.self_attn.q_layernorm.weight" }
        }
    }
    @Test func wrongShape() throws {
        try expectRefused("model.norm.weight", "shape") { tensors in
            tensors.map { $0.name == "model.norm.weight" ? ($0.name, [16], Array($0.values[..<16])) : $0 }
        }
    }
    @Test func unknownTensor() throws {
        let extra = (name: "model.layers.0.mlp.secret.weight", shape: [1], values: [Float(1)])
        try expectRefused(extra.name, "no place") { $0 + [extra] }
        let scratch = try scratch("sigma-top1")
        try replaceTensors(scratch) {
            $0 + [extra, (name: "model.layers.0.self_attn.rotary_emb.inv_freq", shape: [1], values: [1])]
        }
        let warnings = try scratch.convert(overrides: ["unknown_tensors=ignore"]).warnings
        #expect(warnings.contains { $0.contains("secret") })
        #expect(!warnings.contains { $0.contains("inv_freq") })
    }
    @Test(arguments: [Float.nan, .infinity, -.infinity], [WeightType.f32, .f16, .bf16, .q8_0]) func notFinite(
        _ value: Float, _ type: WeightType
    ) throws {
        let name = "model.layers.0.mlp.experts.3.down_proj.weight"
        try expectRefused(name, "finite", type: type) { tensors in
            tensors.map { tensor in
                var tensor = tensor
                if tensor.name == name { tensor.values[40] = value }
                return tensor
            }
        }
    }
    @Test func tooLargeForHalves() throws {
        try expectRefused("lm_head.weight", "too large for f16", type: .f16) { tensors in
            tensors.map { tensor in
                var tensor = tensor
                if tensor.name == "lm_head.weight" { tensor.values[5] = 70_000 }
                return tensor
            }
        }
    }

    // MARK: whole or not at all

    @Test func anExistingOutputIsReplaced() throws {
        let scratch = try scratch("sigma-top1")
        try scratch.write("out.gguf", "old")
        try scratch.convert()
        _ = try ModelFile(path: scratch / "out.gguf")
        #expect(scratch.files == ["config.json", "model.safetensors", "out.gguf"])
    }

    @Test func aFailureLeavesTheOldOutput() throws {
        let scratch = try scratch("sigma-top1")
        try scratch.write("out.gguf", "old")
        let error = sigmaError { try scratch.convert(isCancelled: { true }) }
        #expect(error?.kind == .interrupted)
        #expect(try scratch.read("out.gguf") == Array("old".utf8))
        #expect(scratch.files == ["config.json", "model.safetensors", "out.gguf"])
    }

    @Test func interruptedAtTheLastMoment() throws {
        let scratch = try scratch("sigma-top1")
        var calls = 0
        let error = sigmaError {
            try scratch.convert(isCancelled: {
                calls += 1
                return calls > 1
            })
        }
        #expect(error?.kind == .interrupted)
        #expect(scratch.files == ["config.json", "model.safetensors"])
    }

    @Test func inputsAreNotOverwritten() throws {
        let scratch = try scratch("sigma-top1")
        for name in ["model.safetensors", "config.json"] {
            let before = try scratch.read(name)
            #expect(sigmaError { try scratch.convert(to: name) }?.kind == .usage)
            #expect(try scratch.read(name) == before)
        }
        try FileManager.default.createSymbolicLink(
            atPath: scratch / "link.gguf", withDestinationPath: scratch / "model.safetensors")
        #expect(sigmaError { try scratch.convert(to: "link.gguf") }?.kind == .usage)
    }

    @Test func outputsThatCannotBe() throws {
        let scratch = try scratch("sigma-top1")
        try FileManager.default.createDirectory(atPath: scratch / "folder", withIntermediateDirectories: false)
        #expect(sigmaError { try scratch.convert(to: "folder") }?.kind == .usage)
        #expect(sigmaError { try scratch.convert(to: "nothing/out.gguf") }?.kind == .noInput)
        let device = sigmaError {
            try Converter.convert(
                Converter.Options(input: scratch.path, output: "/dev/null", overrides: try Overrides()))
        }
        #expect(device?.kind == .usage)
    }

    @Test func sourceNames() throws {
        let scratch = try scratch("sigma-top1")
        try scratch.changeConfig(["_name_or_path": "\"owner/Model-X\""])
        #expect(try ModelFile(path: scratch.convert().path).name == "Model-X")
        #expect(try ModelFile(path: scratch.convert(overrides: ["name=Other"]).path).name == "Other")
    }
}
