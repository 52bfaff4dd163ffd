import Sigma
import Testing

/// Which tokens each phase of an answer allows: against a plain reading of the text so far, token by token.
@Suite struct AnswerGuideTests {
    private static let tokens = Result {
        try WrittenTokens([
            "</", "</think>", "k>", "k>x", ">{", ">\n", ">\n\n", ">\n{\"", "</think>{", "</think>[", "\n\n",
            "\n\n\n\n", "\n{", "\n\n\n\n\n", "\r\n", "<think>", "<th", "ink>", "ink>a", "think></think>x", "{\"", "tru",
            "true", "><", "a</think>", "</think></think>", " <think>", " x", "</thin<", "\nx",
        ])
    }

    /// What a text of an answer under a choice of texts says of itself.
    private struct Reading {
        var texts: [String]
        var start: AnswerGuide.Start
        private var dropsLineEnds: Bool { !texts.contains { [0x0A, 0x0D].contains($0.utf8.first) } }

        /// What is the answer's in it; nil: it is thought, or nobody knows yet.
        func answer(_ text: [UInt8]) -> (text: [UInt8], lineEnds: Int)? {
            var rest = text[...]
            switch start {
            case .answer: return (text, 0)
            case .undetermined:
                let word = rest.drop { [0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x20].contains($0) }
                guard word.starts(with: Array("<think>".utf8)) else {
                    return Array("<think>".utf8).starts(with: word) ? nil : (text, 0)
                }
                rest = word.dropFirst(7)
            case .thinking: break
            }
            let tag = Array("</think>".utf8)
            while !rest.isEmpty, !rest.starts(with: tag) { rest = rest.dropFirst() }
            guard !rest.isEmpty else { return nil }
            rest = rest.dropFirst(tag.count)
            let answer = dropsLineEnds ? rest.drop { $0 == 0x0A || $0 == 0x0D } : rest
            return (Array(answer), rest.count - answer.count)
        }

        private func isBeginning(_ text: [UInt8]) -> Bool { texts.contains { Array($0.utf8).starts(with: text) } }

        func isComplete(_ text: [UInt8]) -> Bool {
            if let answer = answer(text) { return texts.contains { Array($0.utf8) == answer.text } }
            return !isThought(text) && texts.contains { Array($0.utf8) == text }
        }

        /// Whether a token may follow.
        func allows(_ token: [UInt8], after text: [UInt8]) -> Bool {
            let all = text + token
            if let answer = answer(all) {
                guard answer.lineEnds <= 4, isBeginning(answer.text) else { return false }
                // Thinking that begins and ends in one token is no way to begin.
                return start != .undetermined || !all.starts(with: Array("<think>".utf8)) || isThought(text)
            }
            return isThought(all) || isBeginning(all) || Array("<think>".utf8).starts(with: all)
        }

        /// Whether thinking has begun in it.
        private func isThought(_ text: [UInt8]) -> Bool {
            start == .thinking || (start == .undetermined && text.starts(with: Array("<think>".utf8)))
        }
    }

    @Test(arguments: [AnswerGuide.Start.thinking, .answer, .undetermined], 1...12)
    func masksAreWhatTheTextAllows(start: AnswerGuide.Start, seed: UInt64) throws {
        let tokens = try Self.tokens.get()
        let constraints = tokens.constraints()
        let choices = [
            ["x", "true", "{\"a"], ["true", "true</think>"], [""], ["\nx", "x"], ["x\n", "é", "xx"], ["\r\n"],
            [" x", "<x"],
        ]
        var random = SplitMix64(state: seed &* 31)
        for texts in choices {
            let reading = Reading(texts: texts, start: start)
            var guide = AnswerGuide(try constraints.compiled(.choice(texts)), start: start)
            var text: [UInt8] = []
            for step in 0..<60 {
                let mask = guide.mask()
                var allowed: [Int32] = []
                for id in 0..<tokens.end {
                    let bytes = tokens.bytes(id)
                    #expect(
                        mask.allows(Int(id)) == reading.allows(bytes, after: text),
                        "\(texts), \(start): \(String(decoding: text, as: UTF8.self)) + \(String(decoding: bytes, as: UTF8.self))"
                    )
                    if mask.allows(Int(id)) { allowed.append(id) }
                }
                #expect(mask.allows(Int(tokens.end)) == reading.isComplete(text))
                let isOver = guide.mustEnd()
                if reading.answer(text).map({ !$0.text.isEmpty }) == true {
                    #expect(
                        isOver == (allowed.isEmpty && reading.isComplete(text)),
                        "\(texts), \(start): \(String(decoding: text, as: UTF8.self).debugDescription)")
                }
                if allowed.isEmpty { break }
                // What completes something is rare among tokens, and what matters.
                let telling = allowed.filter { tokens.bytes($0).count > 1 || step % 3 == 2 }
                let id = (telling.isEmpty ? allowed : telling).randomElement(using: &random)!
                text += tokens.bytes(id)
                guide.append(id)
                if reading.answer(text) != nil { guide.beginAnswer() }
            }
        }
    }

    @Test func thinkingThatEndsByDecisionIsFollowedByTheAnswer() throws {
        let tokens = try Self.tokens.get()
        let constraints = tokens.constraints()
        var guide = AnswerGuide(try constraints.compiled(.choice(["x"])), start: .thinking)
        guide.append(Int32(UInt8(ascii: "<")))
        guide.endThinking()
        #expect(guide.mask().allows(Int(UInt8(ascii: "x"))) && guide.mask().allows(0x0A))
        #expect(!guide.mask().allows(Int(UInt8(ascii: "/"))) && !guide.mask().allows(Int(tokens.end)))
        guide.append(Int32(UInt8(ascii: "x")))
        #expect(guide.mustEnd() && guide.mask().count == 1)
    }

    /// A mask that somebody holds is never written again.
    @Test func masksInUseStayAsTheyAre() {
        let pool = MaskPool(vocabularySize: 100)
        var held: [TokenMask] = []
        for id in 0..<4 {
            held.append(
                pool.mask { words in
                    words.update(repeating: 0)
                    words[id / 64] = 1 << UInt64(id % 64)
                })
        }
        for (id, mask) in held.enumerated() { #expect(mask.count == 1 && mask.allows(id)) }
        let last = ObjectIdentifier(held.removeLast())
        #expect(ObjectIdentifier(pool.mask { $0.update(repeating: .max) }) == last)
    }

    @Test func aModelWithoutTokenizerHasNoConstraints() {
        let constraints = AnswerConstraints(nil, choosable: TokenMask(all: 10), stopTokens: [])
        #expect { try constraints.compiled(.json) } throws: { ($0 as? SigmaError)?.kind == .damaged }
    }
}
