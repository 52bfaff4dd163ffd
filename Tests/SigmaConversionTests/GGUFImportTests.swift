import SampleFiles
import Sigma
import SigmaConversion
import Testing

/// Plain GGUF files to native ones and back: the same blocks, the same rules, and clear answers to files that are something else.
@Suite struct GGUFImportTests {
    let scratch: Scratch
    init() throws { scratch = try Scratch() }

    /// As files of several types have it: K-quants of two widths, a float router.
    private static func mixed(_ name: String) -> WeightType {
        if name == "output.weight" || name == "blk.0.ffn_down_exps.weight" || name == "blk.1.attn_v.weight" {
            return .q6_k
        }
        return name == "token_embd.weight" ? .q8_0 : .q4_k
    }

    @discardableResult
    func convert(
        _ input: String, to output: String, form: Converter.Options.Form = .native, type: WeightType? = nil,
        outputType: WeightType? = nil, overrides: [String] = []
    ) throws -> (summary: Converter.Summary, warnings: [String]) {
        var warnings: [String] = []
        let summary = try Converter.convert(
            Converter.Options(
                input: scratch / input, output: scratch / output, form: form, type: type, outputType: outputType,
                overrides: Overrides(overrides), threads: 2), warn: { warnings.append($0) })
        return (summary, warnings)
    }

    /// The native file that `model` becomes.
    func imported(_ model: PlainModel, overrides: [String] = []) throws -> ModelFile {
        try scratch.write("source.gguf", model.bytes)
        try convert("source.gguf", to: "native.gguf", overrides: overrides)
        return try ModelFile(path: scratch / "native.gguf")
    }

    func tensors(_ name: String) throws -> [String: (type: GGMLType, dimensions: [Int], bytes: [UInt8])] {
        let file = try GGUFFile(path: scratch / name)
        return Dictionary(
            uniqueKeysWithValues: file.tensors.map { ($0.name, ($0.type, $0.dimensions, Array(file.bytes($0)))) })
    }

    // MARK: the same blocks

    @Test(arguments: WeightType.allCases) func importAndExportKeepEveryByte(_ type: WeightType) throws {
        try check(PlainModel(seed: UInt64(type.rawValue)) { _ in type })
    }

    @Test func mixedTypesKeepEveryByte() throws {
        let model = PlainModel(type: Self.mixed)
        try check(model)
        let native = try ModelFile(path: scratch / "native.gguf")
        guard case .mixture(_, _, let experts, _) = native.weights.layers[0].feedForward else {
            Issue.record("no experts")
            return
        }
        #expect(experts.layout.gateType == .q4_k && experts.layout.downType == .q6_k)
        #expect(native.weights.head.type == .q6_k && native.weights.embedding.type == .q8_0)
    }

    @Test func tiedEmbeddingsStayTied() throws {
        try check(PlainModel(hasHead: false) { _ in .q8_0 })
        #expect(try ModelFile(path: scratch / "native.gguf").configuration.tiedEmbeddings)
    }

    private func check(_ model: PlainModel) throws {
        let native = try imported(model)
        try native.verify()
        let c = native.configuration
        #expect(c.scoring == .softmax && c.weightNormalization == .always && c.routedScalingFactor == 1)
        #expect(c.expertsPerToken == [1, 1] && c.headDim == 64 && c.kvHeadCount == 2 && c.ropeTheta == 1e6)
        #expect(c.ropeScaling == .none && c.vocabularySize == PlainModel.vocabularySize)
        let summary = try convert("native.gguf", to: "plain.gguf", form: .plainGGUF).summary
        #expect(summary.architecture == "qwen3moe" && summary.obstacle == nil)
        let after = try tensors("plain.gguf")
        #expect(after.count == model.tensors.count)
        for tensor in model.tensors {
            let other = try #require(after[tensor.name], "\(tensor.name)")
            #expect(other.type == tensor.type && other.dimensions == tensor.dimensions, "\(tensor.name)")
            #expect(other.bytes == tensor.bytes, "\(tensor.name)")
        }
        // What was exported is a source again.
        try convert("plain.gguf", to: "again.gguf")
        #expect(try scratch.read("again.gguf") == scratch.read("native.gguf"))
    }

