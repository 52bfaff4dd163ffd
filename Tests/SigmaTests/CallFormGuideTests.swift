import Sigma
import Testing

/// Answers that may be calls without tags, or calls in tagged XML, in tokens that end anywhere.
@Suite struct CallFormGuideTests {
    private static let tokens = Result {
        try WrittenTokens([
            "{\"", "{\"name", "{\"name\": \"", "name\": \"now", "now", "no", "\", \"parameters", "\": {}", "\": {}}",
            "\":", "\": x",
            "\", \"parameters\": {}}", "{\"name\": \"now\", \"parameters\":", "{\"name\": \"now\", \"parameters\": {}}",
            "{\"name\": \"now\", \"parameters\": 7", "}}", "x{\"name\": \"now\", \"parameters\": 7", " ", "\n", "\n ",
            "x", "later", "<think>",
            "<tool_call>", "<tool_call>\n", "<function=", "<function=say>\n", "say", "<parameter=text>\n",
            "\n</parameter>\n",
            "</function>\n</tool_call>", "\n</tool_call>", ">\n", "\n</", "parameter>", "<tool_call>x", "</think>",
        ])
    }
    private static let now = FunctionCalls([.init(name: "now", parameters: nil)], form: .json)
    private static let say = FunctionCalls(
        [
            .init(
                name: "say",
                parameters:
                    #"{"type":"object","properties":{"text":{"type":"string"}},"required":["text"],"additionalProperties":false}"#
            )
        ], form: .taggedXML)

    private static func isBeginning(_ text: [UInt8], of whole: String) -> Bool { whole.utf8.starts(with: text) }

    /// A text that begins as a call does is one, and any other is free.
    @Test(arguments: 1...12) func callsWithoutTags(seed: UInt64) throws {
        let tokens = try Self.tokens.get()
        var random = SplitMix64(state: seed &* 91)
        for mayCall in [true, false] {
            let constraints = tokens.constraints()
            let constraint =
                try mayCall
                ? constraints.compiled(Self.now, reach: .calls) : constraints.withoutCalls(Self.now.opening)
            func opens(_ text: [UInt8]) -> Bool {
                var progress = Self.now.opening.start
                return text.contains { Self.now.opening.take($0, &progress) != nil }
            }
            let whole = try constraints.compiled(Self.now, reach: .wholeAnswer)
            var guide = AnswerGuide(constraint, start: .answer)
            var text: [UInt8] = []
            for step in 0..<30 {
                let mask = guide.mask()
                var allowed: [Int32] = []
                for id in 0..<tokens.end {
                    let next = text + tokens.bytes(id)
                    var isAllowed = true
                    if opens(next) {
                        // A guide for calls alone says what a call is.
                        var calls = AnswerGuide(whole, start: .answer)
                        isAllowed = mayCall
                        for byte in next where isAllowed {
                            let mask = calls.mask()
                            isAllowed = mask.allows(Int(byte))
                            if isAllowed { calls.append(Int32(byte)) }
                        }
                    }
                    #expect(
                        mask.allows(Int(id)) == isAllowed,
                        "\(String(decoding: text, as: UTF8.self)) + \(String(decoding: tokens.bytes(id), as: UTF8.self))"
                    )
                    if isAllowed { allowed.append(id) }
                }
                let isWhole = ["{\"name\": \"now\", \"parameters\": {}}"].contains { Array($0.utf8) == text }
                if !opens(text) || isWhole { #expect(mask.allows(Int(tokens.end))) }
                let telling = allowed.filter { opens(text + tokens.bytes($0)) || !Self.isText(text + tokens.bytes($0)) }
                guard
                    let id = (telling.isEmpty || step % 6 == 5 ? allowed : telling).randomElement(using: &random)
                else { break }
                text += tokens.bytes(id)
                guide.append(id)
            }
        }
    }

