import Sigma
import Testing

@Suite struct TokenizerTests {
    @Test("The reference tokenizers' ids", arguments: TokenizerFixtures.names + ["lacking-bytes"])
    func goldens(name: String) throws {
        let tokenizer = try TokenizerFixtures.tokenizer(name)
        let cases = try TokenizerFixtures.cases(name)
        #expect(cases.count > 200)
        for (number, example) in cases.enumerated() {
            let ids = tokenizer.encode(example.text, recognizingSpecials: example.recognizingSpecials)
            if ids != example.ids {
                Issue.record(
                    "\(name), case \(number), \(String(decoding: example.text, as: UTF8.self).debugDescription): \(ids)"
                )
            }
        }
    }

    @Test("Any bytes come back", arguments: ["o200k", "gpt2"])
    func roundTrip(name: String) throws {
        let tokenizer = try TokenizerFixtures.tokenizer(name)
        var generator = SplitMix64(state: 1)
        // Bytes alone are seldom anything but invalid: parts of characters are in between.
        let parts: [[UInt8]] = [
            [0xe4], [0xe4, 0xb8], [0xf0, 0x9f, 0x98], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xf4, 0x90, 0x80, 0x80],
            [0xff],
            Array("the lighthouse".utf8), Array("中".utf8), Array("<|end|>".utf8), Array(" \n".utf8), Array("😀".utf8),
        ]
        for _ in 0..<2000 {
            var text: [UInt8] = []
            for _ in 0..<Int.random(in: 0..<20, using: &generator) {
                if Bool.random(using: &generator) {
                    text.append(UInt8.random(in: 0...255, using: &generator))
                } else {
                    text += parts.randomElement(using: &generator)!
                }
            }
            for recognizing in [true, false] {
                let ids = tokenizer.encode(text, recognizingSpecials: recognizing)
                let back = tokenizer.decode(ids, specials: .named)
                if back != text { Issue.record("\(text) came back as \(back)") }
            }
        }
    }

    @Test("What is not UTF-8 splits like an unassigned character", arguments: TokenizerFixtures.names)
    func invalidBytes(name: String) throws {
        let tokenizer = try TokenizerFixtures.tokenizer(name)
        let unassigned = Array("\u{0378}".utf8)
        func around(_ middle: [UInt8]) -> [Int32] {
            tokenizer.encode(
                Array("the lighthouse ".utf8) + middle + Array("keeper's\n".utf8), recognizingSpecials: true)
        }
        let expected = around(unassigned)
        let at = try #require(
            expected.indices.first { expected[$0...].starts(with: unassigned.map { id(of: $0, tokenizer) }) })
        for invalid: [UInt8] in [[0xe4, 0xb8], [0xff], [0xf0, 0x9f, 0x98], [0x80], [0xc3]] {
            let ids = around(invalid)
            #expect(ids[..<at] == expected[..<at])
            #expect(ids[(at + invalid.count)...] == expected[(at + 2)...])
        }
    }

    private func id(of byte: UInt8, _ tokenizer: Tokenizer) -> Int32 {
        tokenizer.encode([byte], recognizingSpecials: false)[0]
    }

    @Test("A megabyte of one letter, of white space, of random letters", arguments: TokenizerFixtures.names)
    func longPieces(name: String) throws {
        let tokenizer = try TokenizerFixtures.tokenizer(name)
        var generator = SplitMix64(state: 2)
        let count = 1 << 20
        let texts = [
            [UInt8](repeating: UInt8(ascii: "a"), count: count), [UInt8](repeating: UInt8(ascii: " "), count: count),
            (0..<count).map { _ in UInt8.random(in: UInt8(ascii: "a")...UInt8(ascii: "z"), using: &generator) },
        ]
        for text in texts {
            let clock = ContinuousClock()
            let start = clock.now
            let ids = tokenizer.encode(text, recognizingSpecials: true)
            // About 0.2 s when optimized; an encoder quadratic in the piece would take hours.
            #expect(clock.now - start < .seconds(60))
            #expect(tokenizer.decode(ids, specials: .named) == text)
        }
    }

    @Test("Long pieces merge as the rule says, pair by pair", arguments: TokenizerFixtures.names)
    func longPiecesExactly(name: String) throws {
        let definition = try TokenizerFixtures.definition(name)
        let tokenizer = try Tokenizer(definition)
        let reference = PlainMerger(definition)
        var generator = SplitMix64(state: 3)
        for alphabet in ["etaoinshr", "ab", "l", "lighthouse"].map({ Array($0.utf8) }) {
            for count in [1, 2, 3, 158, 159, 160, 161, 162, 400] {
                let text = (0..<count).map { _ in alphabet.randomElement(using: &generator)! }
                let ids = tokenizer.encode(text, recognizingSpecials: false)
                if ids != reference.merge(text) { Issue.record("\(String(decoding: text, as: UTF8.self)): \(ids)") }
            }
        }
    }

    @Test func normalizationComposes() throws {
        let tokenizer = try TokenizerFixtures.tokenizer("qwen2")
        func text(_ text: String) -> String {
            let ids = tokenizer.encode(text, recognizingSpecials: true)
            return String(decoding: tokenizer.decode(ids, specials: .named), as: UTF8.self)
        }
        func scalars(_ string: String) -> [UInt32] { string.unicodeScalars.map(\.value) }
        #expect(scalars(text("e\u{301} \u{1100}\u{1161}\u{11a8} \u{212b}")) == scalars("\u{e9} \u{ac01} \u{c5}"))
        // Text between special tokens is normalized by itself.
        #expect(scalars(text("<think>\u{338}<|end|>\u{338}")) == scalars("<think>\u{338}<|end|>\u{338}"))
        // U+0F73 is a starter that decomposes into marks.
        #expect(scalars(text("\u{f73}\u{334}")) == [0x334, 0xf71, 0xf72])
        // Marks without end take no time without end, and nothing of them is lost.
        let marks = String(repeating: "\u{300}\u{323}", count: 60_000)
        #expect(text("a" + marks).unicodeScalars.count == 120_000)
        // Bytes that are no text stay.
        #expect(
            tokenizer.decode(
                tokenizer.encode([0x65, 0xcc, 0x81, 0xff, 0xcc], recognizingSpecials: true), specials: .named)
                == [0xc3, 0xa9, 0xff, 0xcc])
    }

    @Test("Many threads at once", arguments: TokenizerFixtures.names)
    func concurrentUse(name: String) async throws {
        let tokenizer = try TokenizerFixtures.tokenizer(name)
        let cases = try TokenizerFixtures.cases(name)
        let wrong = await withTaskGroup(of: Int.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    cases.count { tokenizer.encode($0.text, recognizingSpecials: $0.recognizingSpecials) != $0.ids }
                }
            }
            return await group.reduce(0, +)
        }
        #expect(wrong == 0)
    }
}

