import CSigma
import SampleFiles
import Sigma
import SigmaConversion
import Testing

/// Models all of whose layers are dense, from GGUF files as llama.cpp's converter writes them.
@Suite struct DenseModelTests {
    let scratch: Scratch
    init() throws { scratch = try Scratch() }

    /// A fixture as a native model of f32 weights.
    private func native(_ fixture: String) throws -> ModelFile {
        let folder = try Scratch()
        try folder.copyFixture(fixture)
        return try ModelFile(path: try folder.convert(type: .f32).path)
    }

    /// What llama.cpp's converter makes of such a model: a head's rows of q and k in pairs for `llama`, RoPE's divisors as a tensor.
    private func plain(_ file: ModelFile, _ architecture: String) -> PlainModel {
        let c = file.configuration
        var model = PlainModel { _ in .f32 }
        for tensor in model.tensors { model.remove(tensor.name) }
        model.architecture = architecture
        for key in [".expert_count", ".expert_used_count", ".expert_feed_forward_length", ".attention.value_length"] {
            model.remove(key)
        }
        model.set(".block_count", UInt32(c.layerCount))
        model.set(".context_length", UInt32(c.contextLength))
        model.set(".embedding_length", UInt32(c.hiddenSize))
        model.set(".feed_forward_length", UInt32(c.denseIntermediateSize))
        model.set(".attention.head_count", UInt32(c.headCount))
        model.set(".attention.head_count_kv", UInt32(c.kvHeadCount))
        model.set(".attention.key_length", UInt32(c.headDim))
        model.set(".rope.freq_base", c.ropeTheta)
        model.set("tokenizer.ggml.model", "none")
        for tensor in file.gguf.tensors {
            var bytes = Array(file.gguf.bytes(tensor))
            let isTurned = tensor.name.contains(".attn_q.") || tensor.name.contains(".attn_k.")
            if architecture == "llama", isTurned {
                let count = tensor.dimensions.last!
                bytes = inPairs(bytes, rows: count, headDim: c.headDim)
            }
            model.tensors.append(
                .init(name: tensor.name, dimensions: tensor.dimensions, type: tensor.type, bytes: bytes))
        }
        if case .divided(let divisors) = c.ropeScaling {
            let bytes = divisors.flatMap { withUnsafeBytes(of: $0) { Array($0) } }
            model.tensors.append(
                .init(name: "rope_freqs.weight", dimensions: [divisors.count], type: .f32, bytes: bytes))
        }
        return model
    }

    /// [heads, 2, half, ...] to [heads, half, 2, ...].
    private func inPairs(_ bytes: [UInt8], rows: Int, headDim: Int) -> [UInt8] {
        let size = bytes.count / rows
        var result: [UInt8] = []
        for head in 0..<rows / headDim {
            for place in 0..<headDim / 2 {
                for half in 0..<2 {
                    let row = head * headDim + half * headDim / 2 + place
                    result += bytes[row * size..<(row + 1) * size]
                }
            }
        }
        return result
    }

    private func imported(_ model: PlainModel, overrides: [String] = []) throws -> ModelFile {
        try scratch.write("source.gguf", model.bytes)
        try Converter.convert(
            .init(input: scratch / "source.gguf", output: scratch / "native.gguf", overrides: Overrides(overrides)))
        return try ModelFile(path: scratch / "native.gguf")
    }

    @Test(arguments: [("llama3-scaling", "llama"), ("qwen2-biases", "qwen2"), ("qwen3-dense", "qwen3")])
    func filesOfOtherToolsAreTheCheckpoint(_ fixture: String, _ architecture: String) throws {
        let expected = try native(fixture)
        let found = try imported(plain(expected, architecture))
        #expect(found.configuration == expected.configuration)
        #expect(found.gguf.tensors.map(\.name) == expected.gguf.tensors.map(\.name))
        for (a, b) in zip(found.gguf.tensors, expected.gguf.tensors) {
            #expect(Array(found.gguf.bytes(a)) == Array(expected.gguf.bytes(b)), "\(a.name)")
        }
    }

