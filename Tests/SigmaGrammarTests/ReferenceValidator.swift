import SigmaBase

@testable import SigmaGrammar

/// A plain validator for the keywords that the fuzzer uses: it walks a finished value, and shares nothing with the
/// engine but the JSON parser.
struct ReferenceValidator {
    let root: JSONValue

    /// Nil where the answer hangs on a reference that leads back to itself within one value: the specification gives
    /// none.
    func accepts(_ value: JSONValue) -> Bool? { isValid(value, root) }

    /// `open` are the references that are being followed for this very value.
    private func isValid(_ value: JSONValue, _ schema: JSONValue, _ open: [String] = []) -> Bool? {
        guard case .object(let object) = schema else { return schema == .bool(true) }
        return all(zip(object.keys, object.values)) { keyword in
            holds(keyword.0, keyword.1, value, object, open)
        }
    }

    // What isn't known may be true or false, and decides nothing where the others do.
    private func all<List: Sequence>(_ list: List, _ verdict: (List.Element) -> Bool?) -> Bool? {
        var isKnown = true
        for element in list {
            guard let holds = verdict(element) else {
                isKnown = false
                continue
            }
            if !holds { return false }
        }
        return isKnown ? true : nil
    }

    private func any<List: Sequence>(_ list: List, _ verdict: (List.Element) -> Bool?) -> Bool? {
        all(list) { verdict($0).map { !$0 } }.map { !$0 }
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

    private func holds(
        _ keyword: String, _ argument: JSONValue, _ value: JSONValue, _ schema: JSONObject, _ open: [String]
    ) -> Bool? {
        let list = argument.array ?? []
        switch keyword {
        case "type": return argument.array == nil ? hasKind(value, argument) : list.contains { hasKind(value, $0) }
        case "enum": return list.contains { equal($0, value) }
        case "const": return equal(argument, value)
        case "allOf": return all(list) { isValid(value, $0, open) }
        case "anyOf": return any(list) { isValid(value, $0, open) }
        case "oneOf":
            let verdicts = list.map { isValid(value, $0, open) }
            let count = verdicts.count { $0 == true }
            return count > 1 ? false : verdicts.contains(nil) ? nil : count == 1
        case "not": return isValid(value, argument, open).map { !$0 }
        case "if":
            let then = isValid(value, schema["then"] ?? .bool(true), open)
            let otherwise = isValid(value, schema["else"] ?? .bool(true), open)
            guard let condition = isValid(value, argument, open) else { return then == otherwise ? then : nil }
            return condition ? then : otherwise
        case "$ref":
            let reference = argument.string!
            if open.contains(reference) { return nil }
            let target = root["$defs"]?[String(reference.dropFirst("#/$defs/".count))] ?? .bool(false)
            return isValid(value, target, open + [reference])
        case "minimum": return number(value).map { $0 >= number(argument)! } ?? true
        case "maximum": return number(value).map { $0 <= number(argument)! } ?? true
        case "multipleOf": return isMultiple(value, number(argument)!)
        case "minLength": return value.string.map { $0.unicodeScalars.count >= Int(argument.integer!) } ?? true
        case "maxLength": return value.string.map { $0.unicodeScalars.count <= Int(argument.integer!) } ?? true
        case "minItems": return value.array.map { $0.count >= Int(argument.integer!) } ?? true
        case "maxItems": return value.array.map { $0.count <= Int(argument.integer!) } ?? true
        case "prefixItems": return all(zip(value.array ?? [], list)) { isValid($0.0, $0.1) }
        case "items":
            let first = schema["prefixItems"]?.array?.count ?? 0
            return all((value.array ?? []).dropFirst(first)) { isValid($0, argument) }
        case "contains":
            guard let items = value.array else { return true }
            return any(items) { isValid($0, argument) }
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
        -> Bool?
    {
        guard let object = value.object else { return true }
        switch keyword {
        case "required": return argument.array!.allSatisfy { object[$0.string!] != nil }
        case "minProperties": return object.count >= Int(argument.integer!)
        case "maxProperties": return object.count <= Int(argument.integer!)
        case "properties":
            return all(zip(object.keys, object.values)) { isValid($0.1, argument.object![$0.0] ?? .bool(true)) }
        case "additionalProperties":
            return all(zip(object.keys, object.values)) { member in
                schema["properties"]?.object?[member.0] != nil ? true : isValid(member.1, argument)
            }
        case "dependentRequired":
            return zip(argument.object!.keys, argument.object!.values).allSatisfy { name, needed in
                object[name] == nil || needed.array!.allSatisfy { object[$0.string!] != nil }
            }
        default: return true
        }
    }
}