/// The merge rules as they are defined: the lowest rank in the whole piece, the leftmost among equals, again and again.
private struct PlainMerger {
    private var tokens: [[UInt8]: Int32] = [:]
    private var ranks: [TokenizerDefinition.Pair: Int] = [:]
    private var bytes: [[UInt8]] = []
    private var takesWholePieces = true
    private var isByRank = true

    init(_ definition: TokenizerDefinition) {
        for id in 0..<definition.tokens.count {
            bytes.append(Array(definition.tokens[id]))
            if definition.kinds[id] == .normal { tokens[bytes[id]] = Int32(id) }
        }
        if case .listed(let pairs, let ignoringMerges) = definition.mergeRule {
            isByRank = false
            takesWholePieces = ignoringMerges
            for (rank, pair) in pairs.enumerated() { ranks[pair] = rank }
        }
    }

    func merge(_ piece: [UInt8]) -> [Int32] {
        if takesWholePieces, let id = tokens[piece] { return [id] }
        var ids = piece.map { tokens[[$0]]! }
        while true {
            var best: (rank: Int, at: Int)?
            for i in ids.indices.dropLast() {
                guard let rank = rank(ids[i], ids[i + 1]), rank < best?.rank ?? .max else { continue }
                best = (rank, i)
            }
            guard let at = best?.at else { return ids }
            ids[at...at + 1] = [tokens[bytes[Int(ids[at])] + bytes[Int(ids[at + 1])]]!]
        }
    }

    private func rank(_ left: Int32, _ right: Int32) -> Int? {
        isByRank
            ? tokens[bytes[Int(left)] + bytes[Int(right)]].map(Int.init)
            : ranks[TokenizerDefinition.Pair(left, right)]
    }
}
