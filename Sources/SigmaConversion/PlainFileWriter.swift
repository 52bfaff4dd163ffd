import Sigma

/// Writes the weights of a plan as a plain GGUF file: ggml's rows, the experts of a layer in one tensor, llama.cpp's names. A model that
/// llama.cpp's `qwen3moe` computes is written as one, so that other engines run it; any other keeps the architecture `sigma`.
struct PlainFileWriter {
    /// One tensor; several matrices are the experts of a layer.
    private struct Tensor {
        let name: String
        let matrices: [any MatrixSource]
        let rows: Int
        let columns: Int
        let type: WeightType
        let isVector: Bool
    }

    /// llama.cpp's own.
    static let alignment = 32

    let architecture: String
    private let tensors: [Tensor]

    init(_ plan: WeightPlan, architecture: String) {
        self.architecture = architecture
        var tensors: [Tensor] = []
        for output in plan.outputs {
            switch output.content {
            case .rows(let source, let rows, let columns, let type, let isVector):
                // llama.cpp multiplies norms and routers in fp32 only if they are; widening changes no value.
                let isRouter = output.name.hasSuffix("." + ModelFileFormat.router)
                let widens = architecture != ModelFileFormat.architecture && (isVector || isRouter)
                tensors.append(
                    Tensor(
                        name: output.name, matrices: [source], rows: rows, columns: columns,
                        type: widens ? .f32 : type, isVector: isVector))
            case .screen: preconditionFailure("plain files have no planes")
            case .experts(let experts, let layout):
                let prefix = output.name.dropLast(ModelFileFormat.experts.count)
                for (part, source, type) in [
                    (ModelFileFormat.gate, \WeightPlan.Expert.gate, layout.gateType),
                    (ModelFileFormat.up, \.up, layout.upType), (ModelFileFormat.down, \.down, layout.downType),
                ] {
                    let isDown = part == ModelFileFormat.down
                    tensors.append(
                        Tensor(
                            name: prefix + part + "_exps.weight", matrices: experts.map { $0[keyPath: source] },
                            rows: isDown ? layout.hidden : layout.intermediate,
                            columns: isDown ? layout.intermediate : layout.hidden, type: type, isVector: false))
                }
            }
        }
        self.tensors = tensors
    }

    /// Where everything lies in the file.
    ///
    /// - Parameter header: with all keys.
    func layout(_ header: GGUFWriter) -> GGUFWriter.Layout {
        var header = header
        for tensor in tensors {
            var dimensions = [tensor.columns]
            if !tensor.isVector { dimensions.append(tensor.rows) }
            if tensor.name.hasSuffix("_exps.weight") { dimensions.append(tensor.matrices.count) }
            header.addTensor(tensor.name, dimensions: dimensions, type: tensor.type.ggml)
        }
        return header.layout()
    }

    /// - Parameter header: as in `layout`.
    func write(_ header: GGUFWriter, to path: String, _ pieceWriter: PieceWriter) throws {
        let layout = layout(header)
        let file = try AtomicFile(path: path, size: layout.fileSize)
        try layout.header.withUnsafeBytes { try file.write($0, at: 0) }
        var pieces: [PieceWriter.Piece] = []
        for (record, (tensor, start)) in zip(tensors, layout.tensorOffsets).enumerated() {
            let size = tensor.rows * tensor.type.rowBytes(tensor.columns)
            for (i, matrix) in tensor.matrices.enumerated() {
                pieces += PieceWriter.Piece.rows(
                    matrix, rows: tensor.rows, columns: tensor.columns, type: tensor.type, .plain,
                    at: start + i * size, record: record)
            }
        }
        _ = try pieceWriter.write(pieces, recordCount: tensors.count, to: file)
        if pieceWriter.isCancelled() { throw SigmaError(.interrupted, "interrupted; nothing was written") }
        try file.finish(size: layout.fileSize)
    }

    // MARK: what qwen3moe can express

    /// Why llama.cpp's `qwen3moe` would compute something else than this model; nil if it computes the same.
    static func obstacle(_ c: ModelConfiguration, _ plan: WeightPlan) -> String? {
        if c.expertsPerToken.contains(0) { return "it has dense layers" }
        if Set(c.expertsPerToken).count > 1 { return "its layers use different numbers of experts" }
        if c.sharedExpertCount > 0 { return "it has shared experts" }
        if c.scoring != .softmax { return "its routers use \(c.scoring)" }
        if !c.normalizesWeights(choices: c.expertsPerToken[0]) {
            return "its expert weights are not normalised"
        }
        if c.routedScalingFactor != 1 { return "its expert weights are scaled by \(c.routedScalingFactor)" }
        if !c.qkNorm { return "it has no q and k norms" }
        if case .yarn(_, _, _, _, _, truncate: false) = c.ropeScaling { return "its yarn ramp is not truncated" }
        if case .divided = c.ropeScaling { return "its RoPE frequencies are divided one by one" }
        if let bias = plan.outputs.first(where: { $0.name.hasSuffix(".bias") }) { return "it has \(bias.name)" }
        return nil
    }

