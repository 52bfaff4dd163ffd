/// Names and numbers of the native model file; `docs/model-file.md` is the specification.
package enum ModelFileFormat {
    package static let architecture = "sigma"
    package static let version: UInt32 = 2
    /// Every tensor and every expert record begins at a multiple: a page on every machine we mean.
    package static let alignment = 16384

    package enum Key {
        package static let version = "sigma.format_version"
        package static let name = "general.name"
        package static let sourceArchitecture = "sigma.source_architecture"
        /// CRC32C of every record, in the order of the tensors; one per expert for expert tensors.
        package static let checksums = "sigma.checksums"
        /// CRC32C of everything before the tensor data, this value's own four bytes taken as zero.
        package static let headerChecksum = "sigma.header_checksum"

        /// What each tensor holds, in the order of the tensors: packed ones are plain bytes to GGUF.
        package static let tensorTypes = "sigma.tensor_types"
        /// Of every layer's expert records; 0 for dense layers.
        package static let gateTypes = "sigma.expert.gate_types"
        package static let upTypes = "sigma.expert.up_types"
        package static let downTypes = "sigma.expert.down_types"
    }

    // Tensor names, as llama.cpp has them, except for the experts.
    package static let embedding = "token_embd.weight"
    package static let finalNorm = "output_norm.weight"
    package static let head = "output.weight"
    package static let screenMean = "output_screen.mean"
    package static let screenCoarse = "output_screen.coarse"
    package static let screenFine = "output_screen.fine"
    package static func layer(_ index: Int, _ name: String) -> String { "blk.\(index).\(name)" }

    package static let attentionNorm = "attn_norm.weight"
    package static let query = "attn_q", key = "attn_k", value = "attn_v", output = "attn_output"
    package static let queryNorm = "attn_q_norm.weight", keyNorm = "attn_k_norm.weight"
    package static let feedForwardNorm = "ffn_norm.weight"
    package static let router = "ffn_gate_inp.weight", selectionBias = "exp_probs_b.bias"
    package static let experts = "ffn_experts"
    package static let gate = "ffn_gate", up = "ffn_up", down = "ffn_down"
    package static let sharedSuffix = "_shexp"

    /// CRC32C of a file's header as `headerChecksum` wants it.
    /// - Parameter hole: offset of the four bytes that count as zero.
    package static func headerChecksum(_ header: UnsafeRawBufferPointer, hole: Int) -> UInt32 {
        var crc = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: header[..<hole]))
        crc = withUnsafeBytes(of: UInt32(0)) { CRC32C.checksum($0, continuing: crc) }
        return CRC32C.checksum(UnsafeRawBufferPointer(rebasing: header[(hole + 4)...]), continuing: crc)
    }
}

extension ModelFileFormat {
    /// The type under which GGUF lists a matrix of `type`: packed ones are bytes, so that no other tool takes them for ggml's rows.
    package static func carrier(_ type: WeightType) -> GGMLType { type.isQuantized ? .int8 : type.ggml }
    /// A matrix's dimensions in GGUF: of a packed one, a group's bytes and the number of groups.
    package static func dimensions(_ type: WeightType, _ rows: Int, _ columns: Int) -> [Int] {
        type.isQuantized
            ? [type.groupBytes(columns), (rows + type.groupRows - 1) / type.groupRows] : [columns, rows]
    }
}

extension WeightType {
    /// The same type among ggml's.
    package var ggml: GGMLType { GGMLType.number(rawValue)! }
}

extension ModelConfiguration {
    /// Shared experts' width together.
    package var sharedIntermediateSize: Int { sharedExpertCount * expertIntermediateSize }

    /// What is impossible or unsupported about these numbers, in words; nil if nothing is. The caps keep every size computed from
    /// a configuration far from overflow.
    package var problem: String? {
        func outside(_ value: Int, _ range: ClosedRange<Int>, _ name: String) -> String? {
            range.contains(value)
                ? nil : "\(name): expected a number from \(range.lowerBound) to \(range.upperBound), found \(value)"
        }
        func outside(_ value: Float, _ range: ClosedRange<Float>, _ name: String) -> String? {
            range.contains(value)
                ? nil : "\(name): expected a number from \(range.lowerBound) to \(range.upperBound), found \(value)"
        }
        let limits = [
            outside(vocabularySize, 1...1 << 24, "vocabulary"),
            outside(hiddenSize, 1...65_536, "hidden size"),
            outside(layerCount, 1...1024, "layers"),
            outside(headCount, 1...1024, "heads"),
            outside(kvHeadCount, 1...headCount.clamped(to: 1...1024), "key-value heads"),
            outside(headDim, 2...1024, "head dimension"),
            outside(expertCount, 0...4096, "experts"),
            outside(expertIntermediateSize, expertCount > 0 ? 1...65_536 : 0...65_536, "expert intermediate size"),
            outside(sharedExpertCount, 0...64, "shared experts"),
            outside(denseIntermediateSize, 0...1 << 20, "dense intermediate size"),
            outside(contextLength, 1...1 << 30, "context length"),
            outside(rmsNormEpsilon, 1e-20...1, "RMSNorm's epsilon"),
            outside(ropeTheta, 1...1e12, "RoPE's base"),
            outside(routedScalingFactor.magnitude, 1e-6...1e6, "the routed scaling factor"),
        ]
        if let first = limits.lazy.compactMap({ $0 }).first { return first }
        if headDim % 2 != 0 { return "head dimension: expected an even number, found \(headDim)" }
        if headCount % kvHeadCount != 0 {
            return "heads: \(headCount) query heads are no multiple of \(kvHeadCount) key-value heads"
        }
        if expertsPerToken.count != layerCount {
            return "experts per token: expected \(layerCount) entries, found \(expertsPerToken.count)"
        }
        for (layer, count) in expertsPerToken.enumerated() where !(0...expertCount).contains(count) {
            return "experts per token: expected at most \(expertCount), found \(count) in layer \(layer)"
        }
        if expertsPerToken.contains(0), denseIntermediateSize == 0 {
            return "there are dense layers, but the dense intermediate size is 0"
        }
        switch ropeScaling {
        case .none: break
        case .linear(let factor):
            return outside(factor, 1e-3...1e6, "RoPE scaling's factor")
        case .divided(let divisors):
            if divisors.count != headDim / 2 {
                return "RoPE scaling: expected \(headDim / 2) divisors, one for each pair, found \(divisors.count)"
            }
            return divisors.lazy.compactMap { outside($0, 1e-3...1e6, "RoPE scaling's divisors") }.first
        case .yarn(let factor, let original, let fast, let slow, let attention, _):
            let problems = [
                outside(factor, 1e-3...1e6, "RoPE scaling's factor"),
                outside(original, 1...1 << 30, "RoPE scaling's original context"),
                outside(fast, 1e-3...1e6, "yarn's beta_fast"), outside(slow, 1e-3...1e6, "yarn's beta_slow"),
                attention.flatMap { outside($0, 1e-6...1e6, "yarn's attention factor") },
            ]
            return problems.lazy.compactMap { $0 }.first
        }
        return nil
    }
}

extension Int {
    fileprivate func clamped(to range: ClosedRange<Int>) -> Int {
        Swift.min(Swift.max(self, range.lowerBound), range.upperBound)
    }
}
