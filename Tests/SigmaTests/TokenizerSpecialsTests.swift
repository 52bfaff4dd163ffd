import Sigma
import Testing

@Suite struct TokenizerSpecialsTests {
    /// 256 bytes, then the tokens given.
    private func definition(_ tokens: [(TokenizerDefinition.TokenKind, String)]) -> TokenizerDefinition {
        TokenizerDefinition(
            tokens: TokenTable((0..<256).map { [UInt8($0)] } + tokens.map { Array($0.1.utf8) }),
            kinds: Array(repeating: .normal, count: 256) + tokens.map(\.0), mergeRule: .byRank, pattern: .o200k,
            normalizer: .none, bos: nil, eos: nil, addsBos: false)
    }

    private func ascii(_ text: String) -> [Int32] { text.utf8.map(Int32.init) }

    @Test func controlTokensOnlyWhereAskedFor() throws {
        let tokenizer = try Tokenizer(definition([(.control, "<end>"), (.added, "<think>")]))
        #expect(tokenizer.encode("a<end><think>b", recognizingSpecials: true) == ascii("a") + [256, 257] + ascii("b"))
        #expect(tokenizer.encode("a<end><think>b", recognizingSpecials: false) == ascii("a<end>") + [257] + ascii("b"))
    }

    @Test func theLongestOfTheLeftmost() throws {
        let tokenizer = try Tokenizer(
            definition([(.control, "<a"), (.control, "<a>>"), (.added, "<a>"), (.control, "a>><")]))
        #expect(tokenizer.encode("<a<a><a>><", recognizingSpecials: true) == [256, 258, 257] + ascii("<"))
        // Without the control tokens the added one is the longest.
        #expect(tokenizer.encode("<a<a><a>>", recognizingSpecials: false) == ascii("<a") + [258, 258] + ascii(">"))
    }

    @Test func textBetweenSpecialsIsMergedByItself() throws {
        var definition = definition([(.normal, "ab"), (.normal, "  "), (.control, "|")])
        definition.pattern = .gpt2
        let tokenizer = try Tokenizer(definition)
        #expect(tokenizer.encode("a|b", recognizingSpecials: true) == ascii("a") + [258] + ascii("b"))
        #expect(tokenizer.encode("ab", recognizingSpecials: true) == [256])
        // White space before a special token ends its text: it does not leave its last character to what follows.
        #expect(tokenizer.encode("a  |", recognizingSpecials: true) == ascii("a") + [257, 258])
        #expect(tokenizer.encode("a  x", recognizingSpecials: true) == ascii("a  x"))
    }

    @Test func unusedIdsAreNothing() throws {
        let tokenizer = try Tokenizer(definition([(.unused, "<gap>"), (.normal, ""), (.control, "<end>")]))
        #expect(tokenizer.encode("<gap>", recognizingSpecials: true) == ascii("<gap>"))
        #expect(tokenizer.count == 259)
        #expect((-1...260).filter { !tokenizer.isAllowed($0) } == [-1, 256, 257, 259, 260])
        #expect(tokenizer.allowed.indices.filter { !tokenizer.allowed[$0] } == [256, 257])
        #expect(tokenizer.decode([256, 257, 97, -5, 1_000_000, 258], specials: .named) == Array("a<end>".utf8))
        #expect(tokenizer.bytes(of: 256).isEmpty)
        #expect(tokenizer.bytes(of: Int32.min).isEmpty)
        #expect(Array(tokenizer.bytes(of: 258)) == Array("<end>".utf8))
    }

    @Test func specialsByName() throws {
        let tokenizer = try Tokenizer(
            definition([(.normal, "xy"), (.control, "<end>"), (.added, "<think>"), (.unused, "<gap>")]))
        #expect(tokenizer.idOfSpecial(named: "<end>") == 257)
        #expect(tokenizer.idOfSpecial(named: "<think>") == 258)
        #expect(tokenizer.idOfSpecial(named: "xy") == nil)
        #expect(tokenizer.idOfSpecial(named: "<gap>") == nil)
        #expect(tokenizer.idOfSpecial(named: "") == nil)
        #expect(tokenizer.isControl(257))
        #expect(!tokenizer.isControl(258))
    }

