import Sigma
import SigmaConversion
import Testing

/// `tokenizer.json` and `.tiktoken` folders, and the chat format that goes with them.
@Suite struct TokenizerImportTests {
    private let scratch: Scratch
    /// A Sigma checkpoint of 96 rows without a tokenizer.
    init() throws {
        scratch = try Scratch()
        try scratch.copyFixture("sigma-top1")
    }

    private func read(_ overrides: [String] = []) throws -> TokenizerImport {
        try TokenizerImport(scratch.path, scratch.configuration(overrides), overrides: Overrides(overrides))
    }
    private func expectRefused(
        _ item: String?, _ message: String = "", kind: SigmaError.Kind = .damaged, _ overrides: [String] = [],
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let error = sigmaError { _ = try read(overrides) }
        #expect(error?.kind == kind, "\(error?.description ?? "no error")", sourceLocation: sourceLocation)
        #expect(error?.item == item, "\(error?.description ?? "no error")", sourceLocation: sourceLocation)
        #expect(
            error?.message.contains(message) != false, "\(error?.description ?? "no error")",
            sourceLocation: sourceLocation)
    }

    // MARK: tokenizer.json

    private func write(_ change: (inout TokenizerParts) -> Void = { _ in }) throws {
        var parts = TokenizerParts()
        change(&parts)
        try scratch.write("tokenizer.json", parts.text)
    }
    private func definition(_ overrides: [String] = []) throws -> TokenizerDefinition {
        try #require(try read(overrides).definition)
    }

    /// Thinking is found in text, so its tags must come out of the decoder as text.
    @Test func thinkingTagsAreText() throws {
        try write {
            $0.added =
                #"[{"id":7,"content":"<|endoftext|>","special":true},{"id":8,"content":"<think>","special":true},{"id":9,"content":"</think>","special":true}]"#
        }
        #expect(try definition().kinds[7...] == [.control, .added, .added])
    }

    @Test func tokensAndMerges() throws {
        try write()
        let read = try definition()
        #expect(
            read.tokens == [
                [0x61], [0x62], [0x20], [0x61, 0x62], [0x20, 0x61, 0x62], [0xc3], [0xa9], Array("<|endoftext|>".utf8),
                Array("<tool>".utf8),
            ])
        #expect(read.kinds == [.normal, .normal, .normal, .normal, .normal, .normal, .normal, .control, .added])
        #expect(read.mergeRule == .listed([.init(0, 1), .init(2, 3)], ignoringMerges: false))
        #expect(read.pattern == .gpt2)
        #expect(read.normalizer == .none)
        #expect(read.bos == 7)
        #expect(read.eos == 7)
        #expect(!read.addsBos)
    }

    @Test func ignoreMerges() throws {
        try write { $0.modelExtra = #","ignore_merges":true"# }
        #expect(try definition().mergeRule == .listed([.init(0, 1), .init(2, 3)], ignoringMerges: true))
    }

    @Test func holesAndDummies() throws {
        try write {
            $0.added =
                #"[{"id":9,"content":"<|end|>","special":true},{"id":10,"content":"<|dummy_3|>","special":true}]"#
        }
        let read = try definition()
        #expect(read.tokens.count == 11)
        #expect(read.kinds[7...] == [.unused, .unused, .control, .unused])
        #expect(read.tokens[10].isEmpty)
    }

    @Test func addedTokensInTheVocabulary() throws {
        try write { $0.vocabulary = #"{"a":0,"b":1,"Ġ":2,"ab":3,"Ġab":4,"Ã":5,"©":6,"<|endoftext|>":7}"# }
        #expect(try definition().kinds[7] == .control)
        try write { $0.vocabulary = #"{"a":0,"b":1,"Ġ":2,"ab":3,"Ġab":4,"Ã":5,"©":6,"other":7}"# }
        expectRefused("model.vocab", "added token too")
    }

    /// What added tokens ask of the text around them, and in the model file too.
    @Test func flagsOfAddedTokens() throws {
        try write {
            $0.added =
                #"[{"id":7,"content":"<|endoftext|>","special":true,"lstrip":true,"rstrip":true},{"id":8,"content":"<tool>","single_word":true,"lstrip":false}]"#
        }
        try scratch.write(
            "tokenizer_config.json",
            #"{"added_tokens_decoder":{"7":{"content":"<|endoftext|>","special":true},"9":{"content":"<|x|>","special":true,"rstrip":true}}}"#
        )
        let read = try read()
        #expect(
            read.definition?.matching == [7: [.stripsLeft, .stripsRight], 8: .singleWord, 9: .stripsRight])
        #expect(!read.warnings.contains { $0.contains("strip") })
        try scratch.write("x.tiktoken", ranks)
        try scratch.remove("tokenizer.json")
        try scratch.write(
            "tokenizer_config.json",
            #"{"added_tokens_decoder":{"4":{"content":"<|endoftext|>"},"5":{"content":"<|user|>","rstrip":true}}}"#)
        #expect(try definition().matching == [5: .stripsRight])
    }

    /// Of a token that must be a word of its own no prompt can be made.
    @Test func markupThatCannotBeWritten() throws {
        try write {
            $0.added = TokenizerParts.markup.replacing(
                #""<|user|>","special":true"#, with: #""<|user|>","special":true,"single_word":true"#)
        }
        expectRefused("single_word", "<|user|>")
        try write {
            $0.added = TokenizerParts.markup.replacing(
                #""<|user|>","special":true"#, with: #""<|user|>","special":true,"rstrip":true"#)
        }
        #expect(try read().definition?.matching == [9: .stripsRight])
    }

    @Test func addedTokensOfTheSettings() throws {
        try write()
        try scratch.write(
            "tokenizer_config.json",
            #"{"added_tokens_decoder":{"7":{"content":"<|endoftext|>","special":true},"9":{"content":"<|x|>","special":true}}}"#
        )
        let read = try definition()
        #expect(read.kinds[7...] == [.control, .added, .control])
        #expect(Array(read.tokens[9]) == Array("<|x|>".utf8))
    }

    static let o200k =
        #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    static let qwen2 =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#

    private func split(
        _ expression: String, behavior: String = "Isolated", invert: Bool = false, useRegex: Bool = false
    ) -> String {
        var json = JSONWriter()
        json.object {
            $0.field("type", "Sequence")
            $0.array("pretokenizers") {
                $0.object {
                    $0.field("type", "Split")
                    $0.object("pattern") { $0.field("Regex", expression) }
                    $0.field("behavior", behavior)
                    $0.field("invert", invert)
                }
                $0.object {
                    $0.field("type", "ByteLevel")
                    $0.field("add_prefix_space", false)
                    $0.field("use_regex", useRegex)
                }
            }
        }
        return json.text
    }

    @Test func splitPatterns() throws {
        try write { $0.preTokenizer = split(Self.o200k) }
        #expect(try definition().pattern == .o200k)
        try write { $0.preTokenizer = split(Self.qwen2) }
        #expect(try definition().pattern == .qwen2)
        try write { $0.preTokenizer = split(Self.o200k, behavior: "Removed", invert: true) }
        #expect(try definition().pattern == .o200k)
    }

    @Test func otherSplitsAreRefused() throws {
        for other in [
            split(#"\w+"#), split(Self.o200k + " "), split(Self.o200k, behavior: "Removed"),
            split(Self.o200k, behavior: "MergedWithNext"),
            split(Self.qwen2, useRegex: true), #"{"type":"Whitespace"}"#, "null", #"{"type":"ByteLevel"}"#,
            #"{"type":"ByteLevel","add_prefix_space":true}"#, #"{"type":"Sequence","pretokenizers":[]}"#,
            #"{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}"#,
        ] {
            try write { $0.preTokenizer = other }
            expectRefused("pre_tokenizer")
        }
        try write { $0.preTokenizer = split(#"\w+"#) }
        expectRefused("pre_tokenizer", #"\w+"#)
    }

    @Test func normalizers() throws {
        for (text, expected) in [
            (#"{"type":"NFC"}"#, TokenizerDefinition.Normalizer.nfc),
            (#"{"type":"Sequence","normalizers":[{"type":"NFC"}]}"#, .nfc),
            (#"{"type":"Sequence","normalizers":[]}"#, .none),
        ] {
            try write { $0.normalizer = text }
            #expect(try definition().normalizer == expected)
        }
        try write { $0.normalizer = #"{"type":"NFKC"}"# }
        expectRefused("normalizer", "NFKC")
    }

    @Test func beginningOfText() throws {
        let template =
            #"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<|endoftext|>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<|endoftext|>":{"id":"<|endoftext|>","ids":[7],"tokens":["<|endoftext|>"]}}}"#
        try write { $0.postProcessor = template }
        #expect(try definition().addsBos)
        #expect(try definition().bos == 7)
        #expect(try !definition(["tokenizer.add_bos=false"]).addsBos)
        try write { $0.postProcessor = "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},\(template)]}" }
        #expect(try definition().addsBos)
        try write()
        #expect(try !definition().addsBos)
        try scratch.write("tokenizer_config.json", #"{"add_bos_token":true,"bos_token":{"content":"<tool>"}}"#)
        #expect(try definition().addsBos)
        #expect(try definition().bos == 8)
        try write {
            $0.postProcessor =
                #"{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},{"SpecialToken":{"id":"x"}}]}"#
        }
        expectRefused("post_processor")
        for id in ["299", "4000000"] {
            try write { $0.postProcessor = template.replacing("[7]", with: "[\(id)]") }
            expectRefused("post_processor")
        }
        try scratch.write("tokenizer_config.json", #"{"bos_token":"<nothing>"}"#)
        try write()
        expectRefused("bos_token")
    }

    @Test func damagedParts() throws {
        func refused(_ item: String, _ change: (inout TokenizerParts) -> Void) throws {
            try write(change)
            expectRefused(item)
        }
        try refused("model.vocab") { $0.vocabulary = "[]" }
        try refused("model.vocab") { $0.vocabulary = #"{"a":0,"b":0}"# }
        try refused("model.vocab") { $0.vocabulary = #"{"a":-1}"# }
        try refused("model.vocab") { $0.vocabulary = #"{"a":99999999}"# }
        try refused("model.vocab") { $0.vocabulary = #"{"a b":0}"# }
        try refused("model.merges") { $0.merges = #"["a"]"# }
        try refused("model.merges") { $0.merges = #"["a x"]"# }
        try refused("model.merges") { $0.merges = #"["b a"]"# }
        try refused("model.merges") { $0.merges = #"[["a","b","a"]]"# }
        try refused("model.merges") { $0.merges = "7" }
        try refused("added_tokens") { $0.added = #"[{"id":7,"content":""}]"# }
        try refused("added_tokens") { $0.added = #"[{"id":7,"content":"x"},{"id":7,"content":"y"}]"# }
        try refused("model.byte_fallback") { $0.modelExtra = #","byte_fallback":true"# }
        try refused("model.continuing_subword_prefix") { $0.modelExtra = #","continuing_subword_prefix":"@@""# }
        try scratch.write("tokenizer.json", #"{"model":{"type":"WordPiece"}}"#)
        expectRefused("model.type", "WordPiece")
        try scratch.write("tokenizer.json", "{}")
        expectRefused("model")
    }

    @Test func tokensBeyondTheEmbedding() throws {
        try write { $0.added = #"[{"id":96,"content":"<|end|>","special":true}]"# }
        expectRefused(nil, "no row in the embedding")
        try write {
            $0.added = #"[{"id":95,"content":"<|end|>","special":true},{"id":96,"content":"<|dummy|>","special":true}]"#
        }
        #expect(try definition().tokens.count == 96)
    }

    @Test func noTokenizer() throws {
        let read = try read()
        #expect(read.definition == nil)
        #expect(read.warnings.count == 1)
    }

    /// Other kinds of tokenizers are named, and what makes one that is read.
    @Test(arguments: [["vocab.json", "merges.txt"], ["tokenizer.model"], ["vocab.txt"]])
    func otherTokenizers(_ names: [String]) throws {
        for name in names { try scratch.write(name, "x") }
        let read = try read()
        #expect(read.definition == nil && read.warnings.count == 1)
        for name in names { #expect(read.warnings[0].contains(name)) }
        #expect(read.warnings[0].contains("save_pretrained('\(scratch.path)')"))
        try write()
        #expect(try self.read().definition != nil)
    }

    /// A `.tiktoken` file of another family is not read in silence.
    @Test func tiktokenOfAnotherFamily() throws {
        let qwen = try Scratch()
        try qwen.copyFixture("qwen3moe")
        try qwen.write("qwen.tiktoken", ranks)
        let read = try TokenizerImport(qwen.path, qwen.configuration(), overrides: Overrides())
        #expect(read.definition == nil && read.warnings[0].contains("qwen.tiktoken"))
    }

    // MARK: .tiktoken

    /// "!" 0, "a" 1, " a" 2.
    private let ranks = "IQ== 0\nYQ== 1\nIGE= 2\n"

    @Test func tiktoken() throws {
        try scratch.write("x.tiktoken", ranks)
        try scratch.write(
            "tokenizer_config.json",
            #"{"added_tokens_decoder":{"4":{"content":"<|endoftext|>","special":true},"5":{"content":"<|user|>","special":true},"6":{"content":"<|dummy_0|>","special":true},"8":{"content":"<x>","special":false}}}"#
        )
        let read = try definition()
        #expect(
            read.tokens == [
                [0x21], [0x61], [0x20, 0x61], [], Array("<|endoftext|>".utf8), Array("<|user|>".utf8), [], [],
                Array("<x>".utf8),
            ])
        #expect(read.kinds == [.normal, .normal, .normal, .unused, .control, .control, .unused, .unused, .added])
        #expect(read.mergeRule == .byRank)
        #expect(read.pattern == .o200k)
        #expect([read.bos, read.eos] == [4, 4])
    }

    @Test func tiktokenSpecialsFromTheTable() throws {
        try scratch.write("x.tiktoken", ranks)
        // The table's ids are beyond this little embedding.
        expectRefused(nil, "199999")
        let given = #"tokenizer.specials={"<|endoftext|>":3,"<|end|>":4}"#
        #expect(try definition([given]).kinds == [.normal, .normal, .normal, .control, .control])
        expectRefused(nil, kind: .usage, ["tokenizer.specials=nonsense"])
        expectRefused(nil, kind: .usage, [#"tokenizer.specials={"x":-1}"#])
        expectRefused(nil, "has a token already", [#"tokenizer.specials={"x":1}"#])
    }

    @Test func olderTablesAreRefused() throws {
        try scratch.write("x.tiktoken", ranks)
        try scratch.write(
            "tokenizer_config.json", #"{"chat_template":"{{ '<|im_start|>' }}","added_tokens_decoder":{}}"#)
        expectRefused("chat_template")
        let error = sigmaError { _ = try read() }
        #expect(error?.remedy?.description.contains("--override") == true)
        _ = try definition([#"tokenizer.specials={"<|endoftext|>":3}"#])
    }

    @Test(arguments: [
        "", "IQ==", "IQ== x", "IQ== -1", "IQ= 0", "I!== 0", "IR== 0", " 0", "IQ== 0\nIQ== 0", "IQ== 99999999",
        "====  0",
    ])
    func damagedTiktoken(_ text: String) throws {
        try scratch.write("x.tiktoken", text)
        #expect(sigmaError { _ = try read() }?.kind == .damaged)
    }

    @Test func twoTiktokenFiles() throws {
        try scratch.write("x.tiktoken", ranks)
        try scratch.write("y.tiktoken", ranks)
        expectRefused(nil, "x.tiktoken, y.tiktoken")
    }

    @Test func tokenizerJSONComesFirst() throws {
        try scratch.write("x.tiktoken", ranks)
        try write()
        #expect(try definition().pattern == .gpt2)
        #expect(try read().warnings.contains { $0.contains("x.tiktoken") })
        expectRefused(nil, kind: .usage, ["tokenizer.specials=sigma"])
    }

    @Test func inTheModelFile() throws {
        let folder = packageRoot + "/Models/demo/checkpoint"
        let output = scratch.path + "/demo.gguf"
        let overrides = try Overrides()
        try Converter.convert(.init(input: folder, output: output, overrides: overrides))
        let read = try TokenizerImport(
            folder, CheckpointConfiguration(Checkpoint(folder: folder), overrides: overrides), overrides: overrides)
        let model = try ModelFile(path: output)
        #expect(try model.tokenizerDefinition() == read.definition)
        #expect(model.chatFormat == read.chatFormat)
    }

    /// A vocabulary that cannot write every text is refused before a model file is made of it.
    @Test func incompleteAlphabetsAreNotConverted() throws {
        try write { $0.added = TokenizerParts.markup }
        let error = sigmaError { _ = try scratch.convert() }
        #expect(error?.kind == .damaged && error?.path == scratch.path && error?.message.contains("byte") == true)
    }
}