    /// llama.cpp's keys for a model without an obstacle.
    static func writeMetadata(_ c: ModelConfiguration, to writer: inout GGUFWriter) {
        func set(_ key: String, _ value: Int) { writer.set("qwen3moe." + key, UInt32(value)) }
        set("vocab_size", c.vocabularySize)
        set("context_length", c.contextLength)
        set("embedding_length", c.hiddenSize)
        set("block_count", c.layerCount)
        set("feed_forward_length", c.expertIntermediateSize)
        set("attention.head_count", c.headCount)
        set("attention.head_count_kv", c.kvHeadCount)
        set("attention.key_length", c.headDim)
        set("attention.value_length", c.headDim)
        writer.set("qwen3moe.attention.layer_norm_rms_epsilon", c.rmsNormEpsilon)
        set("expert_count", c.expertCount)
        set("expert_used_count", c.expertsPerToken[0])
        set("expert_feed_forward_length", c.expertIntermediateSize)
        set("rope.dimension_count", c.headDim)
        writer.set("qwen3moe.rope.freq_base", c.ropeTheta)
        switch c.ropeScaling {
        case .none: break
        case .divided: preconditionFailure("an obstacle")
        case .linear(let factor):
            writer.set("qwen3moe.rope.scaling.type", "linear")
            writer.set("qwen3moe.rope.scaling.factor", factor)
        case .yarn(let factor, let original, let fast, let slow, let attention, _):
            writer.set("qwen3moe.rope.scaling.type", "yarn")
            writer.set("qwen3moe.rope.scaling.factor", factor)
            set("rope.scaling.original_context_length", original)
            writer.set("qwen3moe.rope.scaling.yarn_beta_fast", fast)
            writer.set("qwen3moe.rope.scaling.yarn_beta_slow", slow)
            if let attention {
                // There it is multiplied with yarn's own 0.1 ln(factor) + 1.
                writer.set("qwen3moe.rope.scaling.attn_factor", attention / Float(yarnMagnitude(Double(factor), 1)))
            }
        }
    }

    /// The chat format as a Jinja template, for other tools.
    static func chatTemplate(_ format: ChatFormat) -> String {
        let style = format.style
        func quoted(_ text: String) -> String {
            "'" + text.replacing("\\", with: "\\\\").replacing("'", with: "\\'").replacing("\n", with: "\\n") + "'"
        }
        func literal(_ text: String) -> String {
            guard !format.date.isEmpty else { return quoted(text) }
            return quoted(text).replacing(
                ChatFormat.datePlace, with: "' + strftime_now(\(quoted(format.date))) + '")
        }
        func turn(_ role: ChatFormat.Style.Role, _ content: String) -> String {
            let start = style.turnStart(role).written + (role == .system ? format.systemPrefix : "")
            return "{{ \(literal(start)) + \(content) + \(literal(style.turnEnd(role).written)) }}"
        }
        let content = format.trimsMessages ? "(message['content'] | trim)" : "message['content']"
        var template = style.beginsText ? "{{ bos_token }}" : ""
        if !format.defaultSystem.isEmpty {
            template += "{% if messages[0]['role'] != 'system' %}"
            template +=
                "{{ \(literal(style.turnStart(.system).written + format.defaultSystem + style.turnEnd(.system).written)) }}{% endif %}"
        }
        template += "{% for message in messages %}{% if message['role'] == 'system' %}\(turn(.system, content))"
        template += "{% elif message['role'] == 'user' %}\(turn(.user, content))"
        template += "{% else %}\(turn(.assistant, content)){% endif %}{% endfor %}"
        let gap = style.thinkingGap
        var opening = ""
        if format.thinks {
            opening = "{% if enable_thinking is defined and not enable_thinking %}"
            opening += "{{ \(literal(format.closedThinking ?? "<think>\(gap)\(gap)</think>\(gap)\(gap)")) }}"
            if format.opensThinking { opening += "{% else %}{{ \(literal("<think>\(gap)")) }}" }
            opening += "{% endif %}"
        }
        let header = literal(style.turnStart(.assistant).written)
        return template + "{% if add_generation_prompt %}{{ \(header) }}\(opening){% endif %}"
    }
}
