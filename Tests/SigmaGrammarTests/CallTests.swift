import SigmaBase
import Testing

@testable import SigmaGrammar

/// Calls of functions: their text, the arguments' schemas, and schemas that cannot be done.
@Suite struct CallTests {
    private static let weather = FunctionCalls.Function(
        name: "weather",
        parameters:
            #"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}"#
    )
    private static let now = FunctionCalls.Function(name: "now", parameters: nil)

    private static func text(_ calls: String...) -> String {
        calls.map { "<tool_call>\n\($0)\n</tool_call>" }.joined(separator: "\n")
    }

    private static let accepted = [
        text(#"{"name": "now", "arguments": {}}"#), text(#"{"name":"now","arguments":{}}"#),
        text(#"{"name": "weather", "arguments": {"city": "</tool_call>\n"}}"#.replacing("\n", with: "\\n")),
        text("{\n  \"name\": \"weather\",\n  \"arguments\": {\n    \"city\": \"Paris\"\n  }\n}"),
    ]
    private static let refused = [
        "", "now", #"{"name": "now", "arguments": {}}"#, text(""), text(#"{"name": "later", "arguments": {}}"#),
        text(#"{"name": "now", "arguments": {"a": 1}}"#), text(#"{"name": "now"}"#),
        text(#"{"arguments": {}, "name": "now"}"#), text(#"{"name": "now", "arguments": {}, "id": 1}"#),
        text(#"{"name": "weather", "arguments": {}}"#), text(#"{"name": "weather", "arguments": {"city": 7}}"#),
        text(#"{"name": "now", "arguments": []}"#), text(#" {"name": "now", "arguments": {}}"#),
        "\n" + text(#"{"name": "now", "arguments": {}}"#), text(#"{"name": "now", "arguments": {}}"#) + "\n",
        "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>",
    ]

    @Test func oneCall() throws {
        for several in [true, false] {
            let calls = Constraint.calls(FunctionCalls([Self.weather, Self.now], allowsSeveral: several))
            for text in Self.accepted { #expect(try accepts(calls, text), "\(text)") }
            for text in Self.refused { #expect(try !accepts(calls, text), "\(text)") }
        }
    }

    @Test func severalCalls() throws {
        let call = #"{"name": "now", "arguments": {}}"#
        let one = Constraint.calls(FunctionCalls([Self.now], allowsSeveral: false))
        let several = Constraint.calls(FunctionCalls([Self.now, Self.weather]))
        #expect(try accepts(several, Self.text(call, call)) && !accepts(one, Self.text(call, call)))
        #expect(try accepts(several, Self.text(call, #"{"name": "weather", "arguments": {"city": ""}}"#, call)))
        #expect(try !accepts(several, Self.text(call) + Self.text(call)))
        #expect(try !accepts(several, Self.text(call) + "\n\n" + Self.text(call)))
        #expect(try !accepts(several, Self.text(call, #"{"name": "weather", "arguments": {}}"#)))
    }

    /// References, identifiers and drafts are each schema's own.
    @Test func schemasKnowNothingOfEachOther() throws {
        func function(_ name: String, _ schema: String) -> FunctionCalls.Function {
            FunctionCalls.Function(name: name, parameters: schema)
        }
        let calls = Constraint.calls(
            FunctionCalls([
                function(
                    "a",
                    ##"{"$ref":"#/$defs/x","$defs":{"x":{"properties":{"v":{"type":"integer"}},"required":["v"]}}}"##),
                function(
                    "b",
                    ##"{"properties":{"v":{"$ref":"#/$defs/x"}},"required":["v"],"$defs":{"x":{"type":"string"}}}"##),
                // Draft 7: what stands beside $ref is nothing.
                function(
                    "c",
                    ##"{"$schema":"http://json-schema.org/draft-07/schema#","$id":"http://x/y","$ref":"#/definitions/x","required":["w"],"definitions":{"x":{"properties":{"v":{"type":"null"}},"required":["v"]}}}"##
                ),
                function(
                    "d",
                    ##"{"$id":"http://x/y","type":"object","required":["v"],"properties":{"v":{"anyOf":[{"type":"boolean"},{"$ref":"#"}]}}}"##
                ),
            ]))
        let values = ["a": "1", "b": #""s""#, "c": "null", "d": "true"]
        for (name, _) in values {
            for (other, value) in values {
                let text = Self.text(#"{"name": "\#(name)", "arguments": {"v": \#(value)}}"#)
                #expect(try accepts(calls, text) == (name == other), "\(text)")
            }
        }
        let nested = Self.text(#"{"name": "d", "arguments": {"v": {"v": {"v": false}}}}"#)
        #expect(try accepts(calls, nested))
    }

    @Test func schemasThatCannotBeDone() throws {
        func refusal(_ schema: String, isStrict: Bool) -> ConstraintError? {
            SigmaGrammarTests.refusal(
                .calls(
                    FunctionCalls([Self.now, FunctionCalls.Function(name: "f", parameters: schema, isStrict: isStrict)])
                ))
        }
        let unsupported = #"{"type":"object","properties":{"a":{"type":"array","uniqueItems":true}}}"#
        let error = try #require(refusal(unsupported, isStrict: true))
        #expect(error.reason == .unsupported && error.function == 1 && error.place == "#/properties/a/uniqueItems")
        #expect(refusal(unsupported, isStrict: false) == nil)
        for isStrict in [true, false] {
            let invalid = try #require(refusal(#"{"type":"object","properties":{"a":{"type":7}}}"#, isStrict: isStrict))
            #expect(invalid.reason == .invalid && invalid.function == 1 && invalid.place == "#/properties/a/type")
            for schema in [#"{"type":"string"}"#, #"{"not":{}}"#, #"{"required":["a"],"properties":{"a":false}}"#] {
                let empty = try #require(refusal(schema, isStrict: isStrict), "\(schema)")
                #expect(empty.reason == .unsatisfiable && empty.function == 1)
            }
            #expect(refusal("{", isStrict: isStrict)?.function == 1)
        }
        // The function that cannot be held to its schema takes any object; the others are held to theirs.
        let calls = Constraint.calls(
            FunctionCalls([FunctionCalls.Function(name: "f", parameters: unsupported, isStrict: false), Self.weather]))
        #expect(try accepts(calls, Self.text(#"{"name": "f", "arguments": {"b": [1, 1]}}"#)))
        #expect(try !accepts(calls, Self.text(#"{"name": "f", "arguments": [1]}"#)))
        #expect(try !accepts(calls, Self.text(#"{"name": "weather", "arguments": {"b": 1}}"#)))
        #expect(refusal(#"{}"#, isStrict: true) == nil)
        #expect(SigmaGrammarTests.refusal(.calls(FunctionCalls([])))?.reason == .invalid)
    }

    /// What takes too long is refused, strict or not: what is accepted must not depend on the machine.
    @Test func timeIsNoReasonToAcceptAnything() throws {
        var limits = ConstraintLimits()
        limits.compileSeconds = 0
        let members = (0..<200).map { #""p\#($0)": {"type": "integer", "minimum": \#($0)}"# }.joined(separator: ",")
        let function = FunctionCalls.Function(
            name: "f", parameters: #"{"properties": {\#(members)}}"#, isStrict: false)
        let error = SigmaGrammarTests.refusal(.calls(FunctionCalls([function])), limits: limits)
        #expect(error?.reason == .limit && error?.isTime == true)
        // Size is.
        limits = ConstraintLimits()
        limits.values = 100
        #expect(SigmaGrammarTests.refusal(.calls(FunctionCalls([function])), limits: limits) == nil)
    }

    /// Tokens chosen at random under the masks: whole calls, in tokens that cross from the arguments into what stands around them.
    @Test(arguments: 0..<40 as Range<UInt64>) func randomCallsAreCalls(seed: UInt64) throws {
        let calls = FunctionCalls([Self.weather, Self.now])
        let constraint = try compiled(.calls(calls))
        var state = constraint.begin()
        var random = SplitMix64(state: seed)
        var ended = false
        for step in 0..<3_000 where !ended {
            let mask = state.mask()
            var tokens = testTokens.indices.filter { mask.contains(token: $0) }
            // Strings that end now and then.
            let quotes = tokens.filter { testTokens[$0]!.contains(UInt8(ascii: "\"")) }
            if step % 4 == 3, !quotes.isEmpty { tokens = quotes }
            if allowsEnd(&state), tokens.isEmpty || Bool.random(using: &random) {
                ended = true
            } else {
                let token = try #require(tokens.randomElement(using: &random))
                #expect(advances(&state, testTokens[token]!))
            }
        }
        #expect(ended)
        let text = String(decoding: state.text, as: UTF8.self)
        let parts = text.split(separator: "\n</tool_call>", omittingEmptySubsequences: true)
        #expect(!parts.isEmpty)
        for (place, part) in parts.enumerated() {
            let head = (place == 0 ? "" : "\n") + "<tool_call>\n"
            #expect(part.hasPrefix(head))
            let call = try JSONValue.parse(String(part.dropFirst(head.count)))
            let arguments = try #require(call["arguments"]?.object)
            #expect(call["name"]?.string == "now" ? arguments.count == 0 : arguments["city"]?.string != nil)
        }
    }

    // MARK: - Calls, or else an answer

    private static let both = FunctionCalls([weather, now])

    @Test func aCallOrAnAnswer() throws {
        let call = Self.text(#"{"name": "now", "arguments": {}}"#)
        let point =
            #"{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"],"additionalProperties":false}"#
        for answer in [
            Constraint.jsonSchema(point), .jsonObject, .json, .regex("[^a]*"), .choice([#"{"x": 1}"#, "b"]),
        ] {
            let either = Constraint.callsOr(Self.both, answer)
            for text in [call, call + "\n" + call, #"{"x": 1}"#] { #expect(try accepts(either, text), "\(text)") }
            let wrong = [
                Self.text(#"{"name": "later", "arguments": {}}"#), call + #"{"x": 1}"#, "<tool_call>",
                "<tool_call>\n{\"x\": 1}", "a",
            ]
            for text in wrong { #expect(try !accepts(either, text), "\(answer), \(text)") }
        }
        // What another call would be is nothing to the answer.
        let once = FunctionCalls([Self.now], allowsSeveral: false)
        #expect(try !accepts(.callsOr(once, .json), call + "\n" + call))
        #expect(try accepts(.callsOr(once, .json), call) && accepts(.callsOr(once, .json), "[1]"))
        // The form of a call, without its tags, is an answer like any other.
        let form =
            ##"{"type":"object","properties":{"name":{"const":"now"},"arguments":{"type":"object","additionalProperties":false}},"required":["name","arguments"],"additionalProperties":false}"##
        let same = Constraint.callsOr(FunctionCalls([Self.now]), .jsonSchema(form))
        let inner = #"{"name": "now", "arguments": {}}"#
        #expect(try accepts(same, inner) && accepts(same, Self.text(inner, inner)))
        #expect(try !accepts(same, inner + "\n</tool_call>") && !accepts(same, "<tool_call>\n" + inner))
        // A reference leads to its own schema, and tags within the answer are text.
        let own = ##"{"$ref":"#/$defs/a","$defs":{"a":{"type":"string"}}}"##
        let functions = FunctionCalls([
            FunctionCalls.Function(
                name: "f",
                parameters:
                    ##"{"properties":{"v":{"$ref":"#/$defs/a"}},"required":["v"],"$defs":{"a":{"type":"null"}}}"##)
        ])
        let referring = Constraint.callsOr(functions, .jsonSchema(own))
        #expect(try accepts(referring, #""<tool_call>""#) && !accepts(referring, "null"))
        #expect(try accepts(referring, Self.text(#"{"name": "f", "arguments": {"v": null}}"#)))
        #expect(try !accepts(referring, Self.text(#"{"name": "f", "arguments": {"v": ""}}"#)))
    }

    @Test func whoIsToBlame() throws {
        let bad = #"{"properties":{"a":{"uniqueItems":true,"type":"array"}}}"#
        let inAnswer = try #require(refusal(.callsOr(Self.both, .jsonSchema(bad))))
        #expect(inAnswer.isAnswers && inAnswer.function == nil && inAnswer.place == "#/properties/a/uniqueItems")
        let functions = FunctionCalls([Self.now, FunctionCalls.Function(name: "f", parameters: bad)])
        let inFunction = try #require(refusal(.callsOr(functions, .json)))
        #expect(!inFunction.isAnswers && inFunction.function == 1)
        let answers: [(Constraint, ConstraintError.Reason)] = [
            (.regex("<tool_call>.*"), .unsatisfiable), (.choice(["<tool_call>x"]), .unsatisfiable),
            (.choice([]), .invalid),
            (.regex("("), .invalid), (.jsonSchema("{"), .invalid), (.jsonSchema("7"), .invalid),
            (.jsonSchema(#"{"not":{}}"#), .unsatisfiable), (.calls(Self.both), .invalid),
            (.callsOr(Self.both, .json), .invalid),
        ]
        for (answer, reason) in answers {
            let error = try #require(refusal(.callsOr(Self.both, answer)), "\(answer)")
            #expect(error.isAnswers && error.reason == reason && error.function == nil, "\(answer): \(error)")
        }
    }

    /// Random answers beside calls, in tokens that cross tags: every mask is that of the calls and that of the answer together.
    @Test(arguments: 0..<60 as Range<UInt64>) func masksOfACallOrAnAnswer(seed: UInt64) throws {
        let tags = [
            "<tool", "_call>", "_call>\n", "<tool_call>\n{\"name", "<t", "ool_call>x", "\n</tool_call>", "</tool",
            "x<tool",
        ]
        let tokens = testTokens + tags.map { Array($0.utf8) }
        let vocabulary = Vocabulary(tokens: tokens)
        let tag = Array("<tool_call>".utf8)
        var source = RandomConstraints(random: SplitMix64(state: seed))
        let fixed: [Constraint] = [
            .regex("(<tool_call>|x)*"), .regex("[<a-z_]*>?[^b]*"),
            .choice(["<tool_call>a", "<tool_cal", "<tool_callx"]),
        ]
        let answer = seed < 12 ? fixed[Int(seed) % 3] : source.constraint()
        guard let alone = try? CompiledConstraint(answer, vocabulary: vocabulary) else {
            let isRefused = SigmaGrammarTests.refusal(.callsOr(Self.both, answer)) != nil
            return #expect(isRefused)
        }
        let either: CompiledConstraint
        do {
            either = try CompiledConstraint(.callsOr(Self.both, answer), vocabulary: vocabulary)
        } catch {
            // The functions' schemas are known to be fine: there was no time for all together.
            return #expect(error.reason == .limit, "\(error)")
        }
        var state = either.begin()
        var own: ConstraintState? = alone.begin()
        var calling: ConstraintState? = try CompiledConstraint(.calls(Self.both), vocabulary: vocabulary).begin()
        for _ in 0..<40 {
            let mask = state.mask()
            let (ownMask, callMask) = (own?.mask(), calling?.mask())
            for token in tokens.indices {
                let isAnswer =
                    ownMask?.contains(token: token) == true
                    && !(state.text + (tokens[token] ?? [])).starts(with: tag)
                let isCall = callMask?.contains(token: token) == true
                #expect(mask.contains(token: token) == (isAnswer || isCall), "seed \(seed): token \(token)")
            }
            let mayEnd = own?.allowsEnd == true || calling?.allowsEnd == true
            #expect(allowsEnd(&state) == mayEnd)
            let allowed = tokens.indices.filter { mask.contains(token: $0) }
            let marked = allowed.filter { tokens[$0]!.contains { [0x3C, 0x3E, 0x5F].contains($0) } }
            guard
                let token = (marked.isEmpty || source.below(3) == 0 ? allowed : marked)
                    .randomElement(using: &source.random)
            else { break }
            let bytes = tokens[token]!
            #expect(advances(&state, bytes))
            if own?.advance(bytes) == false || state.text.starts(with: tag) { own = nil }
            if calling?.advance(bytes) == false { calling = nil }
            #expect(own != nil || calling != nil)
        }
    }

    @Test func theCacheTellsThemApart() throws {
        let cache = ConstraintCache(vocabulary: testVocabulary)
        let constraints: [Constraint] = [
            .calls(Self.both), .callsOr(Self.both, .json), .callsOr(Self.both, .jsonObject),
            .callsOr(Self.both, .choice(["a", "b"])), .callsOr(Self.both, .choice(["a"])),
            .callsOr(Self.both, .regex("a")),
            .callsOr(FunctionCalls([Self.now]), .regex("a")), .json,
        ]
        for _ in 0..<2 {
            for constraint in constraints { #expect(try cache.compiled(constraint).constraint == constraint) }
        }
        #expect(cache.count == constraints.count)
    }

    @Test func whatIsForcedIsADraft() throws {
        let state = try compiled(.calls(FunctionCalls([Self.now], allowsSeveral: false))).begin()
        #expect(
            String(decoding: state.forcedBytes(limit: 200), as: UTF8.self)
                == "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>")
    }

    @Test func manyFunctions() throws {
        let functions = (0..<500).map { place in
            FunctionCalls.Function(
                name: "f\(place)",
                parameters:
                    #"{"type":"object","properties":{"p\#(place)":{"type":"integer"}},"required":["p\#(place)"],"additionalProperties":false}"#
            )
        }
        let constraint = try compiled(.calls(FunctionCalls(functions)))
        for place in [0, 77, 499] {
            var state = constraint.begin()
            #expect(advances(&state, Self.text(#"{"name": "f\#(place)", "arguments": {"p\#(place)": 1}}"#).utf8))
            var other = constraint.begin()
            #expect(!advances(&other, Self.text(#"{"name": "f\#(place)", "arguments": {"p1": 1}}"#).utf8))
            state = constraint.begin()
            #expect(advances(&state, "<tool_call>\n{\"name\": \"f\(place)".utf8))
            #expect(state.mask().contains(token: Int(UInt8(ascii: "\""))))
        }
    }
}
