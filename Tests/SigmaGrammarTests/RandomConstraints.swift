import SigmaBase

@testable import SigmaGrammar

/// Random schemas, expressions and choices, sane and hostile.
struct RandomConstraints {
    var random: SplitMix64
    private static let characters: [Character] = Array("ab1 \"\\é漢😀{}\n")
    static let names: [String] = ["a", "b", "name", "age", "é\"", "foo"]

    mutating func pick<Element>(_ list: [Element]) -> Element { list[below(list.count)] }
    mutating func below(_ limit: Int) -> Int { Int(random.next() % UInt64(limit)) }

    mutating func constraint() -> Constraint {
        switch below(10) {
        case 0: .regex(expression(depth: 3))
        case 1: .choice(texts())
        case 2: .jsonSchema(damaged(schema(depth: 3)))
        default: .jsonSchema(schema(depth: 3))
        }
    }

    private mutating func texts() -> [String] {
        var result: [String] = []
        for _ in 0..<below(5) { result.append(text(length: below(6))) }
        return result
    }

    mutating func text(length: Int) -> String {
        var result = ""
        for _ in 0..<length { result.append(pick(Self.characters)) }
        return result
    }

    private mutating func quoted(_ text: String) -> String {
        var result = ""
        JSONWriter.escape(text, into: &result)
        return result
    }

    private mutating func damaged(_ text: String) -> String {
        var bytes = Array(text.utf8)
        for _ in 0...below(3) where !bytes.isEmpty {
            bytes[below(bytes.count)] = UInt8(truncatingIfNeeded: random.next())
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    mutating func expression(depth: Int) -> String {
        if depth == 0 {
            return pick([
                "a", "b", ".", "\\d", "[a-c]", "[^a]", "é", "\\w", "\\\"", "x", "^", "$", "\\s", "(", "[", "\\1",
            ])
        }
        let inner = expression(depth: depth - 1)
        switch below(7) {
        case 0: return inner + "*"
        case 1: return "(?:\(inner)){\(below(3)),\(below(5) + 2)}"
        case 2: return "(\(inner)|\(expression(depth: depth - 1)))"
        case 3: return pick(["(?=", "(?!"]) + inner + ")"
        case 4: return inner + "?"
        default: return inner + expression(depth: depth - 1)
        }
    }

    mutating func schema(depth: Int) -> String {
        var members: [String] = []
        if below(12) == 0 { return pick(["true", "false", "{}"]) }
        for _ in 0...below(3) { members.append(keyword(depth: depth)) }
        if depth == 3 && below(3) == 0 {
            members.append(#""$defs": {"d": \#(schema(depth: 2))}"#)
        }
        var seen: Set<String> = []
        members = members.filter { seen.insert(String($0.prefix { $0 != ":" })).inserted }
        return "{" + members.joined(separator: ", ") + "}"
    }

    private mutating func value(depth: Int) -> String {
        var parts: [String] = []
        switch below(depth > 0 ? 8 : 6) {
        case 0: return "null"
        case 1: return pick(["true", "false"])
        case 2: return "\(below(12) - 4)"
        case 3: return pick(["0.5", "-1.25", "3.0", "1e1"])
        case 4, 5: return quoted(text(length: below(4)))
        case 6:
            for _ in 0..<below(3) { parts.append(value(depth: depth - 1)) }
            return "[\(parts.joined(separator: ", "))]"
        default:
            for name in Self.names.prefix(below(3)) { parts.append("\(quoted(name)): \(value(depth: depth - 1))") }
            return "{\(parts.joined(separator: ", "))}"
        }
    }

    private mutating func list(_ depth: Int, atLeast: Int = 1) -> String {
        var parts: [String] = []
        for _ in 0..<(atLeast + below(2)) { parts.append(schema(depth: depth - 1)) }
        return "[\(parts.joined(separator: ", "))]"
    }

    private mutating func someNames() -> String {
        var list: [String] = []
        for name in Self.names where below(3) == 0 { list.append(quoted(name)) }
        return "[" + list.joined(separator: ", ") + "]"
    }

    private mutating func keyword(depth: Int) -> String {
        if depth == 0 { return scalarKeyword() }
        switch below(20) {
        case 0: return "\"items\": \(schema(depth: depth - 1))"
        case 1: return "\"prefixItems\": \(list(depth))"
        case 2: return "\"contains\": \(schema(depth: depth - 1))"
        case 3, 4, 5:
            var members: [String] = []
            for name in Self.names where below(2) == 0 {
                members.append("\(quoted(name)): \(schema(depth: depth - 1))")
            }
            return "\"properties\": {\(members.joined(separator: ", "))}"
        case 6: return "\"additionalProperties\": \(schema(depth: depth - 1))"
        case 7: return "\"allOf\": \(list(depth))"
        case 8: return "\"anyOf\": \(list(depth))"
        case 9: return "\"oneOf\": \(list(depth))"
        case 10: return "\"not\": \(schema(depth: depth - 1))"
        case 11: return "\"if\": \(schema(depth: depth - 1)), \"then\": \(schema(depth: depth - 1))"
        case 12: return "\"$ref\": \"#/$defs/d\""
        default: return scalarKeyword()
        }
    }

    private mutating func scalarKeyword() -> String {
        let kinds = ["\"null\"", "\"boolean\"", "\"number\"", "\"integer\"", "\"string\"", "\"array\"", "\"object\""]
        switch below(14) {
        case 0, 1, 2: return "\"type\": \(pick(kinds))"
        case 3: return "\"type\": [\(pick(kinds)), \"string\"]"
        case 4: return "\"enum\": [\(value(depth: 2)), \(value(depth: 2)), \(value(depth: 2))]"
        case 5: return "\"const\": \(value(depth: 2))"
        case 6: return "\"minimum\": \(below(9) - 4)"
        case 7: return "\"maximum\": \(pick(["3", "7.5", "-0.5"]))"
        case 8: return "\"multipleOf\": \(pick(["2", "0.5", "3"]))"
        case 9: return "\"\(pick(["minLength", "maxLength"]))\": \(below(4))"
        case 10: return "\"\(pick(["minItems", "maxItems"]))\": \(below(3))"
        case 11: return "\"required\": \(someNames())"
        case 12: return "\"\(pick(["minProperties", "maxProperties"]))\": \(below(3))"
        default: return "\"dependentRequired\": {\"a\": \(someNames())}"
        }
    }
}
