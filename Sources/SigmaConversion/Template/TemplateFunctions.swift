/// Operators, filters, tests and methods of chat templates.
enum TemplateFunctions {
    /// Numbers are smaller, so that no two of them overflow.
    private static let numberLimit: UInt = 1 << 31

    static func items(of value: TemplateValue) throws -> [TemplateValue] {
        switch value {
        case .list(let values): values
        case .map(let members): members.map { .string($0.key) }
        case .string(let text): text.unicodeScalars.map { .string(String($0)) }
        case .undefined, .none: []
        default: throw TemplateError("a loop over something that is no list")
        }
    }

    static func item(_ base: TemplateValue, _ index: TemplateValue) -> TemplateValue {
        switch (base, index) {
        case (.list(let values), .integer(let place)):
            let place = place < 0 ? values.count + place : place
            return values.indices.contains(place) ? values[place] : .undefined
        case (.string(let text), .integer(let place)):
            let scalars = Array(text.unicodeScalars)
            let place = place < 0 ? scalars.count + place : place
            return scalars.indices.contains(place) ? .string(String(scalars[place])) : .undefined
        case (_, .string(let name)): return base.member(name)
        default: return .undefined
        }
    }

    static func slice(_ base: TemplateValue, from: Int?, to: Int?, by step: Int) throws -> TemplateValue {
        guard step != 0, step != .min else { throw TemplateError("a slice by \(step)") }
        func places(_ count: Int) -> [Int] {
            func clamped(_ bound: Int) -> Int {
                let place = bound < 0 ? bound + count : bound
                return step > 0 ? min(max(place, 0), count) : min(max(place, -1), count - 1)
            }
            let first = from.map(clamped) ?? (step > 0 ? 0 : count - 1)
            let end = to.map(clamped) ?? (step > 0 ? count : -1)
            return Array(stride(from: first, to: end, by: step))
        }
        switch base {
        case .list(let values): return .list(places(values.count).map { values[$0] })
        case .string(let text):
            let scalars = Array(text.unicodeScalars)
            var result = String.UnicodeScalarView()
            for place in places(scalars.count) { result.append(scalars[place]) }
            return .string(String(result))
        default: throw TemplateError("a slice of something that is no list")
        }
    }

    static func range(_ values: [TemplateValue]) throws -> TemplateValue {
        let numbers = try values.map { value in
            guard case .integer(let number) = value, number.magnitude < 10_000 else {
                throw TemplateError("a range of no numbers")
            }
            return number
        }
        switch numbers.count {
        case 1: return .list((0..<max(0, numbers[0])).map { .integer($0) })
        case 2, 3:
            let step = numbers.count == 3 ? numbers[2] : 1
            guard step != 0 else { throw TemplateError("a range by 0") }
            return .list(stride(from: numbers[0], to: numbers[1], by: step).map { .integer($0) })
        default: throw TemplateError("a range of no numbers")
        }
    }

    static func combine(_ symbol: String, _ left: TemplateValue, _ right: TemplateValue) throws -> TemplateValue {
        switch (symbol, left, right) {
        case ("==", _, _): return .bool(left.isEqual(to: right))
        case ("!=", _, _): return .bool(!left.isEqual(to: right))
        case ("in", _, _): return .bool(right.contains(left))
        case ("~", _, _): return .string(left.text + right.text)
        case ("+", .string(let a), .string(let b)): return .string(a + b)
        case ("+", .list(let a), .list(let b)): return .list(a + b)
        case (_, .integer(let a), .integer(let b)):
            guard max(a.magnitude, b.magnitude) < numberLimit else { throw TemplateError("a number too large") }
            switch symbol {
            case "+": return .integer(a + b)
            case "-": return .integer(a - b)
            case "*": return .integer(a * b)
            case "//" where b != 0: return .integer((a - (a % b + b) % b) / b)
            case "%" where b != 0: return .integer((a % b + b) % b)
            case "<": return .bool(a < b)
            case ">": return .bool(a > b)
            case "<=": return .bool(a <= b)
            case ">=": return .bool(a >= b)
            default: break
            }
        case ("<", .string(let a), .string(let b)): return .bool(a < b)
        case (">", .string(let a), .string(let b)): return .bool(a > b)
        default: break
        }
        throw TemplateError("'\(symbol)' between values of other kinds")
    }

