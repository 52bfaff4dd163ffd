import SigmaBase
import SystemLibrary
import Testing

@testable import SigmaGrammar

/// Random constraints: none crashes or takes long, every answer sampled from masks is valid for an independent
/// validator, and no answer gets stuck.
///
/// `SIGMA_FUZZ_CONSTRAINTS` sets how many (1,000), `SIGMA_FUZZ_SEED` the first seed (1).
@Suite struct FuzzTests {
    private static func setting(_ name: String, _ value: Int) -> Int {
        getenv(name).flatMap { Int(String(cString: $0)) } ?? value
    }

    @Test func randomConstraints() throws {
        let first = Self.setting("SIGMA_FUZZ_SEED", 1)
        let count = Self.setting("SIGMA_FUZZ_CONSTRAINTS", 1_000)
        var compiledCount = 0
        var finished = 0
        for seed in first..<(first + count) {
            guard let ends = try answers(seed: seed) else { continue }
            compiledCount += 1
            finished += ends
        }
        // Most random schemas can be compiled, and most answers end by themselves.
        #expect(compiledCount * 2 > count)
        #expect(finished * 2 > compiledCount * 4)
    }

    /// An optional member that left no room for a required one; a reference that leads back to itself, which nothing
    /// hangs on.
    @Test(arguments: [10_334, 12_217, 42_330, 45_859, 46_628, 60_193]) func seedsThatFailed(seed: Int) throws {
        #expect(try answers(seed: seed, compileSeconds: unhurried.compileSeconds) != nil)
    }

    /// Alternatives of arrays that multiply: refused, or compiled, in bounded memory.
    @Test func arraysMultiply() throws {
        let items = (0..<12).map {
            "{\"prefixItems\":[{\"const\":\($0)},{\"type\":\"integer\"}],\"contains\":{\"const\":\(20 + $0)}}"
        }
        let nots = items.map { "{\"not\":\($0)}" }.joined(separator: ",")
        var limits = ConstraintLimits()
        limits.compileSeconds = 2
        let began = ContinuousClock.now
        _ = try? CompiledConstraint(.jsonSchema("{\"allOf\":[\(nots)]}"), vocabulary: testVocabulary, limits: limits)
        #expect(ContinuousClock.now - began < .seconds(20))
        _ = try answers(seed: 56_313)
    }

    @Test func validatorEndsAtCircularReferences() throws {
        func verdict(_ definition: String) throws -> Bool? {
            let schema = ##"{"$ref": "#/$defs/d", "$defs": {"d": \##(definition)}}"##
            return ReferenceValidator(root: try JSONValue.parse(schema, exactNumbers: true)).accepts(.null)
        }
        #expect(try verdict(##"{"$ref": "#/$defs/d"}"##) == nil)
        #expect(try verdict(##"{"not": {"$ref": "#/$defs/d"}}"##) == nil)
        #expect(try verdict(##"{"if": {"$ref": "#/$defs/d"}, "then": false}"##) == nil)
        #expect(try verdict(##"{"oneOf": [{"$ref": "#/$defs/d"}, true]}"##) == nil)
        #expect(try verdict(##"{"if": {"$ref": "#/$defs/d"}, "then": true}"##) == true)
        #expect(try verdict(##"{"anyOf": [{"$ref": "#/$defs/d"}, true]}"##) == true)
        #expect(try verdict(##"{"allOf": [{"$ref": "#/$defs/d"}, false]}"##) == false)
        #expect(try verdict(##"{"oneOf": [{"$ref": "#/$defs/d"}, true, true]}"##) == false)
    }

    /// How many of four random answers ended by themselves; nil if the constraint isn't taken.
    private func answers(seed: Int, compileSeconds: Double = 0.25) throws -> Int? {
        var source = RandomConstraints(random: SplitMix64(state: UInt64(seed)))
        let constraint = source.constraint()
        var limits = ConstraintLimits()
        limits.compileSeconds = compileSeconds
        let compiled = try? CompiledConstraint(constraint, vocabulary: testVocabulary, limits: limits)
        guard let compiled else { return nil }
        var finished = 0
        for _ in 0..<4 where try sample(compiled, constraint, &source, seed: seed) { finished += 1 }
        return finished
    }

    /// One answer of random tokens. True if it ended before its limit.
    private func sample(
        _ compiled: CompiledConstraint, _ constraint: Constraint, _ source: inout RandomConstraints, seed: Int
    ) throws -> Bool {
        var state = compiled.begin()
        for step in 0..<80 {
            if state.allowsEnd && source.below(3) == 0 || step > 40 && state.allowsEnd {
                check(state.text, constraint, seed: seed)
                return true
            }
            let mask = state.mask()
            var allowed: [Int] = []
            for id in testTokens.indices where mask.contains(token: id) { allowed.append(id) }
            if allowed.isEmpty {
                let isEnd = state.allowsEnd
                #expect(isEnd, "seed \(seed): stuck behind \(String(decoding: state.text, as: UTF8.self))")
                if isEnd { check(state.text, constraint, seed: seed) }
                return isEnd
            }
            // Closing tokens are preferred towards the end.
            let closing = allowed.filter { [0x22, 0x5D, 0x7D].contains(testTokens[$0]?.first) }
            let id = step > 30 && !closing.isEmpty ? source.pick(closing) : source.pick(allowed)
            #expect(advances(&state, testTokens[id] ?? []), "seed \(seed): token \(id)")
            // A token that the mask forbids is refused.
            let other = source.below(testTokens.count)
            var draft = state
            let next = state.mask()
            if let bytes = testTokens[other], !bytes.isEmpty {
                #expect(advances(&draft, bytes) == next.contains(token: other), "seed \(seed): token \(other)")
            }
        }
        return false
    }

    private func check(_ text: [UInt8], _ constraint: Constraint, seed: Int) {
        let answer = String(decoding: text, as: UTF8.self)
        switch constraint {
        case .choice(let texts): #expect(texts.contains { $0.utf8.elementsEqual(text) }, "seed \(seed): \(answer)")
        case .jsonSchema(let schema):
            guard let root = try? JSONValue.parse(schema, exactNumbers: true) else {
                Issue.record("seed \(seed): compiled, but not JSON")
                return
            }
            // Our parser refuses objects with a key twice; other readers take the last one.
            guard let value = try? JSONValue.parse(answer, exactNumbers: true) else {
                #expect(hasRepeatedKey(answer), "seed \(seed): not JSON: \(answer)")
                return
            }
            #expect(ReferenceValidator(root: root).accepts(value) == true, "seed \(seed): \(schema) accepts \(answer)")
        default: break
        }
    }

    private func hasRepeatedKey(_ text: String) -> Bool {
        do {
            _ = try JSONValue.parse(text, exactNumbers: true)
            return false
        } catch { return "\(error)".contains("appears twice") }
    }
}
