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
        expectRefused("qwen3moe", ["rope_scaling": #"{"rope_type":"llama3","factor":8}"#], item: "rope_scaling")
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
        expectRefused("sigma-top1", ["architectures": #"["LlamaForCausalLM"]"#], item: "architectures")
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