    static func filter(
        _ name: String, _ value: TemplateValue, _ arguments: [TemplateValue], _ named: [String: TemplateValue]
    ) throws -> TemplateValue {
        switch (name, value) {
        case ("length", _), ("count", _):
            if case .string(let text) = value { return .integer(text.unicodeScalars.count) }
            return .integer(try items(of: value).count)
        case ("trim", _): return .string(strip(value.text, arguments.first, left: true, right: true))
        case ("upper", _), ("lower", _), ("capitalize", _), ("title", _):
            return try method(name, of: .string(value.text), [])
        case ("string", _): return .string(value.text)
        case ("tojson", _):
            guard case .integer(let indent)? = named["indent"] ?? arguments.first else { return .string(value.json) }
            guard (0...16).contains(indent) else { throw TemplateError("an indent by \(indent)") }
            return .string(value.json(indent: indent))
        case ("safe", _), ("escape", _), ("e", _): return value
        case ("list", _): return .list(try items(of: value))
        case ("items", .map): return try method("items", of: value, [])
        case ("first", _): return try items(of: value).first ?? .undefined
        case ("last", _): return try items(of: value).last ?? .undefined
        case ("reverse", _): return try slice(value, from: nil, to: nil, by: -1)
        case ("join", _):
            return .string(try joined(items(of: value).map(\.text), arguments.first?.text ?? ""))
        case ("default", _), ("d", _):
            let takesFalse = arguments.count > 1 && arguments[1].isTrue || named["boolean"]?.isTrue == true
            if case .undefined = value { return arguments.first ?? .string("") }
            return takesFalse && !value.isTrue ? arguments.first ?? .string("") : value
        case ("int", .integer): return value
        case ("int", .string(let text)):
            let number = Int(text) ?? 0
            guard number.magnitude < numberLimit else { throw TemplateError("a number too large") }
            return .integer(number)
        case ("replace", .string): return try method("replace", of: value, arguments)
        case ("map", _):
            guard let attribute = named["attribute"]?.text else { throw TemplateError("the filter 'map' by a name") }
            return .list(try items(of: value).map { $0.member(attribute) })
        case ("selectattr", _), ("rejectattr", _):
            guard let attribute = arguments.first?.text else { throw TemplateError("'\(name)' without an attribute") }
            return .list(
                try items(of: value).filter { item in
                    let member = item.member(attribute)
                    let holds =
                        try arguments.count > 1
                        ? test(arguments[1].text, member, Array(arguments.dropFirst(2))) : member.isTrue
                    return holds == (name == "selectattr")
                })
        default: throw TemplateError("the filter '\(name)' is not known")
        }
    }

    static func test(_ name: String, _ value: TemplateValue, _ arguments: [TemplateValue]) throws -> Bool {
        switch (name, value) {
        case ("defined", .undefined): false
        case ("defined", _): true
        case ("undefined", .undefined): true
        case ("undefined", _): false
        case ("none", .none), ("string", .string), ("mapping", .map), ("integer", .integer), ("number", .integer),
            ("boolean", .bool), ("iterable", .list), ("iterable", .map), ("iterable", .string), ("sequence", .list),
            ("sequence", .map), ("sequence", .string), ("callable", .macro), ("callable", .function):
            true
        case ("true", .bool(let flag)): flag
        case ("false", .bool(let flag)): !flag
        case ("odd", .integer(let number)): number % 2 != 0
        case ("even", .integer(let number)): number % 2 == 0
        case ("equalto", _), ("eq", _), ("sameas", _): arguments.first.map { value.isEqual(to: $0) } ?? false
        case ("in", _): arguments.first?.contains(value) ?? false
        case ("divisibleby", .integer(let number)):
            if case .integer(let divisor)? = arguments.first, divisor != 0 {
                number.isMultiple(of: divisor)
            } else {
                false
            }
        case ("none", _), ("string", _), ("mapping", _), ("integer", _), ("number", _), ("boolean", _), ("iterable", _),
            ("sequence", _), ("callable", _), ("true", _), ("false", _), ("odd", _), ("even", _), ("float", _):
            false
        default: throw TemplateError("the test '\(name)' is not known")
        }
    }

