import Sigma
import SigmaConversion
import Testing

/// The open points of a checkpoint's config: defaults, overrides, refusals, warnings.
@Suite struct CheckpointConfigurationTests {
    private func read(
        _ fixture: String, _ changes: [String: String?] = [:], _ overrides: [String] = []
    ) throws -> CheckpointConfiguration {
        let scratch = try Scratch()
        try scratch.copyFixture(fixture)
        if !changes.isEmpty { try scratch.changeConfig(changes) }
        return try scratch.configuration(overrides)
    }

    private func expectRefused(
        _ fixture: String, _ changes: [String: String?] = [:], item: String?, _ overrides: [String] = [],
        kind: SigmaError.Kind = .damaged, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let error = sigmaError { _ = try read(fixture, changes, overrides) }
        #expect(error?.kind == kind, "\(error?.description ?? "no error")", sourceLocation: sourceLocation)
        #expect(error?.item == item, "\(error?.description ?? "no error")", sourceLocation: sourceLocation)
    }

    @Test func sigma() throws {
        let read = try read("sigma-top1")
        #expect(read.family.modelType == "sigma")
        #expect(read.warnings.isEmpty)
        let c = read.model
        #expect(c.vocabularySize == 96)
        #expect([c.hiddenSize, c.layerCount, c.headCount, c.kvHeadCount, c.headDim] == [32, 2, 4, 2, 32])
        #expect([c.expertCount, c.expertIntermediateSize, c.sharedExpertCount] == [4, 32, 0])
        #expect(c.expertsPerToken == [1, 1])
        #expect(c.scoring == .sigmoid)
        #expect(c.weightNormalization == .whenSeveral)
        #expect(c.qkNorm)
        #expect(c.ropeTheta == 1_000_000)
        #expect(c.ropeScaling == .none)
        #expect(!c.tiedEmbeddings)
    }

    @Test func variants() throws {
        #expect(try read("sigma-topk-unnormalised").model.weightNormalization == .never)
        #expect(try read("sigma-softmax").model.scoring == .softmax)
        #expect(try read("sigma-scaled").model.routedScalingFactor == 2.5)
        #expect(try read("sigma-shared-experts").model.sharedExpertCount == 2)
        #expect(try read("sigma-no-qk-norm").model.qkNorm == false)
        #expect(try read("sigma-tied").model.tiedEmbeddings)
        #expect(try read("sigma-odd-sizes").model.rmsNormEpsilon == 1e-5)
        let dense = try read("sigma-dense-layers").model
        #expect(dense.expertsPerToken == [0, 2])
        #expect(dense.denseIntermediateSize == 64)
    }

    @Test func expertsPerLayer() throws {
        #expect(try read("sigma-topk-per-layer").model.expertsPerToken == [3, 2, 1])
        let key = "num_experts_per_tok_layer_wise"
        #expect(try read("sigma-topk-per-layer", [key: "[]"]).model.expertsPerToken == [1, 1, 1])
        let long = try read("sigma-topk-per-layer", [key: "[1,2,3,4,4]"])
        #expect(long.model.expertsPerToken == [1, 2, 3])
        #expect(long.warnings.contains { $0.contains(key) })
        expectRefused("sigma-topk-per-layer", [key: "[5]"], item: key)
        expectRefused("sigma-topk-per-layer", [key: "[0]"], item: key)
        expectRefused("sigma-topk-per-layer", [key: "[1.5]"], item: key)
        // The entry of a dense layer doesn't count.
        #expect(try read("sigma-dense-layers", [key: "[0,3]"]).model.expertsPerToken == [0, 3])
        expectRefused("sigma-top1", ["num_experts_per_tok": "5"], item: "num_experts_per_tok")
        expectRefused("sigma-top1", ["num_experts_per_tok": "0"], item: "num_experts_per_tok")
        expectRefused("sigma-top1", ["first_k_dense_replace": "3"], item: "first_k_dense_replace")
    }

    @Test func qwen() throws {
        let plain = try read("qwen3moe")
        #expect(plain.family.modelType == "qwen3_moe")
        #expect(plain.model.scoring == .softmax)
        #expect(plain.model.weightNormalization == .always)
        #expect(plain.model.qkNorm)
        #expect(try read("qwen3moe", ["norm_topk_prob": "false"]).model.weightNormalization == .never)
        let mixed = try read("qwen3moe-mixed-layers")
        #expect(mixed.model.expertsPerToken == [0, 1, 0, 0])
        #expect(mixed.model.ropeTheta == 1_000_000)
        #expect(mixed.model.expertCount == 4)
    }

