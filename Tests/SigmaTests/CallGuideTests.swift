import Sigma
import Testing

/// Answers that may call functions: free text up to the tag, and a call behind it, in tokens that end anywhere.
@Suite struct CallGuideTests {
    private static let written: [String] = [
        "<tool", "<tool_call>", "_call>", "_call>\n", "_call>\n{\"", "_call>x", ">\n", ">{", "<tool_call>\n",
        "<tool_call> ",
        "a<tool_call>", "a<tool_call>\n{\"name", "{\"name\": \"", "now", "\", \"arguments\": {}", "}}\n", "}}\n</",
        "}}", "tool_call>",
        "</tool_call>", "</tool_call>\n", "</tool_call>\n<tool_call>\n{\"", "</tool_call>\n\n", "</tool_call>x",
        "<think>", "<th", "ink>",
        "</think>", "</think>\n\n", "</think><tool_call>", "</think><tool_call>x", "<tool_call>\n<tool_call>", " ",
        "  ", "x", "<t", "<<", "é",
        "k></think>a<tool_call>{",
    ]
    private static let end = Int32(256 + written.count)
    private static let call = "{\"name\": \"now\", \"arguments\": {}}"

    private static let tokenizer = Result {
        var table = TokenTable((UInt8.min...UInt8.max).map { [$0] } + written.map { Array($0.utf8) })
        table.append(Array("<|end|>".utf8))
        var kinds = [TokenizerDefinition.TokenKind](repeating: .normal, count: table.count)
        kinds[Int(end)] = .control
        return try Tokenizer(
            TokenizerDefinition(
                tokens: table, kinds: kinds, mergeRule: .byRank, pattern: .o200k, normalizer: .none, bos: nil, eos: end,
                addsBos: false))
    }

    private func constraints() throws -> AnswerConstraints {
        let tokenizer = try Self.tokenizer.get()
        return AnswerConstraints(tokenizer, choosable: TokenMask(all: tokenizer.count), stopTokens: [Self.end])
    }

    /// How a text that is generated can go on, read from its beginning.
    private struct Reading {
        enum State: Equatable { case thinking, free, call(isComplete: Bool), dead }

        let start: AnswerGuide.Start
        let mayCall: Bool

        func state(_ text: [UInt8]) -> State {
            var rest = text[...]
            var isThinking = start == .thinking
            if start == .undetermined {
                let word = rest.drop { [0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x20].contains($0) }
                if word.starts(with: Array("<think>".utf8)) {
                    isThinking = true
                    rest = word.dropFirst(7)
                }
            }
            if isThinking {
                guard let end = Self.place(of: "</think>", in: rest) else { return .thinking }
                rest = rest[end...].dropFirst(8)
            }
            guard let tag = Self.place(of: "<tool_call>", in: rest) else { return .free }
            guard mayCall else { return .dead }
            rest = rest[tag...]
            let one = Array("<tool_call>\n\(CallGuideTests.call)\n</tool_call>".utf8)
            while true {
                // White space in the call is the schema's business: here it is written in one way.
                guard one.starts(with: rest) || rest.starts(with: one) else { return .dead }
                guard rest.count >= one.count else { return .call(isComplete: false) }
                rest = rest.dropFirst(one.count)
                guard let first = rest.first else { return .call(isComplete: true) }
                guard first == 0x0A else { return .dead }
                rest = rest.dropFirst()
            }
        }

        private static func place(of part: String, in text: ArraySlice<UInt8>) -> Int? {
            let part = Array(part.utf8)
            return text.indices.first { text[$0...].starts(with: part) }
        }
    }

