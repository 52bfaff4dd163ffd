import SigmaBase

@testable import SigmaGrammar

/// A vocabulary with every byte and some hundred tokens of the kinds that a real one has.
let testTokens: [[UInt8]?] = {
    var texts: [String] = [
        "{\"", "\":", "\": ", "\": \"", "\",", "\", \"", "\"}", "\"}]", "}}", "]}", "},", "}, {\"", "[{\"", "\n",
        "\n  ",
        "\n    ", "  ", "    ", ", ", ": ", "true", "false", "null", "tru", "name", "age", "id", "kind", "value",
        " value",
        "items", " the", " a", "hello", "world", "Hello", "é", "ü", "漢", "字", "😀", " ü", "\\n", "\\\"", "\\\\", "\\u",
        "\\u00",
        "12", "123", "2024", "00", ".5", ".0", "-1", "e+", "1e", "10", "99", "-", "--", "abc", "ABC", "a-b", "a_b",
        "foo", "bar",
        "foobar", "http://", "https://", ".com", "@", "user@", "[]", "{}", "[\"", "\"]", "[1", "1,", "1]", " {", " [",
        " \"",
        "0123456789abcdefghij", "the quick brown fox jumps over", " \n", "a\n", "x\"", "y\\", "\t", "\r\n", "'", "//",
    ]
    texts += [
        "city", "na", "me\":", "\"name\"", "{\"name\": \"", "Berlin", "Paris", "red", "green", "blue", "re", "gr",
        "\"id\":",
    ]
    var tokens = (UInt8.min...UInt8.max).map { [$0] as [UInt8]? }
    tokens += texts.map { Array($0.utf8) }
    // Parts of characters, a gap, an empty token, and one token twice.
    tokens += [[0xC3], [0xE6, 0xBC], [0xF0, 0x9F, 0x98], [0xA9, 0x61], nil, [], Array("foo".utf8)]
    return tokens
}()

let testVocabulary = Vocabulary(tokens: testTokens)

/// The usual limits of the work, and time enough for a slow machine.
let unhurried: ConstraintLimits = {
    var limits = ConstraintLimits()
    limits.compileSeconds = 5
    return limits
}()

func compiled(_ constraint: Constraint, limits: ConstraintLimits = unhurried) throws -> CompiledConstraint {
    try CompiledConstraint(constraint, vocabulary: testVocabulary, limits: limits)
}

/// `ConstraintState`'s calls as functions: an expectation changes nothing but what it is given by reference.
func advances(_ state: inout ConstraintState, _ bytes: some Sequence<UInt8>) -> Bool { state.advance(bytes) }
func allowsEnd(_ state: inout ConstraintState) -> Bool { state.allowsEnd }

/// Whether the constraint takes the whole text.
func accepts(_ constraint: Constraint, _ text: String) throws -> Bool {
    var state = try compiled(constraint).begin()
    return state.advance(text.utf8) && state.allowsEnd
}

func accepts(_ schema: String, _ text: String) throws -> Bool { try accepts(.jsonSchema(schema), text) }

/// Why the constraint isn't taken; nil if it is.
func refusal(_ constraint: Constraint, limits: ConstraintLimits = unhurried) -> ConstraintError? {
    do {
        _ = try CompiledConstraint(constraint, vocabulary: testVocabulary, limits: limits)
        return nil
    } catch { return error }
}

func refusal(_ schema: String) -> ConstraintError? { refusal(.jsonSchema(schema)) }

extension [UInt64] {
    func contains(token: Int) -> Bool { self[token >> 6] >> UInt64(token & 63) & 1 == 1 }
}
