import SampleFiles
import Sigma
import SigmaConversion
import SigmaStudies
import Testing

/// GGUF files for something else than running a model, and what plain files leave unsaid.
@Suite struct GGUFKindsTests {
    private let scratch: Scratch
    init() throws { scratch = try Scratch() }

    private func import_(_ change: (inout PlainModel) -> Void, _ overrides: [String] = []) throws -> (
        ModelFile, [String]
    ) {
        var model = PlainModel { _ in .q4_0 }
        change(&model)
        try scratch.write("source.gguf", model.bytes)
        var warnings: [String] = []
        try Converter.convert(
            .init(
                input: scratch / "source.gguf", output: scratch / "native.gguf", overrides: Overrides(overrides),
                threads: 2), warn: { warnings.append($0) })
        return (try ModelFile(path: scratch / "native.gguf"), warnings)
    }

    static let kinds: [(change: @Sendable (inout PlainModel) -> Void, word: String)] = [
        ({ $0.set("general.type", "adapter") }, "adapter"), ({ $0.set("adapter.type", "lora") }, "adapter"),
        ({ $0.set("general.type", "mmproj") }, "projector"), ({ $0.architecture = "clip" }, "projector"),
        ({ $0.set("general.type", "imatrix") }, "importance"),
        ({ $0.set("imatrix.chunk_count", UInt32(1)) }, "importance"),
        ({ $0.set("general.type", "vocab") }, "vocabulary"), ({ $0.tensors = [] }, "vocabulary"),
        ({ $0.set("general.type", "quilt") }, "'quilt'"),
        (
            {
                $0.set("split.no", UInt32(1))
                $0.set("split.count", UInt32(2))
            }, "part 2 of 2"
        ),
    ]

    @Test(arguments: kinds.indices) func filesForSomethingElse(_ index: Int) throws {
        let error = try #require(sigmaError { _ = try import_(Self.kinds[index].change) })
        #expect(error.kind == .damaged && error.message.contains(Self.kinds[index].word), "\(error)")
        // The same where a model is to be loaded: to convert it would be bad advice.
        let loaded = try #require(sigmaError { _ = try ModelFile(path: scratch / "source.gguf") })
        #expect(loaded.message == error.message && loaded.remedy?.description.contains("sigma-convert") != true)
    }