    /// Every token that keeps the text one that can go on is allowed, and no other: all longer tokens, and some bytes. Texts are written in one
    /// way, so what may stand behind other white space is left out.
    @Test(arguments: [AnswerGuide.Start.thinking, .answer, .undetermined], 1...5)
    func masksAreWhatTheTextAllows(start: AnswerGuide.Start, seed: UInt64) throws {
        let tokenizer = try Self.tokenizer.get()
        let constraints = try constraints()
        var random = SplitMix64(state: seed &* 77)
        let markup = Set("<tool_call>\n\(Self.call)\n</tool_call>".utf8).sorted().map { Int32($0) }
        for mayCall in [true, false] {
            let reading = Reading(start: start, mayCall: mayCall)
            let calls = FunctionCalls([.init(name: "now", parameters: nil)])
            let constraint =
                try mayCall ? constraints.compiled(calls, reach: .calls) : constraints.withoutCalls()
            var guide = AnswerGuide(constraint, start: start)
            var text: [UInt8] = []
            for step in 0..<50 {
                let mask = guide.mask()
                var allowed: [Int32] = []
                let some = (0..<20).map { _ in Int32.random(in: 0..<256, using: &random) }
                for id in some + markup + Array(256..<Self.end) {
                    let bytes = Array(tokenizer.bytes(of: id))
                    let isAllowed = reading.state(text + bytes) != .dead
                    if isAllowed || !bytes.allSatisfy({ [0x20, 0x0A, 0x7B, 0x7D, 0x22].contains($0) }) {
                        #expect(
                            mask.allows(Int(id)) == isAllowed,
                            "\(start), \(mayCall): \(String(decoding: text, as: UTF8.self)) + \(String(decoding: bytes, as: UTF8.self))"
                        )
                    }
                    if isAllowed { allowed.append(id) }
                }
                let state = reading.state(text)
                #expect(mask.allows(Int(Self.end)) == (state == .free || state == .call(isComplete: true)))
                let mustEnd = guide.mustEnd()
                #expect(!mustEnd, "another call may follow")
                // Towards tags, and through them.
                let telling = allowed.filter { tokenizer.bytes(of: $0).count > 1 || state == .call(isComplete: false) }
                let id = try #require(
                    (telling.isEmpty || step % 5 == 4 ? allowed : telling).randomElement(using: &random))
                text += Array(tokenizer.bytes(of: id))
                guide.append(id)
            }
        }
    }

    @Test func aCallThatIsAskedFor() throws {
        let tokenizer = try Self.tokenizer.get()
        let calls = FunctionCalls([.init(name: "now", parameters: nil)], allowsSeveral: false)
        for start in [AnswerGuide.Start.answer, .thinking, .undetermined] {
            var guide = AnswerGuide(try constraints().compiled(calls, reach: .wholeAnswer), start: start)
            if start == .thinking {
                let thinking = guide.mask()
                #expect(thinking.allows(Int(UInt8(ascii: "x"))))
                guide.endThinking()
            }
            let first = guide.mask()
            #expect(!first.allows(Int(UInt8(ascii: "x"))) && !first.allows(Int(Self.end)))
            for id in tokenizer.encode("<tool_call>\n\(Self.call)\n</tool_call>", recognizingSpecials: false) {
                let (mask, mustEnd) = (guide.mask(), guide.mustEnd())
                #expect(mask.allows(Int(id)) && !mustEnd)
                guide.append(id)
                if start == .undetermined { guide.beginAnswer() }
            }
            let mustEnd = guide.mustEnd()
            #expect(mustEnd, "nothing may follow")
        }
    }

    /// Free text costs no masks: they are those of an answer without constraint.
    @Test func freeTextHasTheWholeVocabulary() throws {
        let constraints = try constraints()
        var guide = AnswerGuide(
            try constraints.compiled(FunctionCalls([.init(name: "now", parameters: nil)]), reach: .calls),
            start: .answer)
        let first = guide.mask()
        #expect(first.count > Int(Self.end) - 12 && first.allows(Int(Self.end)))
        guide.append(Int32(UInt8(ascii: "x")))
        let second = guide.mask()
        #expect(ObjectIdentifier(second) == ObjectIdentifier(first))
    }
}
