/// The metadata of a native model file, in both directions: what `write` sets, `read` understands.
package enum ModelFileMetadata {
    // MARK: configuration

    package static func write(_ c: ModelConfiguration, to writer: inout GGUFWriter) {
        func set(_ key: String, _ value: Int) { writer.set("sigma." + key, UInt32(value)) }
        set("vocab_size", c.vocabularySize)
        set("context_length", c.contextLength)
        set("embedding_length", c.hiddenSize)
        set("block_count", c.layerCount)
        set("feed_forward_length", c.denseIntermediateSize)
        set("attention.head_count", c.headCount)
        set("attention.head_count_kv", c.kvHeadCount)
        set("attention.key_length", c.headDim)
        set("attention.value_length", c.headDim)
        writer.set("sigma.attention.layer_norm_rms_epsilon", c.rmsNormEpsilon)
        writer.set("sigma.attention.qk_norm", c.qkNorm)
        set("expert_count", c.expertCount)
        set("expert_used_count", c.expertsPerToken.max() ?? 0)
        writer.set("sigma.expert_used_count_per_layer", c.expertsPerToken.map { UInt32($0) })
        set("expert_feed_forward_length", c.expertIntermediateSize)
        set("expert_shared_count", c.sharedExpertCount)
        writer.set("sigma.expert_gating_func", c.scoring.rawValue)
        writer.set("sigma.expert_weights_normalization", c.weightNormalization.rawValue)
        writer.set("sigma.expert_weights_scale", c.routedScalingFactor)
        set("rope.dimension_count", c.headDim)
        writer.set("sigma.rope.freq_base", c.ropeTheta)
        switch c.ropeScaling {
        case .none:
            writer.set("sigma.rope.scaling.type", "none")
        case .linear(let factor):
            writer.set("sigma.rope.scaling.type", "linear")
            writer.set("sigma.rope.scaling.factor", factor)
        case .yarn(let factor, let original, let fast, let slow, let attention, let truncate):
            writer.set("sigma.rope.scaling.type", "yarn")
            writer.set("sigma.rope.scaling.factor", factor)
            set("rope.scaling.original_context_length", original)
            writer.set("sigma.rope.scaling.yarn_beta_fast", fast)
            writer.set("sigma.rope.scaling.yarn_beta_slow", slow)
            writer.set("sigma.rope.scaling.yarn_truncate", truncate)
            if let attention { writer.set("sigma.rope.scaling.attn_factor", attention) }
        case .divided(let divisors):
            writer.set("sigma.rope.scaling.type", "divided")
            writer.set("sigma.rope.scaling.divisors", divisors)
        }
        writer.set("sigma.tied_embeddings", c.tiedEmbeddings)
    }

    /// - Throws: `SigmaError` (`.damaged`) naming the key.
    package static func configuration(of file: GGUFFile) throws -> ModelConfiguration {
        let keys = KeyReader(file: file)
        let perLayer = try keys.integers("sigma.expert_used_count_per_layer")
        let scoring = try keys.integer("sigma.expert_gating_func")
        guard let scoring = UInt32(exactly: scoring).flatMap(ModelConfiguration.RouterScoring.init) else {
            throw keys.failure("sigma.expert_gating_func", "expected 1 (softmax) or 2 (sigmoid), found \(scoring)")
        }
        let normalization = try keys.choice(
            "sigma.expert_weights_normalization", ModelConfiguration.WeightNormalization.init,
            "never, when-several or always")
        let configuration = ModelConfiguration(
            vocabularySize: try keys.integer("sigma.vocab_size"),
            hiddenSize: try keys.integer("sigma.embedding_length"),
            layerCount: try keys.integer("sigma.block_count"),
            headCount: try keys.integer("sigma.attention.head_count"),
            kvHeadCount: try keys.integer("sigma.attention.head_count_kv"),
            headDim: try keys.integer("sigma.attention.key_length"),
            expertCount: try keys.integer("sigma.expert_count"),
            expertIntermediateSize: try keys.integer("sigma.expert_feed_forward_length"),
            sharedExpertCount: try keys.integer("sigma.expert_shared_count"),
            denseIntermediateSize: try keys.integer("sigma.feed_forward_length"),
            expertsPerToken: perLayer, scoring: scoring, weightNormalization: normalization,
            routedScalingFactor: try keys.float("sigma.expert_weights_scale"),
            qkNorm: try keys.bool("sigma.attention.qk_norm"),
            rmsNormEpsilon: try keys.float("sigma.attention.layer_norm_rms_epsilon"),
            ropeTheta: try keys.float("sigma.rope.freq_base"), ropeScaling: try ropeScaling(keys),
            contextLength: try keys.integer("sigma.context_length"),
            tiedEmbeddings: try keys.bool("sigma.tied_embeddings"))
        if let problem = configuration.problem {
            throw SigmaError(.damaged, "the configuration makes no sense: \(problem)", path: file.file.path)
        }
        for key in ["sigma.attention.value_length", "sigma.rope.dimension_count"] {
            let length = try keys.integer(key)
            guard length == configuration.headDim else {
                throw keys.failure(
                    key, "expected the same as sigma.attention.key_length, \(configuration.headDim), found \(length)")
            }
        }
        return configuration
    }

    package static func ropeScaling(_ keys: KeyReader) throws -> ModelConfiguration.RopeScaling {
        let prefix = "sigma.rope.scaling."
        let type = try keys.string(prefix + "type")
        switch type {
        case "none": return .none
        case "linear": return .linear(factor: try keys.float(prefix + "factor"))
        case "yarn":
            let hasFactor = keys.has(prefix + "attn_factor")
            return .yarn(
                factor: try keys.float(prefix + "factor"),
                originalContext: try keys.integer(prefix + "original_context_length"),
                betaFast: try keys.float(prefix + "yarn_beta_fast"),
                betaSlow: try keys.float(prefix + "yarn_beta_slow"),
                attentionFactor: hasFactor ? try keys.float(prefix + "attn_factor") : nil,
                truncate: try keys.bool(prefix + "yarn_truncate"))
        case "divided": return .divided(by: try keys.floats(prefix + "divisors"))
        default: throw keys.failure(prefix + "type", "expected none, linear, yarn or divided, found '\(type)'")
        }
    }

    // MARK: chat format

    package static func write(_ format: ChatFormat, to writer: inout GGUFWriter) {
        writer.set("sigma.chat.style", format.style.rawValue)
        writer.set("sigma.chat.thinks", format.thinks)
        writer.set("sigma.chat.opens_thinking", format.opensThinking)
        if !format.defaultSystem.isEmpty { writer.set("sigma.chat.default_system", format.defaultSystem) }
        if !format.systemPrefix.isEmpty { writer.set("sigma.chat.system_prefix", format.systemPrefix) }
        if format.trimsMessages { writer.set("sigma.chat.trims_messages", true) }
        if !format.date.isEmpty { writer.set("sigma.chat.date", format.date) }
        if let closed = format.closedThinking { writer.set("sigma.chat.closed_thinking", closed) }
        write(format.tools, to: &writer)
        writer.set("sigma.chat.thinking_prompt", format.thinkingPrompt)
        writer.set("sigma.chat.closing_phrase", format.closingPhrase)
        writer.set("sigma.chat.stop_tokens", format.stopTokens)
    }

    /// Nil if the file has none.
    package static func chatFormat(of file: GGUFFile, vocabularySize: Int) throws -> ChatFormat? {
        let keys = KeyReader(file: file)
        guard keys.has("sigma.chat.style") else { return nil }
        let stops = try keys.integers("sigma.chat.stop_tokens")
        guard let bad = stops.first(where: { !(0..<vocabularySize).contains($0) }) else {
            var format = ChatFormat(
                style: try keys.choice("sigma.chat.style", ChatFormat.Style.init, ChatFormat.Style.names),
                // Files from before there was the key are of models that think.
                thinks: keys.has("sigma.chat.thinks") ? try keys.bool("sigma.chat.thinks") : true,
                opensThinking: try keys.bool("sigma.chat.opens_thinking"),
                thinkingPrompt: try keys.string("sigma.chat.thinking_prompt"),
                closingPhrase: try keys.string("sigma.chat.closing_phrase"), stopTokens: stops.map { Int32($0) })
            func text(_ key: String) throws -> String { keys.has(key) ? try keys.string(key) : "" }
            format.defaultSystem = try text("sigma.chat.default_system")
            format.systemPrefix = try text("sigma.chat.system_prefix")
            let trims = "sigma.chat.trims_messages"
            format.trimsMessages = keys.has(trims) ? try keys.bool(trims) : false
            format.date = try text("sigma.chat.date")
            guard CalendarDate.now.text(format.date) != nil else {
                throw keys.failure("sigma.chat.date", "expected marks that are known here, found '\(format.date)'")
            }
            let closed = "sigma.chat.closed_thinking"
            format.closedThinking = keys.has(closed) ? try keys.string(closed) : nil
            if let tools = try toolFormat(keys) { format.tools = tools }
            return format
        }
        throw keys.failure("sigma.chat.stop_tokens", "expected token ids below \(vocabularySize), found \(bad)")
    }

    private static func write(_ tools: ToolFormat, to writer: inout GGUFWriter) {
        // Files say nothing of what was so before there were the keys.
        guard tools != .usual(.taggedJSON) else { return }
        writer.set("sigma.chat.tools.calls", tools.calls.rawValue)
        writer.set("sigma.chat.tools.description", tools.description.rawValue)
        writer.set("sigma.chat.tools.place", tools.place.rawValue)
        writer.set("sigma.chat.tools.before", tools.before)
        writer.set("sigma.chat.tools.between", tools.between)
        writer.set("sigma.chat.tools.after", tools.after)
        if let prefix = tools.systemPrefix { writer.set("sigma.chat.tools.system_prefix", prefix) }
        if let system = tools.defaultSystem { writer.set("sigma.chat.tools.default_system", system) }
        if tools.rewritesArguments { writer.set("sigma.chat.tools.rewrites_arguments", true) }
    }

    private static func toolFormat(_ keys: KeyReader) throws -> ToolFormat? {
        let prefix = "sigma.chat.tools."
        guard keys.has(prefix + "calls") else { return nil }
        func names<Value: CaseIterable & RawRepresentable<String>>(_: Value.Type) -> String {
            Value.allCases.map(\.rawValue).joined(separator: ", ")
        }
        var tools = ToolFormat(
            calls: try keys.choice(prefix + "calls", CallForm.init, CallForm.names),
            description: try keys.choice(
                prefix + "description", ToolFormat.Description.init, names(ToolFormat.Description.self)),
            place: try keys.choice(prefix + "place", ToolFormat.Place.init, names(ToolFormat.Place.self)),
            before: try keys.string(prefix + "before"), between: try keys.string(prefix + "between"),
            after: try keys.string(prefix + "after"))
        func text(_ name: String) throws -> String? {
            keys.has(prefix + name) ? try keys.string(prefix + name) : nil
        }
        tools.systemPrefix = try text("system_prefix")
        tools.defaultSystem = try text("default_system")
        let rewrites = prefix + "rewrites_arguments"
        tools.rewritesArguments = keys.has(rewrites) ? try keys.bool(rewrites) : false
        return tools
    }
}