    @Test func slidingWindow() throws {
        #expect(try read("sigma-top1", ["sliding_window": "512"]).warnings.contains { $0.contains("sliding_window") })
        expectRefused("qwen3moe", ["use_sliding_window": "true"], item: "use_sliding_window")
        _ = try read("qwen3moe", ["use_sliding_window": "true"], ["use_sliding_window=false"])
    }

    @Test func ropeScaling() throws {
        let yarn = #"{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":32}"#
        let expected = ModelConfiguration.RopeScaling.yarn(
            factor: 4, originalContext: 32, betaFast: 32, betaSlow: 1, attentionFactor: nil, truncate: true)
        let ignored = try read("sigma-top1", ["rope_scaling": yarn])
        #expect(ignored.model.ropeScaling == .none)
        #expect(ignored.warnings.filter { $0.contains("rope_scaling") }.count == 1)
        #expect(try read("sigma-top1", ["rope_scaling": yarn], ["rope_scaling=on"]).model.ropeScaling == expected)
        #expect(try read("sigma-top1", ["rope_scaling": yarn], ["rope_scaling=off"]).warnings.isEmpty)
        #expect(try read("sigma-top1", [:], ["rope_scaling=\(yarn)"]).model.ropeScaling == expected)

        #expect(try read("qwen3moe", ["rope_scaling": yarn]).model.ropeScaling == expected)
        #expect(
            try read("qwen3moe", ["rope_scaling": #"{"type":"linear","factor":2}"#]).model.ropeScaling
                == .linear(factor: 2))
        #expect(try read("qwen3moe", ["rope_scaling": #"{"rope_type":"default"}"#]).model.ropeScaling == .none)
        let newer = try read(
            "qwen3moe-mixed-layers", ["rope_parameters": #"{"rope_theta":5e5,"rope_type":"linear","factor":8}"#])
        #expect(newer.model.ropeScaling == .linear(factor: 8))
        #expect(newer.model.ropeTheta == 500_000)
        expectRefused(
            "qwen3moe", ["rope_scaling": #"{"rope_type":"llama3","factor":8}"#], item: "rope_scaling.low_freq_factor")
        expectRefused("qwen3moe", ["rope_scaling": #"{"rope_type":"yarn"}"#], item: "rope_scaling.factor")
        expectRefused("qwen3moe", ["rope_scaling": "7"], item: "rope_scaling")

        // The factor on the scores of DeepSeek's yarn: (0.1 ln 40 + 1) / (0.05 ln 40 + 1) = 1.3688879 / 1.184444.
        let mscale = #"{"rope_type":"yarn","factor":40,"mscale":1,"mscale_all_dim":0.5,"truncate":false}"#
        let scaling = try read("qwen3moe", ["rope_scaling": mscale]).model.ropeScaling
        guard case .yarn(_, let original, _, _, let attention?, let truncate) = scaling else {
            Issue.record("no yarn with a factor: \(scaling)")
            return
        }
        #expect(abs(attention - 1.368_888 / 1.184_444) < 1e-5)
        #expect(original == 4096)
        #expect(!truncate)
    }

    /// Newer configs may have settings for each type of attention: full attention's are the model's.
    @Test func ropeByTypeOfAttention() throws {
        let none: [String: String?] = ["rope_theta": nil, "rope_scaling": nil]
        func nested(_ text: String) -> [String: String?] { none.merging(["rope_parameters": text]) { $1 } }
        let plain = try read("qwen3moe", nested(#"{"full_attention":{"rope_type":"default","rope_theta":5e5}}"#))
        #expect(plain.model.ropeTheta == 500_000 && plain.model.ropeScaling == .none && plain.warnings.isEmpty)
        let two =
            #"{"sliding_attention":{"rope_type":"default","rope_theta":1e4},"full_attention":{"rope_type":"linear","factor":8,"rope_theta":2e6}}"#
        #expect(try read("qwen3moe", nested(two)).model.ropeScaling == .linear(factor: 8))
        #expect(try read("qwen3moe", nested(two)).model.ropeTheta == 2_000_000)
        let off = try read("qwen3moe", nested(two), ["rope_scaling=off"])
        #expect(off.model.ropeScaling == .none && off.model.ropeTheta == 2_000_000)
        let outside = #"{"rope_theta":7e5,"full_attention":{"rope_type":"default"}}"#
        #expect(try read("qwen3moe", nested(outside)).model.ropeTheta == 700_000)
        expectRefused("qwen3moe", nested(#"{"sliding_attention":{"rope_theta":1e4}}"#), item: "rope_parameters")
        expectRefused(
            "qwen3moe", nested(#"{"full_attention":{"rope_theta":"1e4"}}"#),
            item: "rope_parameters.full_attention.rope_theta")
        #expect(try read("qwen3moe", none).warnings.contains { $0.contains("rope_theta is missing") })
    }

    /// What we don't compute is refused, and what we don't know too.
    @Test(arguments: [
        (#"{"rope_type":"llama3","factor":8,"low_freq_factor":1}"#, "rope_scaling.high_freq_factor"),
        (#"{"rope_type":"longrope","factor":8}"#, "rope_scaling"), (#"{"type":"dynamic","factor":8}"#, "rope_scaling"),
        (#"{"type":"mrope","mrope_section":[1,2]}"#, "rope_scaling"), (#"{"type":7}"#, "rope_scaling.type"),
        (#"{"rope_type":"default","mrope_section":[1,2]}"#, "rope_scaling.mrope_section"),
        (#"{"rope_type":"yarn","factor":2,"beta_slow":"1"}"#, "rope_scaling.beta_slow"),
        (#"{"rope_type":"yarn","factor":2,"truncate":1}"#, "rope_scaling.truncate"),
    ]) func otherRopeScaling(_ text: String, _ item: String) throws {
        expectRefused("qwen3moe", ["rope_scaling": text], item: item)
        #expect(try read("qwen3moe", ["rope_scaling": text], ["rope_scaling=off"]).model.ropeScaling == .none)
    }

    @Test func partialRotationInASection() throws {
        let text = #"{"rope_type":"linear","factor":2,"partial_rotary_factor":0.5}"#
        for overrides in [[], ["rope_scaling=off"]] {
            expectRefused(
                "qwen3moe", ["rope_scaling": text], item: "rope_scaling.partial_rotary_factor", overrides)
        }
        expectRefused("sigma-top1", ["rope_parameters": text], item: "rope_parameters.partial_rotary_factor")
    }

    /// The limit that yarn makes, not the one that was there before.
    @Test func contextOfYarn() throws {
        let yarn = #"{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":32768}"#
        let before = ["rope_scaling": yarn, "max_position_embeddings": "40960"]
        let model = try read("qwen3moe", before)
        #expect(model.model.contextLength == 131_072)
        #expect(model.warnings.count(where: { $0.contains("131072") && $0.contains("40960") }) == 1)
        #expect(try read("qwen3moe", ["rope_scaling": yarn, "max_position_embeddings": "131072"]).warnings.isEmpty)
        #expect(try read("qwen3moe", before, ["max_position_embeddings=50000"]).model.contextLength == 50_000)
        #expect(try read("qwen3moe", before, ["rope_scaling=off"]).model.contextLength == 40_960)
        // Without an original length the stated one is scaled, and that is said.
        let bare = try read("qwen3moe", ["rope_scaling": #"{"rope_type":"yarn","factor":1.5}"#])
        #expect(bare.model.contextLength == 6144)
        #expect(bare.warnings.contains { $0.contains("original_max_position_embeddings is missing") })
        // An override is a limit, and leaves what is computed as it is.
        for scaling in [
            #"{"rope_type":"yarn","factor":1.5}"#,
            #"{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4}"#,
        ] {
            let limited = try read("qwen3moe", ["rope_scaling": scaling], ["max_position_embeddings=8192"]).model
            #expect(limited.contextLength == 8192)
            #expect(limited.ropeScaling == (try read("qwen3moe", ["rope_scaling": scaling]).model.ropeScaling))
        }
        // A Sigma model whose scaling is ignored keeps what it states.
        #expect(try read("sigma-top1", ["rope_scaling": yarn]).model.contextLength == 4096)
        expectRefused(
            "qwen3moe",
            ["rope_scaling": #"{"rope_type":"yarn","factor":1e30,"original_max_position_embeddings":32768}"#],
            item: nil)
    }

    /// The flag decides; a head that contradicts it is told.
    @Test func tieBesideAHead() throws {
        let flag = ["tie_word_embeddings": "true"]
        let different = try read("sigma-top1", flag)
        #expect(different.model.tiedEmbeddings)
        #expect(different.warnings.count(where: { $0.contains("tie_word_embeddings=false") }) == 1)
        #expect(try !read("sigma-top1", flag, ["tie_word_embeddings=false"]).model.tiedEmbeddings)
        #expect(try read("sigma-tied").warnings.isEmpty)
        // A head that is the embedding again contradicts nothing.
        let scratch = try Scratch()
        try scratch.copyFixture("sigma-top1")
        try scratch.changeConfig(flag)
        var bytes = try scratch.read("model.safetensors")
        let file = try SafetensorsFile(path: scratch / "model.safetensors")
        let embedding = try #require(file.tensors.first { $0.name == "model.embed_tokens.weight" })
        let head = try #require(file.tensors.first { $0.name == "lm_head.weight" })
        bytes.replaceSubrange(
            head.offset..<head.offset + head.byteCount,
            with: bytes[embedding.offset..<embedding.offset + embedding.byteCount])
        try scratch.write("model.safetensors", bytes)
        #expect(try scratch.configuration().warnings.isEmpty)
        bytes[head.offset + head.byteCount - 1] ^= 1
        try scratch.write("model.safetensors", bytes)
        #expect(try scratch.configuration().warnings.count == 1)
    }

    @Test func layerTypes() throws {
        let kinds = #"["full_attention","sliding_attention"]"#
        #expect(try read("qwen3moe", ["layer_types": kinds]).warnings.isEmpty)
        expectRefused("qwen3moe", ["layer_types": #"["full_attention","linear_attention"]"#], item: "layer_types")
    }

    @Test func theta() throws {
        let base = try read("sigma-top1", ["rope_theta": "10000.0", "max_position_embeddings": "131072"])
        #expect(base.warnings.contains { $0.contains("rope_theta") })
        #expect(try read("sigma-top1", ["rope_theta": "10000.0"]).warnings.isEmpty)
        let two = try read("qwen3moe", ["rope_parameters": #"{"rope_theta":5.0,"rope_type":"default"}"#])
        #expect(two.warnings.contains { $0.contains("rope_parameters") })
        #expect(two.model.ropeTheta == 1_000_000)
    }

    @Test func shapesWin() throws {
        let read = try read("sigma-top1", ["vocab_size": "100", "head_dim": "64"])
        #expect(read.model.vocabularySize == 96)
        #expect(read.model.headDim == 32)
        #expect(read.warnings.count == 2)
    }

    @Test func refusals() throws {
        expectRefused("sigma-top1", ["architectures": #"["GemmaForCausalLM"]"#], item: "architectures")
        expectRefused("sigma-top1", ["architectures": nil, "model_type": nil], item: "architectures")
        expectRefused("sigma-top1", ["hidden_act": "\"gelu\""], item: "hidden_act")
        expectRefused("sigma-top1", ["scoring_func": "\"tanh\""], item: "scoring_func")
        expectRefused("sigma-top1", ["topk_method": "\"group_limited_greedy\""], item: "topk_method")
        expectRefused("sigma-top1", ["n_group": "8", "topk_group": "4"], item: "n_group")
        expectRefused("sigma-top1", ["quantization_config": "{}"], item: "quantization_config")
        expectRefused("sigma-top1", ["partial_rotary_factor": "0.5"], item: "partial_rotary_factor")
        expectRefused("sigma-top1", ["hidden_size": nil], item: "hidden_size")
        expectRefused("sigma-top1", ["hidden_size": "\"32\""], item: "hidden_size")
        expectRefused("sigma-top1", ["num_hidden_layers": "1e12"], item: "num_hidden_layers")
        expectRefused("sigma-top1", ["num_hidden_layers": "100000"], item: "num_hidden_layers")
        expectRefused("sigma-top1", ["num_attention_heads": "3"], item: "num_attention_heads")
        expectRefused("sigma-top1", ["rms_norm_eps": "0"], item: nil)
        expectRefused("sigma-top1", ["rope_theta": "-1"], item: nil)
        expectRefused("sigma-top1", ["num_key_value_heads": "3"], item: nil)
    }

    @Test func overrides() throws {
        #expect(try read("sigma-top1", [:], ["routed_scaling_factor=2.5"]).model.routedScalingFactor == 2.5)
        #expect(try read("sigma-top1", [:], ["num_experts_per_tok_layer_wise=[2,3]"]).model.expertsPerToken == [2, 3])
        #expect(try read("sigma-top1", [:], ["scoring_func=softmax"]).model.scoring == .softmax)
        #expect(try read("sigma-top1", ["scoring_func": "\"tanh\""], ["scoring_func=null"]).model.scoring == .sigmoid)
        for bad in ["nonsense=1", "norm_topk_prob", "=1"] {
            #expect(sigmaError { _ = try Overrides([bad]) }?.kind == .usage)
        }
        #expect(sigmaError { _ = try Overrides(["rope_theta=1", "rope_theta=2"]) }?.kind == .usage)
        expectRefused("qwen3moe", item: nil, ["scoring_func=sigmoid"], kind: .usage)
        expectRefused("sigma-top1", item: nil, ["num_experts=4"], kind: .usage)
    }

    @Test func missingNormalizationIsToldWhereItMatters() throws {
        #expect(try read("sigma-top1", ["norm_topk_prob": nil]).warnings.isEmpty)
        #expect(try read("sigma-softmax", ["norm_topk_prob": nil]).warnings.contains { $0.contains("norm_topk_prob") })
    }
}
