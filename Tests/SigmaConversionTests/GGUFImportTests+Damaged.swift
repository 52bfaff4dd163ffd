import SampleFiles
import Sigma
import SigmaConversion
import Testing

extension GGUFImportTests {
    // MARK: damaged and other files

    func expectRefused(
        _ model: PlainModel, _ item: String?, _ message: String, kind: SigmaError.Kind = .damaged,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try scratch.write("source.gguf", model.bytes)
        let before = scratch.files
        let error = sigmaError { try convert("source.gguf", to: "refused.gguf") }
        #expect(error?.kind == kind, sourceLocation: sourceLocation)
        #expect(error?.item == item, "\(error?.description ?? "no error")", sourceLocation: sourceLocation)
        #expect(
            error?.message.contains(message) == true, "\(error?.description ?? "no error")",
            sourceLocation: sourceLocation)
        #expect(scratch.files == before, "something was left behind", sourceLocation: sourceLocation)
    }
    func expectRefused(
        _ item: String?, _ message: String, sourceLocation: SourceLocation = #_sourceLocation,
        _ change: (inout PlainModel) -> Void
    ) throws {
        var model = PlainModel { _ in .q4_0 }
        change(&model)
        try expectRefused(model, item, message, sourceLocation: sourceLocation)
    }

    @Test func otherArchitectures() throws {
        try expectRefused("general.architecture", "qwen2 or llama, found 'mamba'") { $0.architecture = "mamba" }
    }
    /// Tensors in any part, metadata in the first; the same file comes out as from a whole one.
    @Test func partsOfAModel() throws {
        let whole = PlainModel { _ in .q4_0 }
        _ = try imported(whole)
        let expected = try scratch.read("native.gguf")
        func part(_ number: Int, _ change: (inout PlainModel) -> Void = { _ in }) throws {
            var part = whole
            if number > 0 { part.removeKeys() }
            part.tensors = whole.tensors.enumerated().filter { $0.offset % 3 == number }.map(\.element)
            part.set("split.no", UInt32(number))
            part.set("split.count", UInt32(3))
            part.set("split.tensors.count", Int32(whole.tensors.count))
            change(&part)
            try scratch.write("m-0000\(number + 1)-of-00003.gguf", part.bytes)
        }
        for number in 0..<3 { try part(number) }
        try convert("m-00001-of-00003.gguf", to: "m.gguf", overrides: ["name=source"])
        #expect(try scratch.read("m.gguf") == expected)

        func error(_ input: String = "m-00001-of-00003.gguf") -> SigmaError? {
            sigmaError { try convert(input, to: "refused.gguf") }
        }
        // A later part has no metadata, and is named for what it is.
        let later = try #require(error("m-00002-of-00003.gguf"))
        #expect(later.message.contains("part 2 of 3") && later.item == "split.no")
        #expect(later.remedy?.description.contains(scratch / "m-00001-of-00003.gguf") == true)
        try part(2) { $0.set("split.no", UInt32(1)) }
        #expect(error()?.item == "split.no")
        try part(2) { $0.tensors.removeLast() }
        #expect(error()?.item == "split.tensors.count")
        try part(2) { $0.tensors[0] = whole.tensors[0] }
        #expect(error()?.message.contains("two parts") == true)
        try part(2) { $0.tensors[0].type = GGMLType.number(3)! }
        #expect(error()?.kind == .damaged)
        try scratch.remove("m-00003-of-00003.gguf")
        #expect(error()?.kind == .noInput && error()?.path?.hasSuffix("m-00003-of-00003.gguf") == true)
        try expectRefused("split.count", "must end with -00001-of-00003.gguf") {
            $0.set("split.count", UInt32(3))
            $0.set("split.no", UInt32(0))
        }
        try expectRefused("split.count", "at most 4096") { $0.set("split.count", UInt32.max) }
    }
    @Test func missingKey() throws {
        try expectRefused("qwen3moe.embedding_length", "missing") { $0.remove(".embedding_length") }
    }
    @Test func keyOfAnotherKind() throws {
        try expectRefused("qwen3moe.block_count", "integer") { $0.set(".block_count", "two") }
    }
    @Test(arguments: [UInt32(0), 1025, .max]) func layers(_ count: UInt32) throws {
        try expectRefused("qwen3moe.block_count", "1 to 1024") { $0.set(".block_count", count) }
    }
    @Test func noHeads() throws {
        try expectRefused("qwen3moe.attention.head_count", "heads") { $0.set(".attention.head_count", UInt32(0)) }
    }
    @Test func otherValueLength() throws {
        try expectRefused("qwen3moe.attention.value_length", "key length") {
            $0.set(".attention.value_length", UInt32(32))
        }
    }
    @Test func partialRotation() throws {
        try expectRefused("qwen3moe.rope.dimension_count", "key length") { $0.set(".rope.dimension_count", UInt32(32)) }
    }
    @Test func noExpertsForAToken() throws {
        try expectRefused("qwen3moe.expert_used_count", "1 or more") { $0.set(".expert_used_count", UInt32(0)) }
    }
    @Test func nonsense() throws {
        try expectRefused(nil, "makes no sense") { $0.set(".attention.head_count_kv", UInt32(3)) }
        try expectRefused(nil, "makes no sense") { $0.set(".attention.layer_norm_rms_epsilon", Float(0)) }
        try expectRefused(nil, "experts per token") { $0.set(".expert_used_count", UInt32(4)) }
    }
    @Test func fewerExpertsThanTheTensorsHold() throws {
        try expectRefused("blk.0.ffn_gate_exps.weight", "expected 2 experts, found 3") {
            $0.set(".expert_count", UInt32(2))
        }
    }
    @Test func moreLayersThanTensors() throws {
        try expectRefused("blk.2.attn_norm.weight", "missing") { $0.set(".block_count", UInt32(3)) }
    }
    @Test func fewerLayersThanTensors() throws {
        try expectRefused("blk.1.attn_norm.weight", "no place") { $0.set(".block_count", UInt32(1)) }
        var model = PlainModel { _ in .q4_0 }
        model.set(".block_count", UInt32(1))
        #expect(try imported(model, overrides: ["unknown_tensors=ignore"]).configuration.layerCount == 1)
    }
    @Test func missingTensor() throws {
        try expectRefused("blk.1.ffn_down_exps.weight", "missing") { $0.remove("blk.1.ffn_down_exps.weight") }
        try expectRefused("token_embd.weight", "missing") { $0.remove("token_embd.weight") }
    }
    @Test func otherShape() throws {
        try expectRefused("blk.0.attn_k.weight", "expected dimensions [256, 128], found [256, 64]") {
            $0.change("blk.0.attn_k.weight") {
                $0.dimensions = [256, 64]
                $0.bytes.removeLast($0.bytes.count / 2)
            }
        }
        try expectRefused("blk.0.ffn_up_exps.weight", "expected dimensions [256, 256, 3], found [512, 128, 3]") {
            $0.change("blk.0.ffn_up_exps.weight") { $0.dimensions = [512, 128, 3] }
        }
        try expectRefused("blk.0.ffn_up_exps.weight", "expected 3 experts, found 256") {
            $0.change("blk.0.ffn_up_exps.weight") { $0.dimensions = [256, 3, 256] }
        }
    }
    @Test func notFinite() throws {
        try expectRefused("blk.1.ffn_norm.weight", "finite") {
            $0.change("blk.1.ffn_norm.weight") {
                $0.bytes[7] = 0x7f
                $0.bytes[6] = 0xc0
            }
        }
    }
    @Test func checkpointOverridesMeanNothing() throws {
        try scratch.write("source.gguf", PlainModel { _ in .q4_0 }.bytes)
        let error = sigmaError { try convert("source.gguf", to: "native.gguf", overrides: ["hidden_size=5"]) }
        #expect(error?.kind == .usage && error?.message.contains("hidden_size") == true)
        try convert("source.gguf", to: "native.gguf", overrides: ["name=other", "chat.opens_thinking=true"])
        let native = try ModelFile(path: scratch / "native.gguf")
        #expect(native.name == "other" && native.chatFormat?.opensThinking == true)
    }
    @Test func theInputIsNotOverwritten() throws {
        let bytes = PlainModel { _ in .q4_0 }.bytes
        try scratch.write("source.gguf", bytes)
        #expect(sigmaError { try convert("source.gguf", to: "source.gguf") }?.kind == .usage)
        #expect(try scratch.read("source.gguf") == bytes)
    }
    /// What is damaged must not get a fresh checksum.
    @Test func damagedNativeFilesAreNotExported() throws {
        let native = try imported(PlainModel { _ in .q4_k })
        var bytes = try scratch.read("native.gguf")
        bytes[native.gguf.tensors[2].offset + 5] ^= 1
        try scratch.write("damaged.gguf", bytes)
        let error = sigmaError { try convert("damaged.gguf", to: "plain.gguf", form: .plainGGUF) }
        #expect(error?.kind == .damaged && error?.message.contains("checksum") == true)
        #expect(error?.item == native.gguf.tensors[2].name)
    }
}