    static func method(_ name: String, of value: TemplateValue, _ arguments: [TemplateValue]) throws -> TemplateValue {
        let first = arguments.first?.text ?? ""
        switch (name, value) {
        case ("strip", .string(let text)):
            return .string(strip(text, arguments.first, left: true, right: true))
        case ("lstrip", .string(let text)):
            return .string(strip(text, arguments.first, left: true, right: false))
        case ("rstrip", .string(let text)):
            return .string(strip(text, arguments.first, left: false, right: true))
        case ("startswith", .string(let text)): return .bool(text.utf8.starts(with: first.utf8))
        case ("endswith", .string(let text)): return .bool(text.utf8.reversed().starts(with: first.utf8.reversed()))
        case ("upper", .string(let text)): return .string(text.uppercased())
        case ("lower", .string(let text)): return .string(text.lowercased())
        case ("capitalize", .string(let text)):
            return .string(text.prefix(1).uppercased() + text.dropFirst().lowercased())
        case ("title", .string(let text)):
            return .string(
                text.parts(separatedBy: " ").map { $0.prefix(1).uppercased() + $0.dropFirst().lowercased() }.joined(
                    separator: " "))
        case ("split", .string(let text)):
            if arguments.isEmpty {
                return .list(
                    text.unicodeScalars.split { $0.properties.isWhitespace }.map { .string(String($0)) })
            }
            guard !first.isEmpty else { throw TemplateError("a split by nothing") }
            var limit = Int.max
            if arguments.count > 1, case .integer(let count) = arguments[1], count >= 0 { limit = count }
            return .list(text.parts(separatedBy: first, limit: limit).map { .string($0) })
        case ("replace", .string(let text)) where arguments.count >= 2:
            guard !first.isEmpty else { throw TemplateError("a replacement of nothing") }
            return .string(try joined(text.parts(separatedBy: first), arguments[1].text))
        case ("join", .string(let text)):
            return .string(try joined(items(of: arguments.first ?? .undefined).map(\.text), text))
        case ("get", .map):
            if case .undefined = value.member(first) { return arguments.count > 1 ? arguments[1] : .none }
            return value.member(first)
        case ("items", .map(let members)):
            return .list(members.map { .list([.string($0.key), $0.value]) })
        case ("keys", .map(let members)): return .list(members.map { .string($0.key) })
        case ("values", .map(let members)): return .list(members.map(\.value))
        case (_, .undefined): throw TemplateError("the method '\(name)' of something undefined")
        default: throw TemplateError("the method '\(name)' is not known")
        }
    }

    /// Looks at the size first: the parts may be one long text many times.
    private static func joined(_ parts: [String], _ separator: String) throws -> String {
        var size = parts.count * separator.utf8.count
        for part in parts { size += part.utf8.count }
        guard size <= 1 << 22 else { throw TemplateError("a text that is too long") }
        return parts.joined(separator: separator)
    }

    private static func strip(_ text: String, _ characters: TemplateValue?, left: Bool, right: Bool) -> String {
        var set: [Unicode.Scalar]?
        if case .string(let given)? = characters { set = Array(given.unicodeScalars) }
        func goes(_ scalar: Unicode.Scalar) -> Bool { set?.contains(scalar) ?? scalar.properties.isWhitespace }
        var scalars = text.unicodeScalars[...]
        if left { scalars = scalars.drop(while: goes) }
        if right { while let last = scalars.last, goes(last) { scalars.removeLast() } }
        return String(scalars)
    }
}
