import SigmaBase
import Testing

@testable import SigmaGrammar

/// Calls in the forms of other families: bare JSON, and tagged XML with its parameters as text.
@Suite struct CallFormTests {
    private static let weather = FunctionCalls.Function(
        name: "weather",
        parameters:
            #"{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer","minimum":1},"fine":{"type":"boolean"},"#
            + #""tags":{"type":"array","items":{"type":"string"}},"note":{"type":["string","null"]}},"required":["city"],"additionalProperties":false}"#
    )
    private static let now = FunctionCalls.Function(name: "now", parameters: nil)
    private static let any = FunctionCalls.Function(name: "any", parameters: "{}")

    private static func calls(_ form: CallForm, _ functions: [FunctionCalls.Function], several: Bool = true)
        -> Constraint
    {
        .calls(FunctionCalls(functions, form: form, allowsSeveral: several))
    }

    // MARK: - Bare JSON

    @Test func bareJSON() throws {
        let constraint = Self.calls(.json, [Self.weather, Self.now])
        for text in [
            #"{"name": "now", "parameters": {}}"#, #"{"name":"weather","parameters":{"city":"<tool_call>"}}"#,
            "{\n  \"name\": \"now\",\n  \"parameters\": {}\n}",
        ] { #expect(try accepts(constraint, text), "\(text)") }
        let call = #"{"name": "now", "parameters": {}}"#
        for text in [
            "", "x", call + "\n" + call, call + call, " " + call, #"{"name": "now", "arguments": {}}"#,
            #"{"name": "later", "parameters": {}}"#, "<tool_call>\n\(call)\n</tool_call>",
            #"{"name": "weather", "parameters": {}}"#,
        ] { #expect(try !accepts(constraint, text), "\(text)") }
    }

    /// What could be taken for a call is one, or nothing.
    @Test func bareJSONBesidesAnswers() throws {
        let calls = FunctionCalls([Self.weather, Self.now], form: .json)
        let call = #"{"name": "now", "parameters": {}}"#
        for answer in [Constraint.json, .jsonObject, .regex(".*"), .choice([call, "x", #"{"a": 1}"#])] {
            let either = Constraint.callsOr(calls, answer)
            let isJSON = answer == .json || answer == .jsonObject
            #expect(try accepts(either, call) && accepts(either, #"{"a": 1}"#) == isJSON, "\(answer)")
            // Of text, what begins with a brace could be a call.
            if !isJSON { #expect(try accepts(either, "x")) }
            for text in [
                #"{"name": "now", "parameters": {"a": 1}}"#, #"{"name": "weather", "parameters": 7}"#,
                #"{"name":"now", "parameters":[]}"#, call + "x",
            ] { #expect(try !accepts(either, text), "\(answer): \(text)") }
        }
        #expect(refusal(.callsOr(calls, .choice(["{", "{}"])))?.reason == .unsatisfiable)
        let person =
            #"{"type":"object","properties":{"name":{"type":"string"},"parameters":{"type":"object"},"age":{"type":"integer"}}}"#
        let either = Constraint.callsOr(calls, .jsonSchema(person))
        for text in [
            #"{"name": "Ann", "age": 3}"#, #"{"name": "now"}"#, #"{"name": "nowadays", "parameters": {"a": 1}}"#,
            #"{"age": 7}"#, call,
        ] { #expect(try accepts(either, text), "\(text)") }
        #expect(try !accepts(either, #"{"name": "now", "parameters": {"a": 1}}"#))
    }

    // MARK: - Openings

    /// - Returns: where the opening is complete.
    private func place(_ text: String, _ opening: CallOpening) -> Int? {
        var progress = opening.start
        for (place, byte) in text.utf8.enumerated() where opening.take(byte, &progress) != nil { return place + 1 }
        return nil
    }

    @Test func openings() {
        let bare = CallOpening(form: .json, names: ["now", "no", "weather"])
        for text in [
            #"{"name": "now", "parameters":"#, #"{"name":"no","parameters":"#,
            "{\n  \"name\": \"weather\",\n\t\"parameters\":",
        ] {
            #expect(place(text + " {", bare) == text.utf8.count, "\(text)")
            #expect(place("x" + text, bare) == nil && place(String(text.dropLast()), bare) == nil)
        }
        for text in [
            #" {"name": "now", "parameters":"#, #"{"name" : "now", "parameters":"#, #"{"name": "later", "parameters":"#,
            #"{"name": "now", "arguments":"#, #"{"name":  "now", "parameters":"#, #"{"name": "nowa", "parameters":"#,
        ] { #expect(place(text, bare) == nil, "\(text)") }
        for form in [CallForm.taggedJSON, .taggedXML] {
            let tagged = CallOpening(form: form, names: [])
            #expect(place("x<tool_<tool_call>", tagged) == 18 && place("<tool_calls>", tagged) == nil)
        }
    }

    /// The opening and the automaton read white space alike: what is not an opening begins no call.
    @Test(arguments: 0..<200 as Range<UInt64>) func openingsAreTheAutomatons(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        let calls = FunctionCalls([Self.now], form: .json)
        func space() -> String {
            [
                "", "", " ", "  ", "\n", "\n  ", "\n\t\t", "\n" + String(repeating: " ", count: 33), "\n \t", "\t",
                "\n" + String(repeating: "\t", count: 16), "\n" + String(repeating: "\t", count: 17),
            ]
            .randomElement(
                using: &random)!
        }
        let head =
            "{\(space())\"name\":\(space())\"now\"\(["", "", " "].randomElement(using: &random)!),\(space())\"parameters\":"
        #expect((place(head, calls.opening) != nil) == (try accepts(.calls(calls), head + "{}}")), "\(head)")
    }

    // MARK: - Tagged XML

    private static func xml(_ name: String, _ parameters: (String, String)...) -> String {
        "<tool_call>\n<function=\(name)>\n"
            + parameters.map { "<parameter=\($0)>\n\($1)\n</parameter>\n" }.joined() + "</function>\n</tool_call>"
    }

    @Test func taggedXML() throws {
        let constraint = Self.calls(.taggedXML, [Self.weather, Self.now])
        let accepted = [
            Self.xml("now"), Self.xml("weather", ("city", "Paris")), Self.xml("weather", ("city", "")),
            Self.xml("weather", ("city", "a\n<b> </parameter> \"x\" é")),
            Self.xml("weather", ("city", "7"), ("days", "2")),
            Self.xml("weather", ("city", "\n"), ("fine", "True")),
            Self.xml("weather", ("city", "x"), ("fine", "false")),
            Self.xml("weather", ("city", "x"), ("tags", #"["a", "b\n"]"#), ("note", "None")),
            Self.xml("weather", ("city", "x"), ("tags", "[]"), ("note", "nothing [yet]")),
            Self.xml("now") + "\n" + Self.xml("weather", ("city", "</function>")),
        ]
        for text in accepted { #expect(try accepts(constraint, text), "\(text)") }
        let refused = [
            "", "x", Self.xml("later"), Self.xml("weather"), Self.xml("weather", ("days", "2")),
            Self.xml("weather", ("city", "x"), ("days", "0")), Self.xml("weather", ("city", "x"), ("days", "two")),
            Self.xml("weather", ("city", "x"), ("fine", "yes")), Self.xml("weather", ("city", "x"), ("tags", "a")),
            Self.xml("weather", ("city", "x"), ("town", "y")), Self.xml("weather", ("city", "x"), ("city", "y")),
            Self.xml("weather", ("city", "x"), ("tags", #"["a",]"#)), Self.xml("now", ("a", "b")),
            Self.xml("weather", ("days", "2"), ("city", "x")), Self.xml("now") + Self.xml("now"),
            Self.xml("now") + "\n",
            "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
            Self.xml("weather", ("city", "x\n</parameter>\n")), Self.xml("weather", ("city", "x\n</parameter> y")),
            Self.xml("weather", ("city", "</parameter>")),
        ]
        for text in refused { #expect(try !accepts(constraint, text), "\(text)") }
        let one = Self.calls(.taggedXML, [Self.now], several: false)
        #expect(try accepts(one, Self.xml("now")) && !accepts(one, Self.xml("now") + "\n" + Self.xml("now")))
        let either = Constraint.callsOr(FunctionCalls([Self.weather, Self.now], form: .taggedXML), .jsonObject)
        #expect(try accepts(either, Self.xml("now")) && accepts(either, #"{"a": "<tool_call>"}"#))
        #expect(try !accepts(either, Self.xml("later")))
    }

    /// A value is a string unless it reads as something else that it may be; and what it reads as fits the schema.
    @Test(arguments: [
        ("7", #"{"type":"string"}"#, #""7""#), ("7", "{}", "7"), ("-7.5e3", "{}", "-7.5e3"), ("07", "{}", #""07""#),
        ("True", "{}", "true"), ("None", "{}", "null"), ("none", "{}", #""none""#), ("[1, {}]", "{}", "[1, {}]"),
        ("[1", #"{"type":["string","object"]}"#, #""[1""#), ("{}", #"{"type":["string","object"]}"#, "{}"),
        ("null", #"{"type":["string","null"]}"#, "null"), ("1.5", #"{"type":["string","integer"],"maxLength":2}"#, nil),
        ("1.5", #"{"type":["string","integer"]}"#, nil), ("x", #"{"enum":["x",1]}"#, #""x""#),
        ("1", #"{"enum":["x",1]}"#, "1"),
        ("1", #"{"enum":["1",null]}"#, #""1""#), ("{\"a\":", "{}", nil), ("False", #"{"const":true}"#, nil),
        ("\"q\"", #"{"type":"string"}"#, #""\"q\"""#), ("2024-02-30", #"{"type":"string","format":"date"}"#, nil),
    ]) func valuesByKind(_ text: String, _ schema: String, _ json: String?) throws {
        let function = FunctionCalls.Function(
            name: "f", parameters: #"{"properties":{"a":\#(schema)},"required":["a"],"additionalProperties":false}"#)
        let constraint = Self.calls(.taggedXML, [function])
        #expect(try accepts(constraint, Self.xml("f", ("a", text))) == (json != nil))
        let kinds = try compiled(constraint).parameters(of: "f").kinds(of: "a")
        if let json {
            #expect(kinds.json(of: text) == json)
            #expect(try accepts(schema, json), "the value fits its schema")
        }
    }

    /// Whichever of several values a text is written as, what it is read as fits the schema.
    @Test(arguments: [
        #"{"patternProperties":{"^n_":{"type":"integer"}},"additionalProperties":{"type":"string"}}"#,
        #"{"anyOf":[{"properties":{"k":{"const":"s"},"v":{"type":"string"}},"required":["k","v"]},"#
            + #"{"properties":{"k":{"const":"n"},"v":{"type":"integer"}},"required":["k","v"]}]}"#,
        #"{"anyOf":[{"properties":{"v":{"type":"integer"}},"required":["v"],"additionalProperties":false},"#
            + #"{"properties":{"w":{"const":"x"}},"required":["w"],"additionalProperties":{"type":"string"}}]}"#,
        #"{"anyOf":[{"properties":{"v":{"type":"string"}},"required":["v"],"additionalProperties":false},"#
            + #"{"properties":{"w":{"const":"x"}},"required":["w"],"additionalProperties":{"type":"integer"}}]}"#,
    ]) func textsAreReadAsTheyAreMeant(_ schema: String) throws {
        let constraint = Self.calls(.taggedXML, [.init(name: "f", parameters: schema)])
        let parameters = try compiled(constraint).parameters(of: "f")
        var count = 0
        for (first, second) in [("k", "v"), ("w", "v"), ("n_a", "s"), ("s", "n_a")] {
            for (a, b) in [("s", "5"), ("n", "5"), ("s", "x"), ("x", "5"), ("x", "y"), ("5", "x"), ("5", "5")] {
                let text = Self.xml("f", (first, a), (second, b))
                guard try accepts(constraint, text) else { continue }
                count += 1
                let json =
                    "{\"\(first)\":\(parameters.kinds(of: first).json(of: a)),\"\(second)\":\(parameters.kinds(of: second).json(of: b))}"
                #expect(try accepts(schema, json), "\(json)")
            }
        }
        #expect(count > 0)
    }

    /// Without a parameter that no tag can name there are too few: no answer could end.
    @Test func tooFewParametersThatTagsCanName() throws {
        let schema =
            #"{"properties":{"a":{"type":"string"},"x>y":{"type":"string"}},"minProperties":2,"additionalProperties":false}"#
        let error = refusal(Self.calls(.taggedXML, [.init(name: "f", parameters: schema, isStrict: true)]))
        #expect(error?.reason == .unsupported && error?.keyword == "minProperties")
    }

    /// White space before a call is none of JSON's: a text may begin with it.
    @Test func textsBesideCallsMayBeginWithSpace() throws {
        let calls = FunctionCalls([Self.now], form: .json)
        for answer in [Constraint.choice([" yes", "\n\tno"]), .regex("[ \\n]yes|\\n\\tno")] {
            let either = Constraint.callsOr(calls, answer)
            for text in [" yes", "\n\tno", #"{"name": "now", "parameters": {}}"#] {
                #expect(try accepts(either, text), "\(text)")
            }
            #expect(try !accepts(either, #" {"name": "now", "parameters": {}}"#) && !accepts(either, " "))
        }
    }

    @Test func parametersWithoutNames() throws {
        let constraint = Self.calls(.taggedXML, [Self.any, Self.now])
        #expect(try accepts(constraint, Self.xml("any")))
        #expect(try accepts(constraint, Self.xml("any", ("a b", "x"), ("é<", "[1]"))))
        #expect(
            try !accepts(constraint, Self.xml("any", ("a>", "x"))) && !accepts(constraint, Self.xml("any", ("", "x"))))
        let parameters = try compiled(constraint).parameters(of: "any")
        #expect(parameters.named.isEmpty && parameters.others.rawValue == 63)
    }

    /// Names that no tag can have are left out where they may be, and refused where they may not.
    @Test func namesThatNoTagCanHave() throws {
        func function(_ required: String, isStrict: Bool) -> FunctionCalls.Function {
            FunctionCalls.Function(
                name: "f",
                parameters:
                    #"{"properties":{"a>b":{},"c":{"type":"string"}},"required":[\#(required)],"additionalProperties":false}"#,
                isStrict: isStrict)
        }
        let optional = Self.calls(.taggedXML, [function("\"c\"", isStrict: true)])
        #expect(
            try accepts(optional, Self.xml("f", ("c", "x")))
                && !accepts(optional, Self.xml("f", ("c", "x"), ("a>b", "1"))))
        let error = refusal(Self.calls(.taggedXML, [Self.now, function("\"a>b\"", isStrict: true)]))
        #expect(error?.reason == .unsupported && error?.function == 1, "\(error.map { "\($0)" } ?? "")")
        // What is not strict keeps the types of the others.
        let loose = try compiled(Self.calls(.taggedXML, [function("\"a>b\"", isStrict: false)]))
        #expect(
            loose.parameters(of: "f").kinds(of: "c") == .string
                && loose.parameters(of: "f").kinds(of: "d").rawValue == 63)
    }

    /// Tokens chosen at random under the masks: every value, read by its kind, fits the function's schema.
    @Test(arguments: 0..<60 as Range<UInt64>) func randomCallsFitTheirSchemas(seed: UInt64) throws {
        let functions = [Self.weather, Self.now, Self.any]
        let constraint = try compiled(Self.calls(.taggedXML, functions))
        let tags = [
            "\n</parameter>\n", "</parameter>", "\n</", ">\n", "<parameter=", "\n</parameter>\n</function>",
            "=city>\nTrue",
        ]
        let tokens = testTokens + tags.map { Array($0.utf8) }
        let vocabulary = Vocabulary(tokens: tokens)
        let state0 = try CompiledConstraint(constraint.constraint, vocabulary: vocabulary)
        var state = state0.begin()
        var random = SplitMix64(state: seed)
        var ended = false
        for step in 0..<4_000 where !ended {
            let mask = state.mask()
            var allowed = tokens.indices.filter { mask.contains(token: $0) }
            #expect(!allowed.isEmpty || allowsEnd(&state))
            // Values that end now and then.
            let ends = allowed.filter { tokens[$0]!.count > 1 && tokens[$0]!.contains(UInt8(ascii: ">")) }
            let brackets = allowed.filter { [0x22, 0x5D, 0x7D, 0x0A, 0x3C, 0x2F].contains(tokens[$0]!.first ?? 0) }
            if step % 5 == 4, !ends.isEmpty {
                allowed = ends
            } else if step % 3 == 2, !brackets.isEmpty {
                allowed = brackets
            }
            if allowsEnd(&state), allowed.isEmpty || Bool.random(using: &random) {
                ended = true
            } else {
                let token = try #require(allowed.randomElement(using: &random))
                #expect(advances(&state, tokens[token]!))
            }
        }
        guard ended else { return }
        for part in Self.parts(of: state.text, at: "</function>\n</tool_call>") where !part.isEmpty {
            let start = Self.parts(of: part, at: "<function=")
            let word = Self.parts(of: start[1], at: ">\n")[0]
            let name = String(decoding: word, as: UTF8.self)
            let rest = part.dropFirst(start[0].count + "<function=>\n".utf8.count + word.count)
            let parameters = state0.parameters(of: name)
            var members: [String] = []
            for field in Self.parts(of: Array(rest), at: "\n</parameter>\n") where !field.isEmpty {
                let tag = Self.parts(of: field, at: ">\n")[0]
                let key = String(decoding: tag.dropFirst("<parameter=".utf8.count), as: UTF8.self)
                let value = String(decoding: field.dropFirst(tag.count + 2), as: UTF8.self)
                var quoted = ""
                JSONWriter.escape(key, into: &quoted)
                members.append("\(quoted): \(parameters.kinds(of: key).json(of: value))")
            }
            let schema = functions.first { $0.name == name }?.parameters ?? #"{"additionalProperties":false}"#
            #expect(
                try accepts(schema, "{" + members.joined(separator: ", ") + "}"),
                "seed \(seed): \(String(decoding: part, as: UTF8.self))")
        }
    }

    private static func parts(of text: [UInt8], at separator: String) -> [[UInt8]] {
        let separator = Array(separator.utf8)
        var parts: [[UInt8]] = [[]]
        var rest = text[...]
        while let byte = rest.first {
            if rest.starts(with: separator) {
                parts.append([])
                rest = rest.dropFirst(separator.count)
            } else {
                parts[parts.count - 1].append(byte)
                rest = rest.dropFirst()
            }
        }
        return parts
    }

    @Test func whatIsForced() throws {
        let state = try compiled(Self.calls(.taggedXML, [Self.now], several: false)).begin()
        #expect(String(decoding: state.forcedBytes(limit: 200), as: UTF8.self) == Self.xml("now"))
        let bare = try compiled(Self.calls(.json, [Self.now])).begin()
        #expect(String(decoding: bare.forcedBytes(limit: 200), as: UTF8.self) == #"{"name": "now", "parameters": {}}"#)
    }

    @Test func theCacheTellsFormsApart() throws {
        let cache = ConstraintCache(vocabulary: testVocabulary)
        for _ in 0..<2 {
            for form in CallForm.allCases {
                let constraint = Self.calls(form, [Self.now])
                #expect(try cache.compiled(constraint).constraint == constraint)
            }
        }
        #expect(cache.count == 3)
    }
}
