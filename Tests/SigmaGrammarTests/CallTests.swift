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
