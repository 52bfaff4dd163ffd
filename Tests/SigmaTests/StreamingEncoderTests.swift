import Sigma
import Testing

@Suite struct StreamingEncoderTests {
    static func encoded(_ text: [UInt8], _ tokenizer: Tokenizer, pieces: Int, limit: Int = 1 << 24) -> ([Int32], Int) {
        var encoder = StreamingEncoder(tokenizer, recognizingSpecials: true, limit: limit)
        var ids: [Int32] = []
        text.withUnsafeBytes { text in
            for first in stride(from: 0, to: text.count, by: pieces) {
                ids += encoder.append(UnsafeRawBufferPointer(rebasing: text[first..<min(first + pieces, text.count)]))
            }
        }
        return (ids + encoder.finish(), encoder.forcedCuts)
    }

    /// Every kind of end of a line that a pattern treats on its own, in random order.
    static func texts() -> [[UInt8]] {
        let parts: [[UInt8]] =
            [
                "word", "Word", "it's", " 12", "345", "\n", "\n", "\n", "\n\n", "\r\n", " \n", "\n ", "\t", ".", "!?",
                "/", "\n/a", "日本", "。",
                "\u{301}", "\u{3000}", "\u{2028}", "é", "e\u{301}", "<|end|>", "<|user|>", "'ll", "'", " ",
            ].map { Array($0.utf8) } + [[0xff], [0xe6, 0x97], [0x80], [0xf0, 0x9f]]
        var random = SplitMix64(state: 3)
        return (0..<60).map { length in
            (0..<(length * 5)).flatMap { _ in parts[Int(random.next() % UInt64(parts.count))] }
        }
    }

    @Test(arguments: TokenizerDefinition.SplitPattern.allCases)
    func piecesHaveTheIDsOfTheWhole(pattern: TokenizerDefinition.SplitPattern) throws {
        var definition = try #require(try DemoModel.file().tokenizerDefinition())
        definition.pattern = pattern
        for normalizer in TokenizerDefinition.Normalizer.allCases {
            definition.normalizer = normalizer
            let tokenizer = try Tokenizer(definition)
            for text in Self.texts() {
                let whole = tokenizer.encode(text, recognizingSpecials: true)
                for pieces in [1, 7, 64] {
                    let (ids, cuts) = Self.encoded(text, tokenizer, pieces: pieces)
                    #expect(ids == whole && cuts == 0, "\(pattern) \(normalizer) \(text)")
                }
            }
        }
    }

    @Test func memoryIsBounded() throws {
        let tokenizer = try Tokenizer(#require(try DemoModel.file().tokenizerDefinition()))
        var encoder = StreamingEncoder(tokenizer, recognizingSpecials: false, limit: 1000)
        var most = 0
        func feed(_ text: String) -> [Int32] {
            var ids: [Int32] = []
            for _ in 0..<400 {
                Array(text.utf8).withUnsafeBytes { ids += encoder.append($0) }
                most = max(most, encoder.heldBytes)
            }
            return ids + encoder.finish()
        }
        let lines = feed("A line of text.\nAnother line\n")
        #expect(encoder.forcedCuts == 0 && most < 60)
        #expect(
            lines
                == tokenizer.encode(
                    String(repeating: "A line of text.\nAnother line\n", count: 400), recognizingSpecials: false))
        // Without a line end: cut all the same, between characters, and nothing is lost.
        let text = "日本語のテキスト"
        let ids = feed(text)
        #expect(encoder.forcedCuts > 0 && most <= 1000 + text.utf8.count)
        #expect(tokenizer.decode(ids, specials: .named) == Array(String(repeating: text, count: 400).utf8))
    }
}
