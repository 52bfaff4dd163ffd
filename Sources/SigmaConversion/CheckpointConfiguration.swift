import Sigma

/// What `config.json` (with overrides) and the tensors' shapes say about a model, with every open point settled.
package struct CheckpointConfiguration: Sendable {
    package let family: any ModelFamily
    /// The first of `architectures`.
    package let architecture: String
    package let model: ModelConfiguration
    /// End-of-text tokens that the config names.
    package let endTokens: [Int]
    package let bosToken: Int?
    /// Of an FP8 checkpoint.
    package let float8Block: Float8Block?
    /// Choices that the user should know of; each once.
    package let warnings: [String]

    /// The configuration of a model without files.
    init(_ model: ModelConfiguration, architecture: String, family: any ModelFamily) {
        self.family = family
        self.architecture = architecture
        self.model = model
        endTokens = []
        bosToken = nil
        float8Block = nil
        warnings = []
    }

    /// - Throws: `SigmaError`: `.damaged` naming the key, with the override that settles it where one does; `.usage` for overrides that
    ///   have no meaning here.
    package init(_ checkpoint: Checkpoint, overrides: Overrides) throws {
        var reader = ConfigReader(config: overrides.applied(to: checkpoint.config), path: checkpoint.configPath)
        (family, architecture) = try ModelFamilies.family(of: reader)
        try overrides.check(family)
        try Self.refuseUnsupported(reader)
        float8Block = try Float8Block(reader)

        // Shapes win over the config: they cannot be stale.
        let embedding = try Self.matrix(checkpoint, "model.embed_tokens.weight")
        let queryRows = try Self.matrix(checkpoint, "model.layers.0.self_attn.q_proj.weight").shape[0]
        let headCount = try reader.count("num_attention_heads")
        guard queryRows % headCount == 0 else {
            throw reader.failure(
                "num_attention_heads", "\(queryRows) rows of q_proj are no multiple of \(headCount) heads")
        }
        let headDim = queryRows / headCount
        let vocabularySize = embedding.shape[0]
        try reader.warnIfDifferent(
            "vocab_size", from: vocabularySize, "the embedding has \(vocabularySize) rows; these count")
        try reader.warnIfDifferent("head_dim", from: headDim, "q_proj has \(queryRows) rows, so it is \(headDim)")

        let layerCount = try reader.count("num_hidden_layers")
        // Before any list of that length is made.
        guard layerCount <= 1024 else {
            throw reader.failure("num_hidden_layers", "expected at most 1024, found \(layerCount)")
        }
        let rules = try family.rules(of: &reader, layerCount: layerCount)
        let (rope, contextLength) = try Self.rope(&reader, checkpoint, rules, headDim: headDim, overrides)
        let tied = try Self.isTied(&reader, checkpoint, embedding: embedding)
        if !reader.has("rms_norm_eps") { reader.warnings.append("rms_norm_eps is missing: 1e-6 is used") }
        model = ModelConfiguration(
            vocabularySize: vocabularySize, hiddenSize: try reader.count("hidden_size"), layerCount: layerCount,
            headCount: headCount, kvHeadCount: try reader.integer("num_key_value_heads") ?? headCount,
            headDim: headDim, expertCount: rules.expertCount,
            expertIntermediateSize: rules.expertCount > 0 ? try reader.count("moe_intermediate_size") : 0,
            sharedExpertCount: rules.sharedExpertCount,
            denseIntermediateSize: rules.expertsPerToken.contains(0) ? try reader.count("intermediate_size") : 0,
            expertsPerToken: rules.expertsPerToken, scoring: rules.scoring, weightNormalization: rules.normalization,
            routedScalingFactor: rules.routedScalingFactor, qkNorm: rules.qkNorm,
            rmsNormEpsilon: Float(try reader.number("rms_norm_eps") ?? 1e-6), ropeTheta: rope.theta,
            ropeScaling: rope.scaling, contextLength: contextLength, tiedEmbeddings: tied)
        if let problem = model.problem { throw SigmaError(.damaged, problem, path: checkpoint.configPath) }
        endTokens = try reader.integers("eos_token_id")
        bosToken = try reader.integer("bos_token_id")
        warnings = try reader.warnings + family.doubts(about: model, reader)
    }

    /// Anything that would compute something else than we do, in any family.
    private static func refuseUnsupported(_ reader: ConfigReader) throws {
        if let activation = reader.value("hidden_act"), activation.string != "silu" {
            throw reader.failure("hidden_act", "expected silu, found \(activation.kind)")
        }
        if let share = try reader.number("partial_rotary_factor"), share != 1 {
            throw reader.failure("partial_rotary_factor", "expected 1, found \(share)")
        }
    }

    private static func matrix(_ checkpoint: Checkpoint, _ name: String) throws -> SourceTensor {
        guard let tensor = try checkpoint.find(name) else { throw checkpoint.missing(name) }
        guard tensor.shape.count == 2, tensor.shape.allSatisfy({ $0 > 0 }) else {
            throw tensor.failure("expected a matrix, found shape \(tensor.shape)")
        }
        return tensor
    }

    private static func rope(
        _ reader: inout ConfigReader, _ checkpoint: Checkpoint, _ rules: FamilyRules, headDim: Int,
        _ overrides: Overrides
    ) throws -> (RopeSettings, contextLength: Int) {
        let key = "max_position_embeddings"
        let stated = try reader.integer(key)
        if stated == nil { reader.warnings.append("\(key) is missing: 4096 is used (--override \(key)=N)") }
        // An override sets a limit; what scaling stretches is the length that the model was trained with.
        let trained = try ConfigReader(config: checkpoint.config, path: checkpoint.configPath).integer(key)
        let chosen = overrides.scalesRope
        let rope = try RopeSettings(
            &reader, applies: chosen ?? rules.scalesRope, isChosen: chosen != nil, headDim: headDim,
            contextLength: trained ?? stated ?? 4096)
        guard let scaled = rope.contextLength, overrides.text(key) == nil else { return (rope, stated ?? 4096) }
        if let stated, stated != scaled {
            reader.warnings.append(
                "with yarn the context is \(scaled), factor times original length; \(key), \(stated), is not used"
                    + " (--override \(key)=N sets a limit)")
        }
        return (rope, scaled)
    }

    /// Whether the embedding is the output head. The flag decides, and a head that contradicts it is told.
    private static func isTied(
        _ reader: inout ConfigReader, _ checkpoint: Checkpoint, embedding: SourceTensor
    ) throws -> Bool {
        let flag = try reader.bool("tie_word_embeddings") ?? false
        guard let head = try checkpoint.find("lm_head.weight") else {
            if !flag { reader.warnings.append("there is no lm_head.weight: the embedding is the output head") }
            return true
        }
        if flag, !head.isEqual(to: embedding) {
            reader.warnings.append(
                "tie_word_embeddings is true, but lm_head.weight is not the embedding: the embedding is the output head"
                    + " (--override tie_word_embeddings=false takes lm_head.weight)")
        }
        return flag
    }
}
