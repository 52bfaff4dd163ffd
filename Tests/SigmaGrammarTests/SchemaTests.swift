import Testing

@testable import SigmaGrammar

/// A schema, instances that it accepts, and instances that it doesn't.
struct SchemaCase: Sendable, CustomTestStringConvertible {
    var schema: String
    var valid: [String]
    var invalid: [String]

    init(_ schema: String, valid: [String], invalid: [String]) {
        self.schema = schema
        self.valid = valid
        self.invalid = invalid
    }

    var testDescription: String { schema }

    static let values: [SchemaCase] = [
        SchemaCase(
            "true", valid: ["1", "null", "[]", "{\"a\": {}}", "\"x\""], invalid: ["", "tru", "[1,]", "{\"a\"}", "01"]),
        SchemaCase(#"{"type": ["string", "null"]}"#, valid: ["\"\"", "null"], invalid: ["1", "true", "[]", "{}"]),
        SchemaCase(
            #"{"enum": [1, "a", null, [2], {"b": true}]}"#, valid: ["1", "\"a\"", "null", "[2]", "{\"b\": true}"],
            invalid: ["2", "\"b\"", "[]", "[2, 2]", "{\"b\": false}", "{}", "true"]),
        SchemaCase(
            #"{"const": {"a": [1, {"b": "\"\n"}]}}"#, valid: [#"{"a": [1, {"b": "\"\n"}]}"#],
            invalid: [#"{"a": [1, {"b": "\""}]}"#]),
        SchemaCase(#"{"enum": [false]}"#, valid: ["false"], invalid: ["0", "true"]),
        SchemaCase(
            #"{"type": "string", "minLength": 2, "maxLength": 3}"#,
            valid: [#""ab""#, #""日本語""#, #""\u00e9\ud83d\ude00""#, #""\n\/""#],
            invalid: [#""a""#, #""abcd""#, #""😀""#, #""\ud83d\ude00""#]),
        SchemaCase(
            #"{"type": "string", "pattern": "^a+$", "maxLength": 3}"#, valid: [#""aa""#, #""\u0061a""#],
            invalid: [#""aaaa""#, #""ab""#, #""""#]),
        SchemaCase(
            #"{"type": "string"}"#, valid: [#""\u0000\"\\""#],
            invalid: [#""\ud83d""#, #""\ude00\ud83d""#, "\"\n\"", #""\x""#, "\""]),
        SchemaCase(#"{"minimum": 3}"#, valid: ["3", "\"x\"", "[1]"], invalid: ["2", "2.99"]),
    ]

    static let formats: [SchemaCase] = [
        SchemaCase(
            #"{"format": "date"}"#, valid: [#""2024-02-29""#, #""1999-12-31""#, "1"],
            invalid: [#""2023-02-29""#, #""2024-13-01""#, #""2024-04-31""#, #""24-01-01""#]),
        SchemaCase(
            #"{"format": "date-time"}"#, valid: [#""2024-01-31T23:59:59.5Z""#, #""2024-01-31T00:00:00+02:00""#],
            invalid: [#""2024-01-31 23:59:59Z""#, #""2024-01-31T24:00:00Z""#, #""2024-01-31T23:59:59""#]),
        SchemaCase(
            #"{"format": "ipv4"}"#, valid: [#""127.0.0.1""#], invalid: [#""256.0.0.1""#, #""01.0.0.1""#, #""1.2.3""#]),
        SchemaCase(
            #"{"format": "ipv6"}"#,
            valid: [
                #""::""#, #""::1""#, #""1:2:3:4:5:6:7:8""#, #""1::8""#, #""::ffff:1.2.3.4""#, #""1:2:3:4:5:6::8""#,
                #""1:2:3:4:5:6:7::""#,
            ],
            invalid: [
                #""1:2:3:4:5:6:7""#, #""1::2::3""#, #""12345::""#, #""1:2:3:4:5:6:7:8:9""#, #"":""#,
                #""1:2:3:4:5:6:7:8::""#,
            ]),
        SchemaCase(
            #"{"format": "email"}"#, valid: [#""a.b@c.de""#],
            invalid: [#""a""#, #"".a@b.c""#, #""a..b@c.d""#, #""a@-b.c""#]),
        SchemaCase(
            #"{"format": "hostname"}"#, valid: [#""a-b.example""#],
            invalid: [#""-a""#, #""a..b""#, #""xn--x""#, #""a_b""#]),
        SchemaCase(
            #"{"format": "uri"}"#,
            valid: [#""https://a.b:80/c?d=e#f""#, #""urn:isbn:1""#, #""mailto:a@b.c""#, #""http://[::1]/""#],
            invalid: [#""/a""#, #""a b:c""#, #""http://a b""#, #""://x""#]),
        SchemaCase(
            #"{"format": "uuid"}"#, valid: [#""2EB8AA08-aa98-11ea-b4aa-73b441d16380""#],
            invalid: [#""2eb8aa08aa9811eab4aa73b441d16380""#]),
        SchemaCase(
            #"{"format": "duration"}"#, valid: [#""P1Y2M3DT4H5M6S""#, #""P4W""#, #""PT1M""#],
            invalid: [#""P""#, #""PT""#, #""P1D2H""#, #""P1YT""#, #""P2D1Y""#]),
        SchemaCase(#"{"format": "my own"}"#, valid: [#""anything""#], invalid: []),
    ]

    static let arrays: [SchemaCase] = [
        SchemaCase(
            #"{"items": {"type": "integer"}, "minItems": 1, "maxItems": 3}"#, valid: ["[1]", "[1, 2, 3]", "{}"],
            invalid: ["[]", "[1, 2, 3, 4]", "[\"a\"]"]),
        SchemaCase(
            #"{"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false}"#,
            valid: ["[]", "[\"a\"]", "[\"a\", 1]"], invalid: ["[1]", "[\"a\", 1, 2]"]),
        SchemaCase(
            #"{"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}], "additionalItems": {"type": "null"}}"#,
            valid: ["[]", "[\"a\", null]"], invalid: ["[\"a\", 1]"]),
        SchemaCase(#"{"contains": {"const": 5}}"#, valid: ["[5]", "[1, 5, 2]"], invalid: ["[]", "[1, 2]", "[51]"]),
        SchemaCase(
            #"{"contains": {"minimum": 5}, "minContains": 2, "maxContains": 3}"#,
            valid: ["[5, 6]", "[1, 5, 2, 6, 7]"], invalid: ["[5]", "[5, 6, 7, 8]", "[1, 2]"]),
        SchemaCase(
            #"{"contains": {"const": 5}, "maxItems": 2}"#, valid: ["[1, 5]", "[5, 1]"],
            invalid: ["[1, 2]", "[1, 2, 5]"]),
        SchemaCase(
            #"{"not": {"items": {"type": "integer"}}}"#, valid: ["[\"a\"]", "[1, null]"], invalid: ["[]", "[1]", "3"]),
        SchemaCase(
            #"{"not": {"prefixItems": [{"const": 1}, {"const": 2}], "minItems": 2}}"#,
            valid: ["[1]", "[1, 3]", "[2, 2]"], invalid: ["[1, 2]", "[1, 2, 3]", "7"]),
        SchemaCase(
            #"{"type": "array", "uniqueItems": true, "maxItems": 1}"#, valid: ["[]", "[1]"], invalid: ["[1, 1]"]),
    ]

    static let objects: [SchemaCase] = [
        SchemaCase(
            #"{"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"], "additionalProperties": false}"#,
            valid: [#"{"b": "x"}"#, #"{"a": 1, "b": "x"}"#, "[]"],
            invalid: ["{}", #"{"a": 1}"#, #"{"a": "x", "b": "x"}"#, #"{"b": "x", "c": 1}"#, #"{"b": "x", "b": "y"}"#]),
        SchemaCase(
            #"{"properties": {"a": {}}, "additionalProperties": {"type": "null"}}"#,
            valid: [#"{"a": 1, "c": null}"#, #"{"aa": null}"#], invalid: [#"{"c": 1}"#, #"{"\u0061": 1}"#]),
        SchemaCase(
            #"{"patternProperties": {"^x": {"type": "integer"}, "y$": {"minimum": 5}}, "additionalProperties": false}"#,
            valid: [#"{"x": 1}"#, #"{"y": "a"}"#, #"{"xy": 5}"#],
            invalid: [#"{"xy": 4}"#, #"{"z": 1}"#, #"{"x": "a"}"#, #"{"\u0078": "a"}"#]),
        SchemaCase(#"{"propertyNames": {"maxLength": 2}}"#, valid: [#"{"ab": 1}"#, "1"], invalid: [#"{"abc": 1}"#]),
        SchemaCase(
            #"{"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2, "maxProperties": 2}"#,
            valid: [#"{"a": 1, "b": 2}"#, #"{"b": 1, "c": 2}"#, #"{"c": 1, "d": 2}"#],
            invalid: ["{}", #"{"a": 1}"#, #"{"a": 1, "b": 2, "c": 3}"#, #"{"d": 1, "d": 2}"#]),
        SchemaCase(
            #"{"properties": {"a": {}, "b": {}, "c": {}, "d": {}}, "required": ["c"], "maxProperties": 2}"#,
            valid: [#"{"c": 1}"#, #"{"a": 1, "c": 2}"#, #"{"b": 1, "c": 2}"#, #"{"c": 1, "d": 2}"#],
            invalid: [#"{"a": 1, "b": 2}"#, #"{"a": 1, "c": 2, "d": 3}"#, #"{"a": 1, "b": 2, "c": 3}"#]),
        SchemaCase(
            #"{"dependentRequired": {"a": ["b"]}}"#, valid: ["{}", #"{"b": 1}"#, #"{"a": 1, "b": 1}"#],
            invalid: [#"{"a": 1}"#, #"{"a": 1, "c": 1}"#]),
        SchemaCase(
            #"{"dependentSchemas": {"a": {"properties": {"b": {"type": "integer"}}}}}"#,
            valid: [#"{"b": "x"}"#, #"{"a": 1, "b": 2}"#], invalid: [#"{"a": 1, "b": "x"}"#]),
        SchemaCase(
            #"{"dependencies": {"a": ["b"], "c": {"required": ["d"]}}}"#,
            valid: [#"{"a": 1, "b": 2}"#, #"{"c": 1, "d": 1}"#], invalid: [#"{"a": 1}"#, #"{"c": 1}"#]),
        SchemaCase(
            #"{"not": {"required": ["a"]}, "type": "object"}"#, valid: ["{}", #"{"b": 1}"#],
            invalid: [#"{"a": 1}"#, #"{"b": 1, "a": 1}"#, #"{"\u0061": 1}"#]),
        SchemaCase(
            #"{"not": {"additionalProperties": {"type": "string"}}}"#, valid: [#"{"a": 1}"#, #"{"a": "x", "b": 1}"#],
            invalid: ["{}", #"{"a": "x"}"#, "1"]),
        SchemaCase(
            #"{"properties": {"\u00e9": {"const": 1}, "e\u0301": {"const": 2}, "q\"\\": {"const": 3}}}"#,
            valid: ["{\"\u{e9}\": 1, \"e\u{301}\": 2, \"q\\\"\\\\\": 3}"],
            invalid: ["{\"\u{e9}\": 2}", "{\"e\u{301}\": 1}", #"{"q\"\\": 4}"#]),
        SchemaCase(#"{"properties": {"a": false}}"#, valid: ["{}", #"{"b": 1}"#], invalid: [#"{"a": 1}"#]),
    ]

    static let combinations: [SchemaCase] = [
        SchemaCase(
            #"{"allOf": [{"properties": {"a": {"minimum": 2}}}, {"properties": {"a": {"maximum": 4}, "b": {"type": "null"}}, "required": ["b"]}]}"#,
            valid: [#"{"a": 3, "b": null}"#, #"{"b": null}"#],
            invalid: [#"{"a": 1, "b": null}"#, #"{"a": 5, "b": null}"#, #"{"a": 3}"#]),
        SchemaCase(#"{"anyOf": [{"type": "string"}, {"minimum": 5}]}"#, valid: ["\"a\"", "5", "null"], invalid: ["4"]),
        SchemaCase(
            #"{"oneOf": [{"type": "integer"}, {"minimum": 5}]}"#, valid: ["1", "5.5", "null"],
            invalid: ["5", "1.5", "7"]),
        SchemaCase(
            #"{"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"}"#,
            valid: [#"{"a": 1}"#, #"{"b": 1, "c": 1}"#], invalid: ["{}", #"{"a": 1, "b": 1}"#]),
        SchemaCase(
            #"{"oneOf": [{"properties": {"k": {"const": "a"}, "x": {"type": "integer"}}, "required": ["k", "x"]}, {"properties": {"k": {"const": "b"}, "x": {"type": "string"}}, "required": ["k", "x"]}]}"#,
            valid: [#"{"k": "a", "x": 1}"#, #"{"k": "b", "x": "y"}"#],
            invalid: [#"{"k": "a", "x": "y"}"#, #"{"k": "b", "x": 1}"#, #"{"k": "c", "x": 1}"#]),
        // Punycode isn't written, but it is a host name all the same.
        SchemaCase(
            #"{"type": "string", "not": {"format": "hostname"}}"#, valid: [#""-a""#], invalid: [#""a""#, #""xn--a""#]),
        SchemaCase(
            #"{"type": "string", "oneOf": [{"format": "hostname"}, {"pattern": "^xn--"}]}"#,
            valid: [#""a.b""#, #""xn--é""#], invalid: [#""xn--a""#, #""-a""#]),
        SchemaCase(#"{"not": {"not": {"type": "integer"}}}"#, valid: ["1"], invalid: ["1.5", "\"a\""]),
        SchemaCase(
            #"{"type": "string", "not": {"enum": ["a", "b"]}}"#, valid: ["\"c\"", "\"\"", "\"ab\""],
            invalid: ["\"a\"", "\"b\"", #""\u0061""#]),
        SchemaCase(
            #"{"if": {"properties": {"k": {"const": 1}}, "required": ["k"]}, "then": {"required": ["x"]}, "else": {"required": ["y"]}, "properties": {"k": {}, "x": {}, "y": {}}, "type": "object"}"#,
            valid: [#"{"k": 1, "x": 0}"#, #"{"k": 2, "y": 0}"#, #"{"y": 0}"#],
            invalid: [#"{"k": 1}"#, #"{"k": 1, "y": 0}"#, #"{"k": 2, "x": 0}"#, "{}"]),
        SchemaCase(
            ##"{"$ref": "#/$defs/tree", "$defs": {"tree": {"properties": {"v": {"type": "integer"}, "c": {"items": {"$ref": "#/$defs/tree"}}}, "required": ["v"], "additionalProperties": false}}}"##,
            valid: [#"{"v": 1, "c": [{"v": 2, "c": []}, {"v": 3}]}"#],
            invalid: [#"{"v": 1, "c": [{"c": []}]}"#, #"{"v": 1, "c": [{"v": "x"}]}"#]),
        SchemaCase(
            #"{"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": {"type": "string"}}]}"#,
            valid: ["[]", "[1, 2]", "[\"a\"]"], invalid: ["[1, \"a\"]", "[null]"]),
        SchemaCase(
            #"{"anyOf": [{"items": {"items": {"type": "integer"}}, "type": "array"}, {"items": {"items": {"type": "string"}, "maxItems": 1}, "type": "array"}]}"#,
            valid: ["[[1, 2], [3]]", "[[\"a\"], [\"b\"]]", "[[], [1, 2]]", "[[], [\"a\"]]"],
            invalid: ["[[1], [\"a\"]]", "[[\"a\", \"b\"]]"]),
        SchemaCase(
            ##"{"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"$ref": "#/definitions/i", "maximum": 3}}, "definitions": {"i": {"type": "integer"}}}"##,
            valid: [#"{"a": 9}"#], invalid: [#"{"a": "x"}"#]),
        SchemaCase(
            ##"{"$id": "http://x.y/root.json", "properties": {"a": {"$ref": "b.json#/$defs/c"}, "d": {"$ref": "#anchor"}}, "$defs": {"b": {"$id": "b.json", "$defs": {"c": {"type": "null"}}}, "e": {"$anchor": "anchor", "type": "boolean"}}}"##,
            valid: [#"{"a": null, "d": true}"#], invalid: [#"{"a": 1}"#, #"{"d": null}"#]),
        SchemaCase(
            #"{"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}], "anyOf": [{"properties": {"c": {"const": 1}}, "required": ["c"]}, {"properties": {"d": {}}, "required": ["d"]}], "unevaluatedProperties": false}"#,
            valid: [#"{"a": 1, "b": 1, "c": 1}"#, #"{"d": 1}"#, #"{"c": 1, "d": 1}"#],
            invalid: [#"{"c": 1, "e": 1}"#, #"{"a": 1}"#, #"{"c": 2, "d": 1}"#]),
        SchemaCase(
            #"{"prefixItems": [{"type": "string"}], "if": {"prefixItems": [true, {"const": 1}], "minItems": 2}, "unevaluatedItems": false}"#,
            valid: ["[]", "[\"a\"]", "[\"a\", 1]"], invalid: ["[\"a\", 2]", "[\"a\", 1, 1]"]),
    ]
}

@Suite struct SchemaTests {
    @Test(arguments: SchemaCase.values + SchemaCase.formats) func scalars(_ example: SchemaCase) throws {
        try check(example)
    }
    @Test(arguments: SchemaCase.arrays) func arrays(_ example: SchemaCase) throws { try check(example) }
    @Test(arguments: SchemaCase.objects) func objects(_ example: SchemaCase) throws { try check(example) }
    @Test(arguments: SchemaCase.combinations) func combinations(_ example: SchemaCase) throws { try check(example) }

    private func check(_ example: SchemaCase) throws {
        let compiled = try compiled(.jsonSchema(example.schema))
        for (texts, isValid) in [(example.valid, true), (example.invalid, false)] {
            for text in texts {
                var state = compiled.begin()
                let isAccepted = state.advance(text.utf8) && state.allowsEnd
                #expect(isAccepted == isValid, "\(text)")
            }
        }
    }

    /// A schema, and where and why it is refused.
    static let refused: [(String, String, String, ConstraintError.Reason)] = [
        (
            #"{"properties": {"a/b": {"items": {"pattern": "(a)\\1"}}}}"#, "/properties/a~1b/items", "pattern",
            ConstraintError.Reason.unsupported
        ),
        (#"{"properties": {"a": {"$ref": "http://example.com/x"}}}"#, "/properties/a", "$ref", .unsupported),
        (#"{"items": {"uniqueItems": true}}"#, "/items", "uniqueItems", .unsupported),
        (#"{"allOf": [{"type": "text"}]}"#, "/allOf/0", "type", .invalid),
        (##"{"$ref": "#"}"##, "", "$ref", .unsupported),
        (#"{"type": "string", "minLength": -1}"#, "", "minLength", .invalid),
        (
            ##"{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##, "/$defs/a",
            "$ref", .unsupported
        ),
        (#"{"anyOf": []}"#, "", "anyOf", .invalid), (#"{"minProperties": 3}"#, "", "minProperties", .unsupported),
        (#"{"type": "integer", "minimum": 3, "maximum": 2}"#, "", "", .unsatisfiable),
        (
            ##"{"properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]}"##, "/properties/a", "$ref",
            .unsupported
        ),
        (
            ##"{"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/a"}}, "required": ["b"]}}}"##,
            "", "", .unsatisfiable
        ),
        ("{", "", "", .invalid), ("3", "", "", .invalid), (#"{"type": "string", "type": "null"}"#, "", "", .invalid),
    ]

    @Test(arguments: refused)
    func refusals(_ schema: String, _ pointer: String, _ keyword: String, _ reason: ConstraintError.Reason) throws {
        let error = try #require(refusal(schema))
        #expect(error.reason == reason && error.pointer == pointer && error.keyword == keyword, "\(error)")
    }

    @Test func namesThatComeTwice() throws {
        let schema = #"{"type": "object", "dependentRequired": {"a": ["b", "b"]}}"#
        #expect(try accepts(schema, #"{"a":1,"b":2}"#) && !accepts(schema, #"{"a":1}"#))
    }

    /// Two forms of one letter are two names, also in schemas that differ in nothing else.
    @Test func branchesThatDifferInNormalization() throws {
        let (composed, decomposed) = ("\u{e9}", "e\u{301}")
        let branches = [composed, decomposed].map {
            #"{"properties": {"\#($0)": {"const": 1}}, "required": ["\#($0)"]}"#
        }
        let schema =
            #"{"type": "object", "anyOf": [\#(branches.joined(separator: ","))], "unevaluatedProperties": false}"#
        for name in [composed, decomposed] { #expect(try accepts(schema, #"{"\#(name)":1}"#)) }
        #expect(try !accepts(schema, #"{"f":1}"#))
    }

    @Test func whatCannotBeReachedMayBeUnsupported() throws {
        #expect(refusal(#"{"type": "integer", "$defs": {"unused": {"pattern": "(a)\\1"}}}"#) == nil)
    }

    /// Members that are required later need room: nothing that takes it away may begin.
    @Test func optionalMembersLeaveRoomForRequiredOnes() throws {
        let members =
            #"{"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "required": ["c"], "maxProperties": "#
        var state = try compiled(.jsonSchema(members + "1}")).begin()
        #expect(!advances(&state, #"{"a"#.utf8) && !advances(&state, #"{"b"#.utf8))
        #expect(state.forcedBytes(limit: 32) == Array(#"{"c":"#.utf8))
        state = try compiled(.jsonSchema(members + "2}")).begin()
        #expect(advances(&state, #"{"a": 1,"#.utf8) && !advances(&state, #" "b"#.utf8))
        #expect(advances(&state, #" "c": 2"#.utf8) && !advances(&state, ",".utf8) && advances(&state, "}".utf8))
        // The member that an opposite needs counts, too.
        let opposite = #"{"properties": {"a": {}}, "not": {"properties": {"b": {"type": "null"}}}, "maxProperties": 1}"#
        state = try compiled(.jsonSchema(opposite)).begin()
        #expect(!advances(&state, #"{"a"#.utf8) && advances(&state, #"{"b": 1}"#.utf8) && allowsEnd(&state))
    }

    @Test func membersStandInTheDeclaredOrder() throws {
        let schema = #"{"properties": {"z": {}, "a": {}}, "required": ["m", "a"]}"#
        #expect(try accepts(schema, #"{"z": 1, "a": 2, "m": 3, "other": 4, "another": 5}"#))
        for text in [#"{"a": 2, "z": 1, "m": 3}"#, #"{"z": 1, "m": 3, "a": 2}"#, #"{"other": 4, "a": 2, "m": 3}"#] {
            #expect(try !accepts(schema, text))
        }
    }
}