    @Test func importanceMatricesOfLlama() throws {
        try scratch.copyFixture("sigma-top1")
        let configuration = try scratch.configuration().model
        func error(_ bytes: [UInt8]) throws -> SigmaError? {
            try scratch.write("imatrix", bytes)
            return sigmaError { _ = try ImportanceMatrix(path: scratch / "imatrix", for: configuration) }
        }
        var newer = PlainModel { _ in .q4_0 }
        newer.set("general.type", "imatrix")
        func number(_ value: Int32) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
        let name = "blk.0.attn_q.weight"
        let older =
            number(1) + number(Int32(name.utf8.count)) + Array(name.utf8) + number(10) + number(1) + [0, 0, 128, 63]
        for bytes in [newer.bytes, older] {
            let error = try error(bytes)
            #expect(
                error?.kind == .damaged && error?.message.contains("llama.cpp") == true, "\(error?.description ?? "")")
            #expect(error?.remedy?.description.contains("sigma-eval imatrix") == true)
        }
        #expect(try error(number(1) + number(4000) + [1, 2, 3, 4])?.message.contains("llama.cpp") == false)
    }

    @Test func ropeBaseUnsaid() throws {
        let (model, warnings) = try import_ { $0.remove(".rope.freq_base") }
        #expect(model.configuration.ropeTheta == 10_000)
        #expect(warnings.count(where: { $0.contains("qwen3moe.rope.freq_base") && $0.contains("--override") }) == 1)
        let (given, silent) = try import_({ $0.remove(".rope.freq_base") }, ["rope_theta=1e6"])
        #expect(given.configuration.ropeTheta == 1_000_000 && silent.isEmpty)
        #expect(sigmaError { _ = try import_({ _ in }, ["rope_theta=big"]) }?.kind == .usage)
    }

    @Test func contextOfYarn() throws {
        func yarn(_ model: inout PlainModel) {
            model.set(".rope.scaling.type", "yarn")
            model.set(".rope.scaling.factor", Float(4))
            model.set(".rope.scaling.original_context_length", UInt32(32768))
            model.set(".context_length", UInt32(40960))
        }
        let (model, warnings) = try import_(yarn)
        #expect(model.configuration.contextLength == 131_072)
        #expect(warnings.count(where: { $0.contains("131072") && $0.contains("40960") }) == 1)
        #expect(try import_(yarn, ["max_position_embeddings=50000"]).0.configuration.contextLength == 50_000)
        // What was settled once stays so on the way out and back.
        try Converter.convert(
            .init(input: scratch / "native.gguf", output: scratch / "plain.gguf", form: .plainGGUF, overrides: .none))
        var again: [String] = []
        try Converter.convert(
            .init(input: scratch / "plain.gguf", output: scratch / "again.gguf", overrides: .none),
            warn: { again.append($0) })
        #expect(try ModelFile(path: scratch / "again.gguf").configuration.contextLength == 50_000 && again.isEmpty)
    }

    @Test func textsThatMeanNothing() throws {
        let (model, warnings) = try import_ {
            $0.set("general.tags", strings: [Array("fine".utf8), [0xff]])
            $0.set("general.name", "n")
        }
        #expect(model.name == "n" && warnings.isEmpty)
        let error = sigmaError { _ = try import_ { $0.set("tokenizer.ggml.merges", strings: [[0xff, 0xfe]]) } }
        #expect(error?.kind == .damaged && error?.item == "tokenizer.ggml.merges")
    }

    @Test func tiedFlagBesideAHead() throws {
        var model = PlainModel { _ in .q8_0 }
        model.architecture = "sigma"
        model.set(".tied_embeddings", true)
        try scratch.write("source.gguf", model.bytes)
        var warnings: [String] = []
        try Converter.convert(
            .init(input: scratch / "source.gguf", output: scratch / "native.gguf", overrides: .none),
            warn: { warnings.append($0) })
        #expect(try !ModelFile(path: scratch / "native.gguf").configuration.tiedEmbeddings)
        #expect(warnings.contains { $0.contains("tied_embeddings") })
    }

    // MARK: chat templates

    private static let chatml =
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"

    @Test func templatesDecide() throws {
        func format(_ end: String) throws -> (format: ChatFormat, warnings: [String]) {
            let (model, warnings) = try import_ { $0.set("tokenizer.chat_template", Self.chatml + end) }
            return (try #require(model.chatFormat), warnings)
        }
        let opens = try format("{{ '<|im_start|>assistant\\n<think>\\n' }}")
        #expect(opens.format.opensThinking && opens.format.thinks && opens.warnings.isEmpty)
        let plain = try format("{{ '<|im_start|>assistant\\n' }}")
        #expect(!plain.format.opensThinking && !plain.format.thinks && plain.warnings.isEmpty)
        let unknown = try import_ {
            $0.set("tokenizer.chat_template", "{% for m in messages %}[INST]{{ m.content }}{% endfor %}")
        }
        #expect(unknown.1.count == 1 && unknown.1[0].contains("--override chat.style=sigma"))
        let opaque = try import_ { $0.set("tokenizer.chat_template", "<|im_start|>{% include 'x' %}<think>") }
        #expect(opaque.1.count == 2 && opaque.1.contains { $0.contains("chat.opens_thinking=true") })
        #expect(try import_({ $0.remove("tokenizer.chat_template") }).0.chatFormat?.thinks == true)
    }

    /// An export's template says of thinking what the format does.
    @Test func templatesOfExports() throws {
        let ends = [
            "", "<think>\n",
            "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",
        ]
        for end in ends {
            let before = try import_ {
                $0.set("tokenizer.chat_template", Self.chatml + "<|im_start|>assistant\n" + end)
            }.0
            try Converter.convert(
                .init(
                    input: scratch / "native.gguf", output: scratch / "plain.gguf", form: .plainGGUF, overrides: .none))
            let text = try #require(try GGUFFile(path: scratch / "plain.gguf")["tokenizer.chat_template"]?.string)
            let seen = ChatTemplate(text, bos: "")
            #expect(seen.style == .chatml && seen.opensThinking == before.chatFormat?.opensThinking)
            #expect(seen.thinks == before.chatFormat?.thinks && seen.differences.isEmpty)
        }
    }
}
