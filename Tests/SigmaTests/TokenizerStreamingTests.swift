import Sigma
import Testing

@Suite struct TokenizerStreamingTests {
    @Test("Token by token, the text is the whole decoding", arguments: TokenizerFixtures.names)
    func tokens(name: String) throws {
        let tokenizer = try TokenizerFixtures.tokenizer(name)
        for example in try TokenizerFixtures.cases(name) {
            var decoder = StreamingDecoder(tokenizer)
            var text = ""
            for id in example.ids { text += decoder.append(id) }
            text += decoder.finish()
            let whole = String(decoding: tokenizer.decode(example.ids, specials: .skipped), as: UTF8.self)
            if Array(text.utf8) != Array(whole.utf8) {
                Issue.record("\(whole.debugDescription): \(text.debugDescription)")
            }
        }
    }

    /// Tokens of any bytes: one per part.
    private func stream(_ parts: [[UInt8]]) throws -> (texts: [String], end: String) {
        let distinct = Set(parts.filter { $0.count > 1 }).sorted { $0.lexicographicallyPrecedes($1) }
        let tokens = (0..<256).map { [UInt8($0)] } + distinct
        let tokenizer = try Tokenizer(
            TokenizerDefinition(
                tokens: TokenTable(tokens), kinds: Array(repeating: .normal, count: tokens.count), mergeRule: .byRank,
                pattern: .gpt2, normalizer: .none, bos: nil, eos: nil, addsBos: false))
        var decoder = StreamingDecoder(tokenizer)
        let texts = parts.map { part in decoder.append(Int32(tokens.firstIndex(of: part)!)) }
        return (texts, decoder.finish())
    }

    @Test func everySplit() throws {
        let text = "aé中😀\u{10ffff}z"
        let bytes = Array(text.utf8)
        for first in 1..<bytes.count - 1 {
            for second in first + 1..<bytes.count {
                let parts = [bytes[..<first], bytes[first..<second], bytes[second...]].map { Array($0) }
                let (texts, end) = try stream(parts)
                #expect(texts.joined() == text)
                #expect(end == "")
                // Characters appear as soon as they are complete.
                let complete = text.unicodeScalars.prefix { scalar in
                    text.unicodeScalars.prefix(while: { $0 != scalar }).reduce(0) { $0 + UTF8.width($1) }
                        + UTF8.width(scalar)
                        <= first
                }
                #expect(texts[0] == String(String.UnicodeScalarView(complete)))
            }
        }
    }

    @Test func hopelessBytesAppearAtOnce() throws {
        #expect(try stream([[0xff], [0x61]]).texts == ["\u{fffd}", "a"])
        #expect(try stream([[0xe4], [0xb8], [0x61]]).texts == ["", "", "\u{fffd}a"])
        #expect(try stream([[0xe4, 0xb8], [0xe4], [0xb8, 0xad, 0xf0]]).texts == ["", "\u{fffd}", "中"])
        #expect(try stream([[0xed], [0xa0]]).texts == ["", "\u{fffd}\u{fffd}"])
        #expect(try stream([[0x80], [0xc0]]).texts == ["\u{fffd}", "\u{fffd}"])
        #expect(try stream([[0x61, 0xf0, 0x9f]]).end == "\u{fffd}")
        #expect(try stream([]).end == "")
    }

    @Test func randomBytesLikeTheWhole() throws {
        var generator = SplitMix64(state: 4)
        let interesting: [UInt8] = [
            0x61, 0x80, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xe0, 0xe4, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff,
        ]
        for _ in 0..<300 {
            let parts = (0..<6).map { _ in
                (0..<Int.random(in: 1...3, using: &generator)).map { _ in interesting.randomElement(using: &generator)!
                }
            }
            let (texts, end) = try stream(parts)
            #expect(texts.joined() + end == String(decoding: parts.joined(), as: UTF8.self), "\(parts)")
        }
    }

    @Test func controlTokensAreNoText() throws {
        let tokenizer = try TokenizerFixtures.tokenizer("o200k")
        let end = try #require(tokenizer.idOfSpecial(named: "<|end|>"))
        var decoder = StreamingDecoder(tokenizer)
        #expect(decoder.append(end) == "")
        #expect(decoder.append(Int32.max) == "")
        #expect(decoder.append(-1) == "")
        #expect(decoder.append(tokenizer.encode("a", recognizingSpecials: false)[0]) == "a")
    }
}
