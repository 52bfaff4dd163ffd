import Sigma

/// A small `qwen3moe` model as a plain GGUF file, with random weights in any types: every part can be changed, or be wrong.
package struct PlainModel {
    package struct Tensor {
        package var name: String
        package var dimensions: [Int]
        package var type: GGMLType
        package var bytes: [UInt8]

        package init(name: String, dimensions: [Int], type: GGMLType, bytes: [UInt8]) {
            self.name = name
            self.dimensions = dimensions
            self.type = type
            self.bytes = bytes
        }
    }

    package struct Key {
        package var name: String
        package var write: (inout GGUFWriter, String) -> Void
    }

    package var architecture = "qwen3moe"
    /// Names without the architecture begin with a dot.
    package private(set) var keys: [Key] = []
    package var tensors: [Tensor] = []

    package static let layerCount = 2
    /// A multiple of the longest block.
    package static let hiddenSize = 256
    package static let intermediateSize = 256
    package static let expertCount = 3
    package static let headDim = 64
    package static let vocabularySize = 272

    /// - Parameter type: of a matrix by the tensor's name.
    package init(seed: UInt64 = 1, hasHead: Bool = true, type: (String) -> WeightType) {
        let hidden = Self.hiddenSize
        set(".block_count", UInt32(Self.layerCount))
        set(".context_length", UInt32(4096))
        set(".embedding_length", UInt32(hidden))
        set(".feed_forward_length", UInt32(512))
        set(".expert_feed_forward_length", UInt32(Self.intermediateSize))
        set(".attention.head_count", UInt32(4))
        set(".attention.head_count_kv", UInt32(2))
        set(".attention.key_length", UInt32(Self.headDim))
        set(".attention.value_length", UInt32(Self.headDim))
        set(".attention.layer_norm_rms_epsilon", Float(1e-6))
        set(".expert_count", UInt32(Self.expertCount))
        set(".expert_used_count", UInt32(1))
        set(".rope.freq_base", Float(1e6))
        setTokenizer()

        var random = SplitMix64(state: seed)
        func matrix(_ name: String, _ dimensions: [Int]) {
            let type = type(name)
            let rows = dimensions.dropFirst().reduce(1, *)
            tensors.append(
                Tensor(
                    name: name, dimensions: dimensions, type: type.ggml,
                    bytes: random.blocks(type, count: rows * dimensions[0] / type.blockLength)))
        }
        func floats(_ name: String, _ dimensions: [Int]) {
            let count = dimensions.reduce(1, *)
            tensors.append(
                Tensor(
                    name: name, dimensions: dimensions, type: .f32,
                    bytes: random.blocks(.f32, count: count)))
        }
        matrix("token_embd.weight", [hidden, Self.vocabularySize])
        for layer in 0..<Self.layerCount {
            let prefix = "blk.\(layer)."
            floats(prefix + "attn_norm.weight", [hidden])
            matrix(prefix + "attn_q.weight", [hidden, 4 * Self.headDim])
            matrix(prefix + "attn_k.weight", [hidden, 2 * Self.headDim])
            matrix(prefix + "attn_v.weight", [hidden, 2 * Self.headDim])
            matrix(prefix + "attn_output.weight", [4 * Self.headDim, hidden])
            floats(prefix + "attn_q_norm.weight", [Self.headDim])
            floats(prefix + "attn_k_norm.weight", [Self.headDim])
            floats(prefix + "ffn_norm.weight", [hidden])
            floats(prefix + "ffn_gate_inp.weight", [hidden, Self.expertCount])
            matrix(prefix + "ffn_gate_exps.weight", [hidden, Self.intermediateSize, Self.expertCount])
            matrix(prefix + "ffn_up_exps.weight", [hidden, Self.intermediateSize, Self.expertCount])
            matrix(prefix + "ffn_down_exps.weight", [Self.intermediateSize, hidden, Self.expertCount])
        }
        floats("output_norm.weight", [hidden])
        if hasHead { matrix("output.weight", [hidden, Self.vocabularySize]) }
    }

    /// 256 bytes, three merges, Qwen's special tokens, and unused rows.
    private mutating func setTokenizer() {
        var tokens = (UInt8.min...UInt8.max).map { Array(ByteAlphabet.text(of: [$0]).utf8) }
        var kinds = [Int32](repeating: 1, count: 256)
        for text in ["th", "the", "in"] {
            tokens.append(Array(text.utf8))
            kinds.append(1)
        }
        for (text, kind) in [
            ("<|endoftext|>", 3), ("<|im_start|>", 3), ("<|im_end|>", 3), ("<think>", 3), ("</think>", 4),
        ] {
            tokens.append(Array(text.utf8))
            kinds.append(Int32(kind))
        }
        while tokens.count < Self.vocabularySize {
            tokens.append(Array("[PAD\(tokens.count)]".utf8))
            kinds.append(5)
        }
        set("tokenizer.ggml.model", "gpt2")
        set("tokenizer.ggml.pre", "qwen2")
        set("tokenizer.ggml.tokens", strings: tokens)
        set("tokenizer.ggml.token_type", kinds)
        set("tokenizer.ggml.merges", strings: ["t h", "th e", "i n"].map { Array($0.utf8) })
        set("tokenizer.ggml.bos_token_id", UInt32(259))
        set("tokenizer.ggml.eos_token_id", UInt32(261))
        set("tokenizer.ggml.add_bos_token", false)
        set(
            "tokenizer.chat_template",
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
                + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
    }

    // MARK: changes

    package mutating func remove(_ name: String) {
        keys.removeAll { $0.name == name }
        tensors.removeAll { $0.name == name }
    }
    package mutating func removeKeys() { keys = [] }
    package mutating func set(_ name: String, _ value: Int32) { put(name) { $0.set($1, value) } }
    package mutating func set(_ name: String, _ value: UInt32) { put(name) { $0.set($1, value) } }
    package mutating func set(_ name: String, _ value: Float) { put(name) { $0.set($1, value) } }
    package mutating func set(_ name: String, _ value: Bool) { put(name) { $0.set($1, value) } }
    package mutating func set(_ name: String, _ value: String) { put(name) { $0.set($1, value) } }
    package mutating func set(_ name: String, _ values: [UInt32]) { put(name) { $0.set($1, values) } }
    package mutating func set(_ name: String, _ values: [Int32]) { put(name) { $0.set($1, values) } }
    package mutating func set(_ name: String, strings: [[UInt8]]) { put(name) { $0.set($1, strings: strings) } }
    package mutating func change(_ name: String, _ body: (inout Tensor) -> Void) {
        body(&tensors[tensors.firstIndex { $0.name == name }!])
    }

    private mutating func put(_ name: String, _ write: @escaping (inout GGUFWriter, String) -> Void) {
        let key = Key(name: name, write: write)
        if let place = keys.firstIndex(where: { $0.name == name }) { keys[place] = key } else { keys.append(key) }
    }

    // MARK: the file

    package var layout: GGUFWriter.Layout {
        var writer = GGUFWriter(architecture: architecture, alignment: 32)
        for key in keys { key.write(&writer, key.name.hasPrefix(".") ? architecture + key.name : key.name) }
        for tensor in tensors { writer.addTensor(tensor.name, dimensions: tensor.dimensions, type: tensor.type) }
        return writer.layout()
    }

    package var bytes: [UInt8] {
        let layout = layout
        var bytes = layout.header
        bytes.reserveCapacity(layout.fileSize)
        for (tensor, offset) in zip(tensors, layout.tensorOffsets) {
            bytes += [UInt8](repeating: 0, count: offset - bytes.count)
            bytes += tensor.bytes
        }
        return bytes + [UInt8](repeating: 0, count: layout.fileSize - bytes.count)
    }
}

extension SplitMix64 {
    /// Blocks of a type with random bits but finite, small scales: every such block is valid.
    package mutating func blocks(_ type: WeightType, count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count * type.blockBytes)
        for i in bytes.indices { bytes[i] = UInt8(truncatingIfNeeded: next()) }
        for block in 0..<count {
            let start = block * type.blockBytes
            // The number's upper byte: sign and exponent.
            switch type {
            case .f32: bytes[start + 3] = bytes[start + 3] & 0x80 | 0x3c
            case .bf16: bytes[start + 1] = bytes[start + 1] & 0x80 | 0x3c
            case .f16: bytes[start + 1] = bytes[start + 1] & 0x80 | 0x2b
            case .q8_0, .q4_0, .q5_0, .iq4_nl: bytes[start + 1] = bytes[start + 1] & 0x80 | 0x13
            case .iq4_xs: bytes[start + 1] = bytes[start + 1] & 0x80 | 0x03
            case .q4_k, .q5_k, .q4_1, .q5_1:
                bytes[start + 1] = 0x07
                bytes[start + 3] = 0x07
            case .q2_k:
                bytes[start + 81] = 0x07
                bytes[start + 83] = 0x07
            case .q3_k: bytes[start + 109] = bytes[start + 109] & 0x80 | 0x0b
            case .mxfp4: bytes[start] = 118
            case .q6_k: bytes[start + 209] = bytes[start + 209] & 0x80 | 0x03
            }
        }
        return bytes
    }
}