    @Test func configurations() throws {
        let llama = try native("llama3-scaling").configuration
        #expect(llama.expertCount == 0 && llama.expertsPerToken == [0, 0] && !llama.qkNorm && llama.tiedEmbeddings)
        guard case .divided(let divisors) = llama.ropeScaling else {
            Issue.record("not scaled: \(llama.ropeScaling)")
            return
        }
        // A fast pair as ever, two on the ramp, the others by the whole factor.
        #expect(divisors.count == 8 && divisors[0] == 1 && divisors[3...].allSatisfy { $0 == 8 })
        #expect(divisors[1] > 1 && divisors[1] < divisors[2] && divisors[2] < 8)
        let qwen2 = try native("qwen2-biases")
        #expect(!qwen2.configuration.qkNorm && qwen2.configuration.expertIntermediateSize == 0)
        let layer = qwen2.weights.layers[1]
        #expect(layer.queryBias != nil && layer.keyBias != nil && layer.valueBias != nil && layer.outputBias == nil)
        #expect(try native("qwen3-dense").configuration.qkNorm)
    }

    /// The list of a config's end tokens.
    @Test func generationStopsAtEachEndToken() throws {
        #expect(try native("llama3-scaling").chatFormat?.stopTokens == [1, 2])
    }

    @Test func mixturesOfLlamaAreRefused() throws {
        var model = plain(try native("llama3-scaling"), "llama")
        model.set(".expert_count", UInt32(8))
        try scratch.write("source.gguf", model.bytes)
        let error = sigmaError {
            try Converter.convert(.init(input: scratch / "source.gguf", output: scratch / "o.gguf", overrides: .none))
        }
        #expect(error?.kind == .damaged && error?.item == "llama.expert_count")
    }

    @Test func otherDivisorsAreRefused() throws {
        var model = plain(try native("llama3-scaling"), "llama")
        model.change("rope_freqs.weight") {
            $0.dimensions = [4]
            $0.bytes = Array($0.bytes.prefix(16))
        }
        try scratch.write("source.gguf", model.bytes)
        let error = sigmaError {
            try Converter.convert(.init(input: scratch / "source.gguf", output: scratch / "o.gguf", overrides: .none))
        }
        #expect(error?.item == "rope_freqs.weight" && error?.message.contains("[8]") == true)
    }

    /// A file's quantized weights in f32 are the same numbers.
    @Test(arguments: [WeightType.q4_1, .q6_k, .iq4_xs, .mxfp4]) func widenedWeightsAreEqual(_ type: WeightType) throws {
        try scratch.write("source.gguf", PlainModel(seed: 3) { _ in type }.bytes)
        for (name, wanted) in [("own.gguf", nil), ("wide.gguf", WeightType.f32)] {
            try Converter.convert(
                .init(input: scratch / "source.gguf", output: scratch / name, type: wanted, overrides: .none))
        }
        let (own, wide) = (try ModelFile(path: scratch / "own.gguf"), try ModelFile(path: scratch / "wide.gguf"))
        #expect(own.weights.types == [type, .f32] && wide.weights.types == [.f32])
        for (a, b) in [
            (own.weights.embedding, wide.weights.embedding), (own.weights.layers[1].key, wide.weights.layers[1].key),
        ] {
            for row in [0, 17, a.rows - 1] {
                var values = [Float](repeating: .nan, count: a.columns)
                sigma_dequantize_row(
                    Int32(a.type.rawValue), a.data(row: row / 16 * 16), Int32(row % 16), a.columns, &values)
                let found = b.data(row: row).assumingMemoryBound(to: Float.self)
                #expect(values.indices.allSatisfy { values[$0].bitPattern == found[$0].bitPattern })
            }
        }
    }
}
