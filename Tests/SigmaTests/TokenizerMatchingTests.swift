import Sigma
import Testing

/// Tokens that ask something of the text around them. The expected ids are those of Hugging Face's tokenizers 0.23 for the same vocabulary.
@Suite struct TokenizerMatchingTests {
    /// The bytes by value, then added tokens of every kind.
    private let tokenizer: Tokenizer

    init() throws {
        let names = ["<l>", "<r>", "<b>", "word", "<n>", "\t\t", "<w>"]
        tokenizer = try Tokenizer(
            TokenizerDefinition(
                tokens: TokenTable((0..<256).map { [UInt8($0)] } + names.map { Array($0.utf8) }),
                kinds: Array(repeating: .normal, count: 256) + names.map { _ in .control }, mergeRule: .byRank,
                pattern: .gpt2, normalizer: .none, bos: nil, eos: nil, addsBos: false,
                matching: [
                    256: .stripsLeft, 257: .stripsRight, 258: [.stripsLeft, .stripsRight], 259: .singleWord,
                    262: [.singleWord, .stripsLeft, .stripsRight],
                ]))
    }

    static let cases: [(text: String, ids: [Int32])] = [
        ("a <l> b", [97, 256, 32, 98]),
        ("a <r> b", [97, 32, 257, 98]),
        ("a \n<b>\u{a0}\u{3000}b", [97, 258, 98]),
        ("  <l>", [256]),
        ("<r>  ", [257]),
        // What one token has taken the next cannot.
        ("<r>  <l>", [257, 256]),
        ("<r> <n> <l>", [257, 260, 256]),
        ("a word b", [97, 32, 259, 32, 98]),
        (
            "aword word_ word1 word",
            [97, 119, 111, 114, 100, 32, 119, 111, 114, 100, 95, 32, 119, 111, 114, 100, 49, 32, 259]
        ),
        (
            "\u{e9}word word\u{e9} word\u{301} .word.",
            [
                195, 169, 119, 111, 114, 100, 32, 119, 111, 114, 100, 195, 169, 32, 119, 111, 114, 100, 204, 129, 32,
                46, 259, 46,
            ]
        ),
        ("word\u{200d}x word", [119, 111, 114, 100, 226, 128, 141, 120, 32, 259]),
        // A token of white space is found in white space that was taken.
        ("<r>\t\t\tx", [257, 261, 9, 120]),
        ("<r>\t\t<n>", [257, 261, 260]),
        ("<l><r> x <b> <b>", [256, 257, 120, 258, 258]),
        // Neither is white space: a zero-width space, a byte-order mark.
        ("a\u{200b}<l>b", [97, 226, 128, 139, 256, 98]),
        ("\u{feff}<l>", [239, 187, 191, 256]),
        ("x <w> y", [120, 262, 121]),
        ("x<w>y x <w> <w>z", [120, 60, 119, 62, 121, 32, 120, 262, 60, 119, 62, 122]),
        ("\u{2028}<l>\u{2028}", [256, 226, 128, 168]),
        ("wordword word", [119, 111, 114, 100, 119, 111, 114, 100, 32, 259]),
        ("a \u{85}<l>", [97, 256]),
    ]

    @Test(arguments: cases.indices) func sameIDsAsHuggingFace(_ index: Int) {
        let (text, ids) = Self.cases[index]
        #expect(tokenizer.encode(text, recognizingSpecials: true) == ids, "\(text.debugDescription)")
    }

    @Test func otherBytesAreNoSpaceAndNoWord() {
        #expect(tokenizer.encode([0xff] + Array("<b>".utf8) + [0xff], recognizingSpecials: true) == [255, 258, 255])
        #expect(tokenizer.encode([0x80] + Array("word".utf8) + [0xc3], recognizingSpecials: true) == [128, 259, 195])
        #expect(tokenizer.encode([], recognizingSpecials: true) == [])
    }

    @Test func nothingIsTakenWhereSpecialsAreText() {
        #expect(tokenizer.encode("a <b> b", recognizingSpecials: false) == "a <b> b".utf8.map { Int32($0) })
    }

    /// A text that comes in pieces has the ids of the whole, also where a token takes the line end before it.
    @Test func inPieces() throws {
        let names = ["end", "<r>"]
        let tokenizer = try Tokenizer(
            TokenizerDefinition(
                tokens: TokenTable((0..<256).map { [UInt8($0)] } + names.map { Array($0.utf8) }),
                kinds: Array(repeating: .normal, count: 256) + names.map { _ in .control }, mergeRule: .byRank,
                pattern: .gpt2, normalizer: .none, bos: nil, eos: nil, addsBos: false,
                matching: [256: .stripsLeft, 257: .stripsRight]))
        let text = Array("one\nend two<r>\nthree\nfour\nend\nfive".utf8)
        let whole = tokenizer.encode(text, recognizingSpecials: true)
        #expect(whole.filter { $0 == 10 }.count == 2)
        for size in 1...text.count {
            var encoder = StreamingEncoder(tokenizer, recognizingSpecials: true)
            var ids: [Int32] = []
            for start in stride(from: 0, to: text.count, by: size) {
                let piece = Array(text[start..<min(start + size, text.count)])
                ids += piece.withUnsafeBytes { encoder.append($0) }
            }
            ids += encoder.finish()
            #expect(ids == whole, "pieces of \(size)")
            #expect(encoder.forcedCuts == 0)
        }
    }
}
