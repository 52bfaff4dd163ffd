import Sigma
import Testing

/// Answers that may call functions: free text up to the tag, and a call behind it, in tokens that end anywhere.
@Suite struct CallGuideTests {
    private static let tokens = Result {
        try WrittenTokens([
            "<tool", "<tool_call>", "_call>", "_call>\n", "_call>\n{\"", "_call>x", ">\n", ">{", "<tool_call>\n",
            "<tool_call> ", "a<tool_call>", "a<tool_call>\n{\"name", "{\"name\": \"", "now", "\", \"arguments\": {}",
            "}}\n", "}}\n</", "}}", "tool_call>", "</tool_call>", "</tool_call>\n", "</tool_call>\n<tool_call>\n{\"",
            "</tool_call>\n\n", "</tool_call>x", "<think>", "<th", "ink>", "</think>", "</think>\n\n",
            "</think><tool_call>", "</think><tool_call>x", "<tool_call>\n<tool_call>", " ", "  ", "x", "<t", "<<", "é",
            "k></think>a<tool_call>{", "</think>\n\n<tool", "</think>{\"n", "\n\n",
        ])
    }
    private static let call = "{\"name\": \"now\", \"arguments\": {}}"
    private static let calls = FunctionCalls([.init(name: "now", parameters: nil)])

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
            return Self.calls(rest[tag...])
        }

        /// A text that begins with a tag, or a part of it.
        static func calls(_ text: ArraySlice<UInt8>) -> State {
            var rest = text
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

        static func place(of part: String, in text: ArraySlice<UInt8>) -> Int? {
            let part = Array(part.utf8)
            return text.indices.first { text[$0...].starts(with: part) }
        }
    }

    /// Every token that keeps the text one that can go on is allowed, and no other: all longer tokens, and some bytes. Texts are written in one
    /// way, so what may stand behind other white space is left out.
    @Test(arguments: [AnswerGuide.Start.thinking, .answer, .undetermined], 1...5)
    func masksAreWhatTheTextAllows(start: AnswerGuide.Start, seed: UInt64) throws {
        let tokens = try Self.tokens.get()
        let constraints = tokens.constraints()
        var random = SplitMix64(state: seed &* 77)
        let markup = Set("<tool_call>\n\(Self.call)\n</tool_call>".utf8).sorted().map { Int32($0) }
        for mayCall in [true, false] {
            let reading = Reading(start: start, mayCall: mayCall)
            let constraint =
                try mayCall
                ? constraints.compiled(Self.calls, reach: .calls) : constraints.withoutCalls(Self.calls.opening)
            var guide = AnswerGuide(constraint, start: start)
            var text: [UInt8] = []
            for step in 0..<50 {
                let mask = guide.mask()
                var allowed: [Int32] = []
                let some = (0..<20).map { _ in Int32.random(in: 0..<256, using: &random) }
                for id in some + markup + Array(256..<tokens.end) {
                    let bytes = tokens.bytes(id)
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
                #expect(mask.allows(Int(tokens.end)) == (state == .free || state == .call(isComplete: true)))
                let mustEnd = guide.mustEnd()
                #expect(!mustEnd, "another call may follow")
                // Towards tags, and through them.
                let telling = allowed.filter { tokens.bytes($0).count > 1 || state == .call(isComplete: false) }
                let id = try #require(
                    (telling.isEmpty || step % 5 == 4 ? allowed : telling).randomElement(using: &random))
                text += tokens.bytes(id)
                guide.append(id)
            }
        }
    }

    /// Calls, or else one of some texts: every token that keeps the text one or the other is allowed, and no other. Tags within texts are text.
    @Test(arguments: [AnswerGuide.Start.thinking, .answer], 1...6)
    func masksOfCallsOrAnAnswer(start: AnswerGuide.Start, seed: UInt64) throws {
        let tokens = try Self.tokens.get()
        let tag = Array("<tool_call>".utf8)
        let choices = [
            ["{\"name\": \"x\"}", "x"], ["<tool_call>", "<tool_cal", "xx"],
            ["<tool_call>\n{", "<think>x", "a<tool_call>x"],
            [""], ["\nx", "<t"],
        ]
        var random = SplitMix64(state: seed &* 51)
        for texts in choices {
            let texts = texts.map { Array($0.utf8) }
            let dropsLineEnds = !texts.contains { $0.first == 0x0A }
            let constraint = try tokens.constraints().compiled(
                Self.calls, or: .choice(texts.map { String(decoding: $0, as: UTF8.self) }))
            /// Whether a text can go on, and whether it can end.
            func state(_ text: [UInt8]) -> (canGoOn: Bool, canEnd: Bool) {
                var rest = text[...]
                if start == .thinking {
                    guard let end = Reading.place(of: "</think>", in: rest) else { return (true, false) }
                    rest = rest[end...].dropFirst(8)
                    if dropsLineEnds {
                        let lineEnds = rest.prefix { $0 == 0x0A || $0 == 0x0D }.count
                        if lineEnds > 4 { return (false, false) }
                        rest = rest.dropFirst(lineEnds)
                    }
                }
                let isText = texts.contains { $0.starts(with: rest) } && !rest.starts(with: tag)
                let isCall = tag.starts(with: rest) || rest.starts(with: tag) && Reading.calls(rest) != .dead
                let isComplete = isText && texts.contains { $0.elementsEqual(rest) }
                return (isText || isCall, isComplete || isCall && Reading.calls(rest) == .call(isComplete: true))
            }
            var guide = AnswerGuide(constraint, start: start)
            var text: [UInt8] = []
            for step in 0..<40 {
                let mask = guide.mask()
                var allowed: [Int32] = []
                for id in 0..<tokens.end {
                    let bytes = tokens.bytes(id)
                    let isAllowed = state(text + bytes).canGoOn
                    // Calls may have other white space than the one way in which they are read here.
                    if isAllowed || !bytes.allSatisfy({ [0x20, 0x0A, 0x7B, 0x7D, 0x22].contains($0) }) {
                        #expect(
                            mask.allows(Int(id)) == isAllowed,
                            "\(texts), \(start): \(String(decoding: text, as: UTF8.self)) + \(String(decoding: bytes, as: UTF8.self))"
                        )
                    }
                    if isAllowed { allowed.append(id) }
                }
                #expect(mask.allows(Int(tokens.end)) == state(text).canEnd)
                let telling = allowed.filter { tokens.bytes($0).count > 1 && $0 >= 256 }
                guard let id = (telling.isEmpty || step % 4 == 3 ? allowed : telling).randomElement(using: &random)
                else { break }
                text += tokens.bytes(id)
                guide.append(id)
            }
        }
    }

    /// Where the model decides whether it thinks, both tags and the answer can come, and part ways where they differ.
    @Test func anUndeterminedBeginning() throws {
        let tokens = try Self.tokens.get()
        let constraint = try tokens.constraints().compiled(Self.calls, or: .jsonObject)
        func allows(_ guide: inout AnswerGuide, _ text: String) -> Bool {
            let id = (0..<tokens.end).first { tokens.bytes($0).elementsEqual(text.utf8) }!
            return guide.mask().allows(Int(id))
        }
        func after(_ texts: String..., check: (inout AnswerGuide) -> Void) {
            var guide = AnswerGuide(constraint, start: .undetermined)
            for text in texts {
                for id in tokens.tokenizer.encode(text, recognizingSpecials: false) { guide.append(id) }
            }
            check(&guide)
        }
        after { guide in
            for text in ["<t", "<th", "<think>", "<tool", "<tool_call>\n", "{\"name\": \"", "{"] {
                let isAllowed = allows(&guide, text)
                #expect(isAllowed, "\(text)")
            }
            for text in ["x", "<<", "<tool_call> ", "a<tool_call>", "[", "</think>"] {
                let isAllowed = allows(&guide, text)
                #expect(!isAllowed, "\(text)")
            }
        }
        after("<t") { guide in
            for (text, expected) in [("h", true), ("o", true), ("x", false), ("{", false)] {
                let isAllowed = allows(&guide, text)
                #expect(isAllowed == expected, "\(text)")
            }
        }
        after("<think>", "</think>\n\n") { guide in
            for (text, expected) in [("<tool_call>\n", true), ("{", true), ("<think>", false), ("x", false)] {
                let isAllowed = allows(&guide, text)
                #expect(isAllowed == expected, "\(text)")
            }
        }
        after("{") { guide in
            for (text, expected) in [("<tool_call>", false), ("}", true)] {
                let isAllowed = allows(&guide, text)
                #expect(isAllowed == expected, "\(text)")
            }
        }
        after("<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>") { guide in
            for (text, expected) in [("{", false), ("\n", true), ("</tool_call>", false)] {
                let isAllowed = allows(&guide, text)
                #expect(isAllowed == expected, "\(text)")
            }
            let allowsEnd = guide.allowsEnd
            #expect(allowsEnd)
        }
    }

    @Test func aCallThatIsAskedFor() throws {
        let tokens = try Self.tokens.get()
        let calls = FunctionCalls(Self.calls.functions, allowsSeveral: false)
        for start in [AnswerGuide.Start.answer, .thinking, .undetermined] {
            var guide = AnswerGuide(try tokens.constraints().compiled(calls, reach: .wholeAnswer), start: start)
            if start == .thinking {
                let thinking = guide.mask()
                #expect(thinking.allows(Int(UInt8(ascii: "x"))))
                guide.endThinking()
            }
            let first = guide.mask()
            #expect(!first.allows(Int(UInt8(ascii: "x"))) && !first.allows(Int(tokens.end)))
            for id in tokens.tokenizer.encode("<tool_call>\n\(Self.call)\n</tool_call>", recognizingSpecials: false) {
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
        let tokens = try Self.tokens.get()
        var guide = AnswerGuide(try tokens.constraints().compiled(Self.calls, reach: .calls), start: .answer)
        let first = guide.mask()
        #expect(first.count > Int(tokens.end) - 12 && first.allows(Int(tokens.end)))
        guide.append(Int32(UInt8(ascii: "x")))
        let second = guide.mask()
        #expect(ObjectIdentifier(second) == ObjectIdentifier(first))
    }
}
