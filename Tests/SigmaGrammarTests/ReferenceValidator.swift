import SigmaBase

@testable import SigmaGrammar

/// A plain validator for the keywords that the fuzzer uses: it walks a finished value, and shares nothing with the
/// engine but the JSON parser.
struct ReferenceValidator {
    let root: JSONValue

    func accepts(_ value: JSONValue) -> Bool { isValid(value, root) }

    private func isValid(_ value: JSONValue, _ schema: JSONValue) -> Bool {
        guard case .object(let object) = schema else { return schema == .bool(true) }
        return zip(object.keys, object.values).allSatisfy { keyword, argument in
            holds(keyword, argument, value, object)
        }
    }

    private func number(_ value: JSONValue) -> Double? {
        if case .decimal(let text) = value { return Double(text) }
        return value.double
    }

    private func equal(_ a: JSONValue, _ b: JSONValue) -> Bool {
        if let x = number(a), let y = number(b) { return x == y }
        if let x = a.array, let y = b.array { return x.count == y.count && zip(x, y).allSatisfy { equal($0, $1) } }
        if let x = a.object, let y = b.object {
            return x.count == y.count
                && zip(x.keys, x.values).allSatisfy { key, value in y[key].map { equal(value, $0) } ?? false }
        }
        return a == b
    }

    private func hasKind(_ value: JSONValue, _ kind: JSONValue) -> Bool {
        switch (kind.string, value) {
        case ("null", .null), ("boolean", .bool), ("string", .string), ("array", .array), ("object", .object): true
        case ("number", _): number(value) != nil
        case ("integer", .decimal(let text)) where !text.contains("e") && !text.contains("E"):
            // Digits that a double would round away count.
            !text.split(separator: ".").dropFirst().joined().contains { $0 != "0" }
        case ("integer", _): number(value).map { $0 == $0.rounded() } ?? false
        default: false
        }
    }

    private func holds(_ keyword: String, _ argument: JSONValue, _ value: JSONValue, _ schema: JSONObject) -> Bool {
        let list = argument.array ?? []
        switch keyword {
        case "type": return argument.array == nil ? hasKind(value, argument) : list.contains { hasKind(value, $0) }
        case "enum": return list.contains { equal($0, value) }
        case "const": return equal(argument, value)
        case "allOf": return list.allSatisfy { isValid(value, $0) }
        case "anyOf": return list.contains { isValid(value, $0) }
        case "oneOf": return list.count { isValid(value, $0) } == 1
        case "not": return !isValid(value, argument)
        case "if": return isValid(value, schema[isValid(value, argument) ? "then" : "else"] ?? .bool(true))
        case "$ref":
            return isValid(value, root["$defs"]?[String(argument.string!.dropFirst("#/$defs/".count))] ?? .bool(false))
        case "minimum": return number(value).map { $0 >= number(argument)! } ?? true
        case "maximum": return number(value).map { $0 <= number(argument)! } ?? true
        case "multipleOf": return isMultiple(value, number(argument)!)
        case "minLength": return value.string.map { $0.unicodeScalars.count >= Int(argument.integer!) } ?? true
        case "maxLength": return value.string.map { $0.unicodeScalars.count <= Int(argument.integer!) } ?? true
        case "minItems": return value.array.map { $0.count >= Int(argument.integer!) } ?? true
        case "maxItems": return value.array.map { $0.count <= Int(argument.integer!) } ?? true
        case "prefixItems": return value.array.map { zip($0, list).allSatisfy { isValid($0, $1) } } ?? true
        case "items":
            let first = schema["prefixItems"]?.array?.count ?? 0
            return value.array.map { $0.dropFirst(first).allSatisfy { isValid($0, argument) } } ?? true
        case "contains": return value.array.map { $0.contains { isValid($0, argument) } } ?? true
        default: return holdsForObject(keyword, argument, value, schema)
        }
    }

    /// Digit by digit for integers that no double holds.
    private func isMultiple(_ value: JSONValue, _ divisor: Double) -> Bool {
        guard let number = number(value) else { return true }
        let isWhole = divisor == divisor.rounded()
        if isWhole, case .integer(let exact) = value { return exact % Int64(divisor) == 0 }
        if isWhole, case .decimal(let text) = value, text.utf8.allSatisfy({ $0 == 0x2D || 0x30...0x39 ~= $0 }) {
            return text.utf8.filter { $0 != 0x2D }.reduce(0) { ($0 * 10 + Int($1) - 0x30) % Int(divisor) } == 0
        }
        return (number / divisor).rounded() * divisor == number
    }

    private func holdsForObject(_ keyword: String, _ argument: JSONValue, _ value: JSONValue, _ schema: JSONObject)
        -> Bool
    {
        guard let object = value.object else { return true }
        switch keyword {
        case "required": return argument.array!.allSatisfy { object[$0.string!] != nil }
        case "minProperties": return object.count >= Int(argument.integer!)
        case "maxProperties": return object.count <= Int(argument.integer!)
        case "properties":
            return zip(object.keys, object.values).allSatisfy { isValid($1, argument.object![$0] ?? .bool(true)) }
        case "additionalProperties":
            return zip(object.keys, object.values).allSatisfy { name, member in
                schema["properties"]?.object?[name] != nil || isValid(member, argument)
            }
        case "dependentRequired":
            return zip(argument.object!.keys, argument.object!.values).allSatisfy { name, needed in
                object[name] == nil || needed.array!.allSatisfy { object[$0.string!] != nil }
            }
        default: return true
        }
    }
}