    /// Any other model keeps our architecture, and comes back as it was.
    @Test(
        arguments: [
            ("sigma-shared-experts", "shared experts"), ("sigma-dense-layers", "dense layers"),
            ("sigma-tied", "sigmoid"),
            ("sigma-topk-per-layer", "different numbers"), ("sigma-attention-bias", "sigmoid"),
            ("sigma-no-qk-norm", "sigmoid"), ("sigma-softmax", "exp_probs_b.bias"), ("sigma-scaled", "sigmoid"),
            ("sigma-odd-sizes", "sigmoid"), ("qwen3moe-mixed-layers", "dense layers"),
        ]) func otherModelsKeepTheirArchitecture(_ fixture: String, _ reason: String) throws
    {
        let checkpoint = try Scratch()
        try checkpoint.copyFixture(fixture)
        let native = try checkpoint.convert(type: .q8_0).path
        func path(_ name: String) -> String { checkpoint / name }
        func run(_ input: String, _ output: String, _ form: Converter.Options.Form) throws -> Converter.Summary {
            try Converter.convert(
                Converter.Options(input: input, output: path(output), form: form, overrides: Overrides()))
        }
        let summary = try run(native, "plain.gguf", .plainGGUF)
        #expect(summary.architecture == "sigma")
        #expect(summary.obstacle?.contains(reason) == true, "\(summary.obstacle ?? "none")")
        _ = try run(path("plain.gguf"), "again.gguf", .native)
        #expect(try checkpoint.read("again.gguf") == checkpoint.read("out.gguf"))
        // The checkpoint itself can be exported, too.
        try Converter.convert(
            Converter.Options(
                input: checkpoint.path, output: path("direct.gguf"), form: .plainGGUF, type: .q8_0,
                overrides: Overrides()))
        #expect(try checkpoint.read("direct.gguf") == checkpoint.read("plain.gguf"))
        let error = sigmaError { _ = try ModelFile(path: path("plain.gguf")) }
        #expect(error?.kind == .damaged && error?.remedy?.description.contains("sigma-convert") == true)
    }

    // MARK: types

    @Test func quantizedWeightsStay() throws {
        var model = PlainModel(type: { $0.hasPrefix("blk.0") ? .f32 : Self.mixed($0) })
        model.set("general.name", "some")
        try scratch.write("source.gguf", model.bytes)
        let warnings = try convert("source.gguf", to: "native.gguf", type: .f16).warnings
        let native = try ModelFile(path: scratch / "native.gguf")
        #expect(native.name == "some")
        #expect(native.weights.layers[0].query.type == .f16)
        #expect(native.weights.layers[1].query.type == .q4_k)
        let told = warnings.filter { $0.contains("stay") }
        #expect(told.count == 1 && told[0].contains("q4_k, q6_k, q8_0"))
        // Without a type nothing is changed and nothing is to be told.
        #expect(try convert("source.gguf", to: "native.gguf").warnings.isEmpty)
        #expect(try ModelFile(path: scratch / "native.gguf").weights.layers[0].query.type == .f32)
    }

    @Test func otherTypesAreRefused() throws {
        let iq3s = try #require(GGMLType.number(21))
        var model = PlainModel { _ in .q4_k }
        model.change("blk.1.ffn_up_exps.weight") {
            $0.type = iq3s
            $0.bytes = [UInt8](repeating: 0, count: $0.bytes.count / 144 * 110)
        }
        try expectRefused(model, "blk.1.ffn_up_exps.weight", "IQ3_S")
        try expectRefused(model, "blk.1.ffn_up_exps.weight", "Q4_K")
        var router = PlainModel { _ in .f16 }
        router.change("blk.0.ffn_gate_inp.weight") {
            $0.type = WeightType.q8_0.ggml
            $0.bytes = [UInt8](repeating: 0, count: $0.bytes.count / 128 * 34)
        }
        try expectRefused(router, "blk.0.ffn_gate_inp.weight", "F32")
    }

    @Test(arguments: [
        (WeightType.q8_0, 0), (.q4_0, 0), (.q4_k, 0), (.q4_k, 2), (.q6_k, 208), (.q4_1, 2), (.q5_0, 0), (.q5_1, 2),
        (.q2_k, 80), (.q2_k, 82), (.q3_k, 108), (.q5_k, 2), (.iq4_nl, 0), (.iq4_xs, 0),
    ])
    func scalesMustBeFinite(_ type: WeightType, _ offset: Int) throws {
        var model = PlainModel { _ in type }
        let row = 300
        model.change("blk.0.ffn_down_exps.weight") {
            let start = row * type.rowBytes(256) + offset
            $0.bytes[start...start + 1] = [0x00, 0xfc]
        }
        try expectRefused(model, "blk.0.ffn_down_exps.weight", "found -inf in row 44, columns from 0")
    }

    // MARK: metadata