    @Test func decodingSpecials() throws {
        let tokenizer = try Tokenizer(definition([(.control, "<end>"), (.added, "<think>")]))
        let ids = tokenizer.encode("a<end><think>b", recognizingSpecials: true)
        #expect(tokenizer.decode(ids, specials: .named) == Array("a<end><think>b".utf8))
        #expect(tokenizer.decode(ids, specials: .skipped) == Array("a<think>b".utf8))
    }

    // MARK: Definitions that make no sense

    private func expectDamaged(_ definition: TokenizerDefinition, _ word: String) {
        do {
            _ = try Tokenizer(definition)
            Issue.record("accepted: \(word)")
        } catch {
            #expect(error.kind == .damaged)
            #expect(error.message.contains(word), "\(error.message)")
        }
    }

    @Test func damagedDefinitions() {
        let good = definition([(.normal, "ab"), (.control, "<end>")])
        var bad = good
        bad.kinds.removeLast()
        expectDamaged(bad, "kinds")
        for id: Int32 in [-1, 258, .max] {
            bad = good
            bad.bos = id
            expectDamaged(bad, "bos")
            bad = good
            bad.eos = id
            expectDamaged(bad, "eos")
        }
        bad = good
        bad.addsBos = true
        expectDamaged(bad, "bos")
        bad = good
        bad.kinds[65] = .unused
        expectDamaged(bad, "byte 65")
        bad = good
        bad.tokens.append([UInt8](repeating: 65, count: 65_536))
        bad.kinds.append(.normal)
        expectDamaged(bad, "longer")
        bad.tokens = []
        bad.kinds = []
        expectDamaged(bad, "byte 0")
    }

    @Test func damagedMerges() throws {
        var definition = definition([(.normal, "ab"), (.added, "abc"), (.unused, "bc"), (.normal, "")])
        typealias Pair = TokenizerDefinition.Pair
        func merges(_ pairs: Pair...) -> TokenizerDefinition {
            definition.mergeRule = .listed(pairs, ignoringMerges: false)
            return definition
        }
        expectDamaged(merges(Pair(97, 98), Pair(-1, 98)), "merge 1")
        expectDamaged(merges(Pair(97, 260)), "merge 0")
        expectDamaged(merges(Pair(97, 97)), "no token")
        expectDamaged(merges(Pair(98, 99)), "no token")
        expectDamaged(merges(Pair(256, 259)), "no token")
        // A merge may lead to an added token.
        let tokenizer = try Tokenizer(merges(Pair(97, 98), Pair(256, 99)))
        #expect(tokenizer.encode("ab", recognizingSpecials: false) == [256])
    }

    @Test func byteAlphabet() throws {
        let all = (UInt8.min...UInt8.max).map { $0 }
        let text = ByteAlphabet.text(of: all)
        #expect(text.unicodeScalars.count == 256)
        #expect(text.hasPrefix("ĀāĂ"))
        #expect(ByteAlphabet.text(of: Array(" a\n".utf8)) == "ĠaĊ")
        #expect(ByteAlphabet.bytes(of: text) == all)
        #expect(ByteAlphabet.bytes(of: "") == [])
        for outside in ["a b", "\u{144}", "中", "\n", "\u{ad}", "a\u{a0}"] {
            #expect(ByteAlphabet.bytes(of: outside) == nil)
        }
        var table: TokenTable = [[1], []]
        let damaged: [UInt8] = [0x61, 0xc4]
        #expect(!damaged.withUnsafeBufferPointer { table.append(inByteAlphabet: $0) })
        #expect(Array("Ġb".utf8).withUnsafeBufferPointer { table.append(inByteAlphabet: $0) })
        #expect(table == [[1], [], [0x20, 0x62]])
        #expect(Array(table[2]) == [0x20, 0x62])
    }
}