    /// Whether no call can begin any more.
    private static func isText(_ text: [UInt8]) -> Bool {
        var progress = now.opening.start
        for byte in text { _ = now.opening.take(byte, &progress) }
        return progress == .text
    }

    @Test func aWholeCallWithoutTags() throws {
        let tokens = try Self.tokens.get()
        for reach in [TokenConstraint.Reach.calls, .wholeAnswer] {
            var guide = AnswerGuide(try tokens.constraints().compiled(Self.now, reach: reach), start: .answer)
            for id in tokens.tokenizer.encode(#"{"name": "now", "parameters": {}}"#, recognizingSpecials: false) {
                let (mask, mustEnd) = (guide.mask(), guide.mustEnd())
                #expect(mask.allows(Int(id)) && !mustEnd)
                guide.append(id)
            }
            let mustEnd = guide.mustEnd()
            #expect(mustEnd, "nothing follows such a call")
        }
    }

    /// Line ends behind the thinking are no part of the answer: what follows them begins it.
    @Test(arguments: ["", "\n", "\n\n"]) func callsWithoutTagsBehindThinking(_ lineEnds: String) throws {
        let tokens = try Self.tokens.get()
        func guide(behind text: String, mayCall: Bool) throws -> AnswerGuide {
            let constraints = tokens.constraints()
            let constraint =
                try mayCall
                ? constraints.compiled(Self.now, reach: .calls) : constraints.withoutCalls(Self.now.opening)
            var guide = AnswerGuide(constraint, start: .thinking)
            for byte in Array(("Hm.</think>" + text).utf8) {
                let mask = guide.mask()
                #expect(mask.allows(Int(byte)))
                guide.append(Int32(byte))
            }
            return guide
        }
        var call = try guide(behind: lineEnds + #"{"name": "now", "parameters":"#, mayCall: true)
        var mask = call.mask()
        #expect(mask.allows(Int(UInt8(ascii: "{"))) && !mask.allows(Int(UInt8(ascii: "7"))))
        var none = try guide(behind: lineEnds + #"{"name": "now", "parameters""#, mayCall: false)
        mask = none.mask()
        #expect(!mask.allows(Int(UInt8(ascii: ":"))) && mask.allows(Int(UInt8(ascii: " "))))
        // Behind anything else it is text.
        var text = try guide(behind: lineEnds + #"x{"name": "now", "parameters":"#, mayCall: true)
        mask = text.mask()
        #expect(mask.allows(Int(UInt8(ascii: "7"))))
    }

    @Test func callsInTaggedXML() throws {
        let tokens = try Self.tokens.get()
        let text =
            "Well:\n\n<tool_call>\n<function=say>\n<parameter=text>\nx\n\n y</parameter\n</parameter>\n</function>\n</tool_call>"
        for start in [AnswerGuide.Start.answer, .thinking, .undetermined] {
            var guide = AnswerGuide(try tokens.constraints().compiled(Self.say, reach: .calls), start: start)
            if start == .thinking { guide.endThinking() }
            for id in tokens.tokenizer.encode(text, recognizingSpecials: false) {
                let mask = guide.mask()
                #expect(mask.allows(Int(id)), "\(start)")
                guide.append(id)
            }
            let (mask, allowsEnd, mustEnd) = (guide.mask(), guide.allowsEnd, guide.mustEnd())
            #expect(allowsEnd && !mustEnd && mask.allows(0x0A) && !mask.allows(Int(UInt8(ascii: "x"))))
        }
        var guide = AnswerGuide(try tokens.constraints().compiled(Self.say, reach: .calls), start: .answer)
        let mask = guide.mask()
        for (text, expected) in [("<tool_call>", true), ("<tool_call>\n", true), ("<tool_call>x", false), ("x", true)] {
            let id = (0..<tokens.end).first { tokens.bytes($0).elementsEqual(text.utf8) }!
            #expect(mask.allows(Int(id)) == expected, "\(text)")
        }
    }
}
