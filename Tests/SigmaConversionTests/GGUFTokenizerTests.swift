import SampleFiles
import Sigma
import SigmaConversion
import Testing

/// Tokenizers and chat formats of plain GGUF files, both ways.
@Suite struct GGUFTokenizerTests {
    private let scratch: Scratch
    init() throws { scratch = try Scratch() }

    private func convert(_ input: String, to output: String, form: Converter.Options.Form = .native) throws {
        try Converter.convert(
            Converter.Options(input: input, output: scratch / output, form: form, overrides: Overrides()))
    }

    private func imported(_ change: (inout PlainModel) -> Void = { _ in }) throws -> ModelFile {
        var model = PlainModel { _ in .q4_0 }
        change(&model)
        try scratch.write("source.gguf", model.bytes)
        try convert(scratch / "source.gguf", to: "native.gguf")
        return try ModelFile(path: scratch / "native.gguf")
    }

    @Test func qwen() throws {
        let file = try imported()
        let definition = try #require(try file.tokenizerDefinition())
        #expect(definition.pattern == .qwen2 && definition.normalizer == .nfc)
        #expect(definition.bos == 259 && definition.eos == 261 && !definition.addsBos)
        // The tags are text, whatever the file calls them; rows without a token are unused.
        #expect(definition.kinds[259...264] == [.control, .control, .control, .added, .added, .unused])
        #expect(
            definition.mergeRule
                == .listed(
                    [.init(116, 104), .init(256, 101), .init(105, 110)], ignoringMerges: false))
        let tokenizer = try Tokenizer(definition)
        #expect(tokenizer.encode("the inn", recognizingSpecials: true) == [257, 32, 258, 110])
        let chat = try #require(file.chatFormat)
        #expect(!chat.thinks)
        #expect(chat.style == .chatml && chat.stopTokens == [261, 259] && !chat.opensThinking)
    }

    @Test func stylesOfTemplates() throws {
        #expect(try imported { $0.remove("tokenizer.chat_template") }.chatFormat?.style == .chatml)
        #expect(try imported { $0.set("tokenizer.chat_template", "<|user|>{{x}}<|end|>") }.chatFormat?.style == .chatml)
        let sigma = try imported {
            $0.set("tokenizer.chat_template", "<|user|>{{x}}<|end|>")
            $0.set(
                "tokenizer.ggml.tokens",
                strings: Self.tokens(renaming: ["<|im_start|>": "<|user|>", "<|im_end|>": "<|end|>"]))
        }
        #expect(sigma.chatFormat?.style == .sigma)
        #expect(sigma.chatFormat?.stopTokens == [261, 259])
    }

    private static func tokens(renaming names: [String: String]) -> [[UInt8]] {
        let bytes = (UInt8.min...UInt8.max).map { Array(ByteAlphabet.text(of: [$0]).utf8) }
        let named = ["th", "the", "in", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
        let unused = [[UInt8]](repeating: Array("x".utf8), count: PlainModel.vocabularySize - 264)
        return bytes + named.map { Array((names[$0] ?? $0).utf8) } + unused
    }

    @Test func modelsWithoutATokenizer() throws {
        for name in ["no_vocab", "none"] {
            #expect(try imported { $0.set("tokenizer.ggml.model", name) }.tokenizerDefinition() == nil)
        }
        // An export without one is llama.cpp's "no_vocab".
        try convert(scratch / "native.gguf", to: "plain.gguf", form: .plainGGUF)
        #expect(try GGUFFile(path: scratch / "plain.gguf")["tokenizer.ggml.model"]?.string == "no_vocab")
    }

    /// Our own vocabularies of every kind come back as they were.
    @Test func exportsComeBack() throws {
        let demo = packageRoot + "/Models/demo/checkpoint"
        try convert(demo, to: "native.gguf")
        try convert(scratch / "native.gguf", to: "plain.gguf", form: .plainGGUF)
        try convert(scratch / "plain.gguf", to: "again.gguf")
        let (first, last) = (try ModelFile(path: scratch / "native.gguf"), try ModelFile(path: scratch / "again.gguf"))
        let (before, after) = (
            try #require(try first.tokenizerDefinition()), try #require(try last.tokenizerDefinition())
        )
        #expect(first.chatFormat == last.chatFormat)
        #expect(after.kinds.prefix(before.kinds.count) == before.kinds[...])
        #expect(after.kinds.dropFirst(before.kinds.count).allSatisfy { $0 == .unused })
        #expect((0..<before.tokens.count).allSatisfy { before.tokens[$0] == after.tokens[$0] })
        #expect(before.mergeRule == after.mergeRule && before.pattern == after.pattern)
        #expect(before.normalizer == after.normalizer && before.bos == after.bos && before.eos == after.eos)
        #expect(before.addsBos == after.addsBos)
    }

    /// A vocabulary that merges by rank is told to others as pairs: every way to make each token, in the tokens' order.
    @Test func ranksAsPairs() throws {
        var tokens = TokenTable((UInt8.min...UInt8.max).map { [$0] })
        for text in ["ab", "bc", "abc", "abcd"] { tokens.append(Array(text.utf8)) }
        let definition = TokenizerDefinition(
            tokens: tokens, kinds: Array(repeating: .normal, count: tokens.count), mergeRule: .byRank, pattern: .o200k,
            normalizer: .none, bos: nil, eos: nil, addsBos: false)
        let (a, b, c, d) = (Int32(97), Int32(98), Int32(99), Int32(100))
        #expect(
            try definition.pairs() == [
                .init(a, b), .init(b, c), .init(a, 257), .init(256, c), .init(258, d),
            ])
    }

    // MARK: refusals

    private func expectRefused(
        _ item: String, _ message: String, sourceLocation: SourceLocation = #_sourceLocation,
        _ change: (inout PlainModel) -> Void
    ) {
        let error = sigmaError { _ = try imported(change) }
        #expect(error?.kind == .damaged, sourceLocation: sourceLocation)
        #expect(error?.item == item, "\(error?.description ?? "no error")", sourceLocation: sourceLocation)
        #expect(
            error?.message.contains(message) == true, "\(error?.description ?? "no error")",
            sourceLocation: sourceLocation)
    }

    @Test func sentencePiece() {
        expectRefused("tokenizer.ggml.model", "found 'llama'") { $0.set("tokenizer.ggml.model", "llama") }
    }
    @Test func otherPatterns() {
        expectRefused("tokenizer.ggml.pre", "found 'falcon'") { $0.set("tokenizer.ggml.pre", "falcon") }
        expectRefused("tokenizer.ggml.pre", "missing") { $0.remove("tokenizer.ggml.pre") }
    }
    @Test func moreTokensThanRows() {
        expectRefused("tokenizer.ggml.tokens", "expected at most 272") {
            $0.set("tokenizer.ggml.tokens", strings: [[UInt8]](repeating: Array("a".utf8), count: 273))
        }
    }
    @Test func tokensOutsideTheAlphabet() {
        expectRefused("tokenizer.ggml.tokens", "token 256 is not written") {
            $0.set("tokenizer.ggml.tokens", strings: Self.tokens(renaming: ["th": "t h"]))
        }
        expectRefused("tokenizer.ggml.tokens", "token 256 is empty") {
            $0.set("tokenizer.ggml.tokens", strings: Self.tokens(renaming: ["th": ""]))
        }
    }
    @Test func kindsOfTokens() {
        expectRefused("tokenizer.ggml.token_type", "expected 272 entries") {
            $0.set("tokenizer.ggml.token_type", [Int32(1)])
        }
        expectRefused("tokenizer.ggml.token_type", "token 0: expected 1") {
            $0.set("tokenizer.ggml.token_type", [Int32](repeating: 6, count: 272))
        }
    }
    @Test(arguments: ["th", "t h e", " th", "th ", "t q", "i h", "é h"]) func merges(_ merge: String) {
        expectRefused("tokenizer.ggml.merges", "merge 1") {
            $0.set("tokenizer.ggml.merges", strings: ["t h", merge].map { Array($0.utf8) })
        }
    }
    @Test func missingMerges() {
        expectRefused("tokenizer.ggml.merges", "missing") { $0.remove("tokenizer.ggml.merges") }
    }
    @Test func beginOfText() {
        expectRefused("tokenizer.ggml.bos_token_id", "below 272") { $0.set("tokenizer.ggml.bos_token_id", UInt32(272)) }
        expectRefused("tokenizer.ggml.add_bos_token", "names none") {
            $0.set("tokenizer.ggml.add_bos_token", true)
            $0.remove("tokenizer.ggml.bos_token_id")
        }
    }
}
