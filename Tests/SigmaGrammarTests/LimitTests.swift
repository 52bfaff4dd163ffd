import Testing

@testable import SigmaGrammar

@Suite struct LimitTests {
    @Test func hostileSchemasEndInTime() {
        var limits = ConstraintLimits()
        limits.compileSeconds = 0.5
        let deep = String(repeating: #"{"items":"#, count: 400) + "true" + String(repeating: "}", count: 400)
        let wide = (0..<12).map {
            #"{"oneOf": [{"required": ["a\#($0)"]}, {"required": ["b\#($0)"]}, {"properties": {"c\#($0)": {"type": "null"}}}]}"#
        }
        let overlapping = (0..<40).map {
            #"{"properties": {"p\#($0)": {"type": "integer"}, "q\#($0)": {"type": "null"}}}"#
        }
        let schemas: [String] = [
            deep, #"{"type": "object", "allOf": [\#(wide.joined(separator: ","))]}"#,
            #"{"oneOf": [\#(overlapping.joined(separator: ","))]}"#,
            #"{"type": "string", "pattern": "^(a|b)*a(a|b){18}$", "not": {"pattern": "^(a|b)*b(a|b){17}$"}}"#,
            #"{"type": "string", "pattern": "((((a{1,100}){1,100}){1,100}){1,100}){1,100}", "maxLength": 1000}"#,
            #"{"type": "number", "allOf": [{"multipleOf": 7.01}, {"multipleOf": 9.97}, {"multipleOf": 8.03}], "minimum": 1}"#,
        ]
        for schema in schemas {
            let began = ContinuousClock.now
            _ = refusal(.jsonSchema(schema), limits: limits)
            #expect(ContinuousClock.now - began < .seconds(5), "\(schema.prefix(80))")
        }
    }

    /// Numbers and expressions that no machine integer counts, and texts that end where more has to come: errors, whatever their form.
    @Test(arguments: [
        #"{"pattern": "(?<abc"}"#, #"{"pattern": "(?<"}"#, #"{"pattern": "("}"#, #"{"pattern": "["}"#,
        #"{"pattern": "\\"}"#,
        #"{"pattern": "a{1"}"#, #"{"pattern": "\\u{"}"#, #"{"pattern": "\\p{"}"#,
        #"{"patternProperties": {"(?<a": true}}"#,
        #"{"minimum": 1e-9223372036854775808}"#, #"{"const": 1e-9223372036854775808}"#,
        #"{"enum": [1e9223372036854775807]}"#, #"{"maximum": 1e-9223372036854775809}"#,
        #"{"type": "number", "multipleOf": 18014398509481983, "maximum": 1e1500}"#,
        #"{"type": "number", "multipleOf": 0.00000000000000000001, "maximum": 1e1999}"#,
        #"{"multipleOf": 18446744073709551615}"#, #"{"multipleOf": 1e1999}"#,
        #"{"minItems": 9223372036854775807, "contains": {"const": 1}}"#,
        #"{"contains": {"const": 1}, "minContains": 9223372036854775807, "type": "array"}"#,
        #"{"minLength": 9223372036854775807}"#, #"{"maxLength": 9223372036854775807}"#,
        #"{"minProperties": 9223372036854775807, "type": "object"}"#,
    ])
    func extremesAreErrorsOrCompile(_ schema: String) {
        let error = refusal(schema)
        #expect(error == nil || error!.reason != .unsatisfiable || schema.contains("min"), "\(error!)")
    }

    @Test func unclosedNamedGroups() {
        for expression in ["(?<abc", "(?<", "(?<a>", "(?<a>b", "x(?<y"] {
            #expect(refusal(.regex(expression))?.reason == .invalid, "\(expression)")
        }
        #expect(refusal(.regex("(?<a>b)")) == nil)
    }

    /// Each level refers twice to the next: the walk beside `unevaluatedProperties` looks at the clock.
    @Test func unevaluatedIsWalkedInTime() {
        let links = (0..<23).map {
            ##""d\##($0)": {"allOf": [{"$ref": "#/$defs/d\##($0 + 1)"}, {"$ref": "#/$defs/d\##($0 + 1)"}]}"##
        }
        let definitions = links.joined(separator: ",") + #","d23": {"properties": {"a": true}}"#
        let schema = ##"{"$ref": "#/$defs/d0", "unevaluatedProperties": false, "$defs": {\##(definitions)}}"##
        var limits = ConstraintLimits()
        limits.compileSeconds = 0.3
        let began = ContinuousClock.now
        #expect(refusal(.jsonSchema(schema), limits: limits)?.reason == .limit)
        #expect(ContinuousClock.now - began < .seconds(20))
    }

    /// What would take each mask seconds is refused, and not met in the middle of an answer.
    @Test func expressionsThatBeginInManyWays() {
        var limits = ConstraintLimits()
        limits.compileSeconds = 0.1
        let part = #"[\p{L}\p{N}]?\P{Lu}*"#
        let expression = "^" + String(repeating: part, count: 200) + "$"
        let began = ContinuousClock.now
        #expect(refusal(.regex(expression), limits: limits)?.reason == .limit)
        #expect(ContinuousClock.now - began < .seconds(20))
        // By the work, whatever the clock says.
        limits.compileSeconds = 1000
        func reason(_ count: Int) -> ConstraintError.Reason? {
            refusal(.regex("^" + String(repeating: part, count: count) + "$"), limits: limits)?.reason
        }
        #expect(reason(2) == nil && reason(40) == .limit)
    }

    /// Arrays that can be finished are not said to be impossible.
    @Test func manyCounts() {
        func reason(_ members: String) -> ConstraintError.Reason? {
            refusal(#"{"type": "array", \#(members)}"#)?.reason
        }
        #expect(reason(#""contains": {"const": 1}, "minItems": 9000"#) == nil)
        #expect(reason(#""contains": {"const": 1}, "minItems": 10001"#) == .limit)
        #expect(reason(#""contains": {"const": 1}, "minItems": 3, "maxItems": 2"#) == .unsatisfiable)
    }

    /// Definitions that require one another: no recursion goes as deep as the chain.
    @Test func longChainsOfReferencesEnd() {
        let links = (0..<20_000).map {
            ##""d\##($0)": {"type": "object", "properties": {"n": {"$ref": "#/$defs/d\##($0 + 1)"}}, "required": ["n"]}"##
        }
        let definitions = links.joined(separator: ",") + #","d20000": false"#
        let schema = ##"{"allOf": [{"$ref": "#/$defs/d0"}, {"type": "object"}], "$defs": {\##(definitions)}}"##
        var limits = ConstraintLimits()
        limits.compileSeconds = 10
        // Nothing satisfies it; a slow machine may not get so far.
        let reason = refusal(.jsonSchema(schema), limits: limits)?.reason
        #expect(reason == .unsatisfiable || reason == .limit)
    }

    /// There are 2^60 ways to the last definition, and 60 definitions.
    @Test func referencesThatMeetAgainAreNotWalkedByPath() throws {
        let links = (0..<60).map {
            let next = ##"{"$ref": "#/$defs/d\##($0 + 1)"}"##
            let members = ##""properties": {"a": \##(next), "b": \##(next)}, "required": ["a", "b"]"##
            return ##""d\##($0)": {"type": "object", \##(members)}"##
        }
        let definitions = links.joined(separator: ",") + #","d60": {"type": "null"}"#
        let schema = ##"{"allOf": [{"$ref": "#/$defs/d0"}, {"type": "object"}], "$defs": {\##(definitions)}}"##
        var limits = ConstraintLimits()
        limits.compileSeconds = 10
        var state = try compiled(.jsonSchema(schema), limits: limits).begin()
        #expect(advances(&state, #"{"a": {"a": {"a": "#.utf8))
        #expect(!advances(&state, "null".utf8))
    }

    /// A text of optional parts is read, or refused, without a call for each part.
    @Test(arguments: [100, 2_000, 9_999]) func longExpressionsDoNotNestAsDeep(length: Int) throws {
        var limits = ConstraintLimits()
        limits.compileSeconds = 5
        let optional = String(repeating: "a?", count: length)
        let constraint = try? compiled(.regex(optional), limits: limits)
        #expect(constraint != nil || length > 2_000)
        if let constraint {
            var state = constraint.begin()
            #expect(advances(&state, "aaa".utf8) && allowsEnd(&state))
        }
    }

    @Test func tooLargeIsRefused() throws {
        var limits = ConstraintLimits()
        limits.textBytes = 100
        #expect(refusal(.choice([String(repeating: "x", count: 101)]), limits: limits)?.reason == .limit)
        #expect(
            refusal(.jsonSchema(#"{"title": "\#(String(repeating: "x", count: 101))"}"#), limits: limits)?.reason
                == .limit)
        limits = ConstraintLimits()
        limits.alternatives = 3
        let schema =
            #"{"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}, {"required": ["c"]}, {"required": ["d"]}]}"#
        #expect(refusal(.jsonSchema(schema), limits: limits)?.reason == .limit)
        limits = ConstraintLimits()
        limits.compileSeconds = 0
        let members = (0..<200).map { #""p\#($0)": {"type": "integer", "minimum": \#($0)}"# }.joined(separator: ",")
        #expect(refusal(.jsonSchema(#"{"properties": {\#(members)}}"#), limits: limits)?.reason == .limit)
    }

    /// An automaton with a state for every text: masks stay bounded, and some token is always left.
    @Test func manyStatesStayBounded() throws {
        var limits = ConstraintLimits()
        limits.states = 200
        limits.statesPerMask = 50
        let constraint = try compiled(.regex("(?:.|\n)*a(?:.|\n){40}"), limits: limits)
        var state = constraint.begin()
        var seen = 0
        for byte in String(repeating: "abca", count: 40).utf8 {
            let mask = state.mask()
            #expect(mask.contains(token: Int(byte)))
            #expect(advances(&state, CollectionOfOne(byte)))
            seen = max(seen, constraint.statistics.states)
        }
        #expect(seen < 3_000)
    }

    @Test func cacheKeepsWhatWasUsedLast() throws {
        let cache = ConstraintCache(vocabulary: testVocabulary, countLimit: 2)
        let first = try cache.compiled(.regex("a"))
        _ = try cache.compiled(.regex("b"))
        #expect(try cache.compiled(.regex("a")) === first)
        _ = try cache.compiled(.regex("c"))
        #expect(cache.count == 2)
        #expect(try cache.compiled(.regex("a")) === first)
        #expect(throws: ConstraintError.self) { try cache.compiled(.regex("(")) }
        #expect(cache.count == 2)
    }

    @Test func oneConstraintServesManyThreads() async throws {
        let constraint = try compiled(.jsonSchema(MaskTests.person))
        let text = #"{"name": "hello", "age": 12, "tags": ["red", "green"], "x": "abc"}"#
        let results = await withTaskGroup(of: [[UInt64]].self) { group in
            for _ in 0..<8 {
                group.addTask {
                    var state = constraint.begin()
                    return text.utf8.map { byte in
                        let mask = state.mask()
                        return state.advance(CollectionOfOne(byte)) ? mask : []
                    }
                }
            }
            return await group.reduce(into: [[[UInt64]]]()) { $0.append($1) }
        }
        #expect(results.count == 8 && results.allSatisfy { $0 == results[0] && !$0.contains([]) })
    }
}
