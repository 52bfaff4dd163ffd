import Testing

@testable import SigmaGrammar

/// Masks against the automaton itself, token by token.
@Suite struct MaskTests {
    static let person = """
        {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
         "tags": {"type": "array", "items": {"enum": ["red", "green", 12]}}, "kind": {"type": "string", "maxLength": 20}},
         "required": ["name"], "additionalProperties": {"type": "string", "pattern": "^[a-z0-9]+$"}}
        """

    static let answers: [(Constraint, String)] = [
        (
            Constraint.jsonSchema(person),
            #"{"name": "hello wörld\n\"x\"", "age": 123, "tags": ["red", 12], "kind": "aé😀", "foo": "abc"}"#
        ),
        (.jsonSchema(person), "{\n  \"name\": \"the quick brown fox\",\n  \"tags\": []\n}"),
        (.json, #"[{"a": [true, null, -1.5e3, "漢字 \u00e9 \ud83d\ude00"]}, {}, []]"#),
        (.jsonObject, #"{"id": {"foo": ["bar"]}}"#),
        (.regex("[a-z]+ = (?:\"[^\"]*\"|[0-9]{2,4})\n"), "name = \"漢 x\"\n"),
        (.choice(["red", "green", "grey", "blue é"]), "blue é"),
        (.jsonSchema(#"{"anyOf": [{"type": "string", "format": "email"}, {"type": "number"}]}"#), #""user@foo.com""#),
        (
            .jsonSchema(
                ##"{"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"$ref": "#"}}]}"##
            ), #"[[["a"]]]"#
        ),
        (
            .jsonSchema(#"{"type": "string", "pattern": "^(?!foo)[^ ]{2,30}$", "maxLength": 25}"#),
            "\"0123456789abcdefghijklm\""
        ),
    ]

    @Test(arguments: answers)
    func masksAgreeWithBytes(_ constraint: Constraint, _ text: String) throws {
        let compiled = try compiled(constraint)
        var state = compiled.begin()
        for byte in text.utf8 {
            expectAgreement(&state, testTokens)
            #expect(advances(&state, CollectionOfOne(byte)))
        }
        expectAgreement(&state, testTokens)
        #expect(allowsEnd(&state))
        // Again, with masks from the cache.
        var second = compiled.begin()
        let made = compiled.statistics.masksMade
        for byte in text.utf8 {
            expectAgreement(&second, testTokens)
            #expect(advances(&second, CollectionOfOne(byte)))
        }
        #expect(compiled.statistics.masksMade == made)
    }

    private func expectAgreement(_ state: inout ConstraintState, _ tokens: [[UInt8]?]) {
        let mask = state.mask()
        var count = 0
        for (id, bytes) in tokens.enumerated() {
            var draft = state
            let isAllowed = bytes.map { !$0.isEmpty && draft.advance($0) } ?? false
            #expect(
                mask.contains(token: id) == isAllowed,
                "\(bytes ?? []) behind \(String(decoding: state.text, as: UTF8.self))")
            if isAllowed { count += 1 }
        }
        #expect(count > 0 || state.allowsEnd)
        #expect(mask.reduce(0) { $0 + $1.nonzeroBitCount } == count)
    }

    @Test func cacheLimitAndRenewalChangeNothing() throws {
        var tight = ConstraintLimits()
        tight.maskBytes = 700
        tight.states = 5
        let small = try compiled(.jsonSchema(Self.person), limits: tight)
        let large = try compiled(.jsonSchema(Self.person))
        var first = small.begin()
        var second = large.begin()
        for byte in #"{"name": "hello", "age": 12, "kind": "abc", "x": "a1"}"#.utf8 {
            #expect(first.mask() == second.mask())
            #expect(first.advance(CollectionOfOne(byte)) && second.advance(CollectionOfOne(byte)))
        }
        #expect(allowsEnd(&first))
        #expect(small.statistics.maskBytes <= 700)
    }

    @Test func refusedBytesChangeNothing() throws {
        var state = try compiled(.jsonSchema(Self.person)).begin()
        #expect(advances(&state, #"{"name": "a"#.utf8))
        let mask = state.mask()
        #expect(!advances(&state, #"", "age": -1"#.utf8))
        #expect(state.text == Array(#"{"name": "a"#.utf8))
        #expect(state.mask() == mask)
        var draft = state
        #expect(draft.advance(#"b"}"#.utf8) && draft.allowsEnd && !state.allowsEnd)
        #expect(!advances(&draft, " ".utf8))
    }

    @Test func whatIsForced() throws {
        let schema =
            #"{"type": "object", "properties": {"name": {"type": "string"}, "kind": {"const": "user"}}, "required": ["name", "kind"], "additionalProperties": false}"#
        var state = try compiled(.jsonSchema(schema)).begin()
        #expect(state.forcedBytes(limit: 100) == Array(#"{"name": ""#.utf8))
        #expect(state.forcedBytes(limit: 4) == Array(#"{"na"#.utf8))
        #expect(advances(&state, #"{"name":"x""#.utf8))
        #expect(state.forcedBytes(limit: 100) == Array(#", "kind":"user"}"#.utf8))
        #expect(advances(&state, #","kin"#.utf8))
        #expect(state.forcedBytes(limit: 100) == Array(#"d":"user"}"#.utf8))
        #expect(advances(&state, #"d":"user"}"#.utf8))
        #expect(state.forcedBytes(limit: 100) == [])
        let choice = try compiled(.choice(["grey", "green"])).begin()
        #expect(choice.forcedBytes(limit: 9) == Array("gre".utf8))
    }

    @Test func whitespaceIsBounded() throws {
        let schema = #"{"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}"#
        for text in [
            #"{"a":[1,2]}"#, #"{"a": [1, 2]}"#, "{\n\t\"a\": [\n\t\t1,\n\t\t2\n\t]\n}", "{\n  \"a\": [ 1, 2 ]\n}",
            "{ }", "{\n}",
        ] {
            #expect(try accepts(schema, text), "\(text)")
        }
        for text in [
            " {}", "{} ", "{\"a\" : []}", "{\"a\":  []}", "{\"a\":\n[]}", "{\n\n}", "{\n \t}", "{\r\n}",
            "{\"a\": [1 , 2]}",
        ] {
            #expect(try !accepts(schema, text), "\(text)")
        }
        let blanks = "{\n" + String(repeating: " ", count: 33) + "}"
        #expect(try !accepts(schema, blanks))
    }

    @Test func longTokensAreNeverAllowed() throws {
        let vocabulary = Vocabulary(tokens: [
            Array("a".utf8), [UInt8](repeating: 0x61, count: 255), [UInt8](repeating: 0x61, count: 256),
        ])
        var state = try CompiledConstraint(.regex("a*"), vocabulary: vocabulary).begin()
        #expect(state.mask() == [0b011])
    }
}