    @Test func numbersPerLayer() throws {
        var model = PlainModel { _ in .q4_0 }
        model.set(".expert_used_count", [UInt32(1), 2])
        model.set(".attention.head_count_kv", [UInt32(2), 2])
        #expect(try imported(model).configuration.expertsPerToken == [1, 2])
        model.set(".attention.head_count_kv", [UInt32(2), 1])
        try expectRefused(model, "qwen3moe.attention.head_count_kv", "same number")
        model.set(".attention.head_count_kv", [UInt32(2)])
        try expectRefused(model, "qwen3moe.attention.head_count_kv", "2 entries")
    }

    @Test func defaults() throws {
        var model = PlainModel { _ in .q4_0 }
        for key in [
            ".attention.key_length", ".attention.value_length", ".rope.freq_base", ".expert_feed_forward_length",
        ] {
            model.remove(key)
        }
        model.set(".feed_forward_length", UInt32(256))
        let c = try imported(model).configuration
        #expect(c.headDim == 64 && c.ropeTheta == 10_000 && c.expertIntermediateSize == 256)
    }

    @Test func ropeScaling() throws {
        var model = PlainModel { _ in .q4_0 }
        model.set(".rope.scaling.factor", Float(4))
        #expect(try imported(model).configuration.ropeScaling == .linear(factor: 4))
        model.set(".rope.scaling.type", "yarn")
        model.set(".rope.scaling.original_context_length", UInt32(1024))
        let usual = ModelConfiguration.RopeScaling.yarn(
            factor: 4, originalContext: 1024, betaFast: 32, betaSlow: 1, attentionFactor: nil, truncate: true)
        #expect(try imported(model).configuration.ropeScaling == usual)
        #expect(try exported().configuration.ropeScaling == usual)
        model.set(".rope.scaling.attn_factor", Float(0.5))
        model.set(".rope.scaling.yarn_beta_fast", Float(16))
        guard case .yarn(_, _, let fast, _, let attention?, _) = try imported(model).configuration.ropeScaling else {
            Issue.record("no yarn")
            return
        }
        // There it is multiplied with 0.1 ln(factor) + 1.
        #expect(fast == 16 && abs(attention - 0.5 * 1.138629) < 1e-6)
        guard case .yarn(_, _, _, _, let again?, _) = try exported().configuration.ropeScaling else {
            Issue.record("no yarn after the export")
            return
        }
        #expect(abs(again - attention) < 1e-6)
        model.set(".rope.scaling.yarn_log_multiplier", Float(0.1))
        try expectRefused(model, "qwen3moe.rope.scaling.yarn_log_multiplier", "expected 0")
        model.set(".rope.scaling.type", "longrope")
        try expectRefused(model, "qwen3moe.rope.scaling.type", "longrope")
    }

    /// `native.gguf`, exported and imported.
    private func exported() throws -> ModelFile {
        try convert("native.gguf", to: "plain.gguf", form: .plainGGUF)
        try convert("plain.gguf", to: "again.gguf")
        return try ModelFile(path: scratch / "again.gguf")
    }

    @Test func rulesThatLlamaDoesNotCompute() throws {
        var model = PlainModel { _ in .q4_0 }
        model.set(".expert_gating_func", UInt32(1))
        model.set(".expert_weights_norm", true)
        model.set(".expert_weights_scale", Float(2.5))
        model.set(".attention.sliding_window", UInt32(128))
        try scratch.write("source.gguf", model.bytes)
        let warnings = try convert("source.gguf", to: "native.gguf").warnings
        #expect(warnings.contains { $0.contains("qwen3moe.attention.sliding_window") })
        #expect(try ModelFile(path: scratch / "native.gguf").configuration.routedScalingFactor == 2.5)
        model.set(".expert_gating_func", UInt32(2))
        try expectRefused(model, "qwen3moe.expert_gating_func", "softmax")
        model.remove(".expert_gating_func")
        model.set(".expert_weights_norm", false)
        try expectRefused(model, "qwen3moe.expert_weights_norm", "true")
    }

    @Test func aSigmaModelByLlamasKeys() throws {
        var model = PlainModel { _ in .q8_0 }
        model.architecture = "sigma"
        let plain = try imported(model).configuration
        #expect(plain.scoring == .sigmoid && plain.weightNormalization == .never && plain.qkNorm)
        model.set(".expert_weights_norm", true)
        model.set(".expert_gating_func", UInt32(1))
        let softmax = try imported(model).configuration
        #expect(softmax.scoring == .softmax && softmax.weightNormalization == .whenSeveral)
        model.set(".expert_used_count_per_layer", [UInt32(2), 1])
        #expect(try imported(model).configuration.expertsPerToken == [2, 1])
        for norm in ["attn_q_norm", "attn_k_norm"] {
            for layer in 0...1 { model.remove("blk.\(layer).\(norm).weight") }
        }
        #expect(try !imported(model).configuration.qkNorm)
    }
}
