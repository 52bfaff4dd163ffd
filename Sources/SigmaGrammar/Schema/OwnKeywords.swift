import SigmaBase

/// Reads the keywords that speak of a value by themselves: kinds, listed values, bounds, patterns, members and items.
struct OwnKeywords {
    static let all: Set<String> = [
        "type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
        "divisibleBy", "minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType", "items",
        "prefixItems", "additionalItems", "minItems",
        "maxItems", "contains", "minContains", "maxContains", "uniqueItems", "properties", "patternProperties",
        "additionalProperties", "propertyNames", "required", "minProperties", "maxProperties",
    ]

    let algebra: ValueAlgebra
    let id: SchemaID
    let object: JSONObject
    let draft: SchemaDraft

    init(algebra: ValueAlgebra, id: SchemaID) {
        self.algebra = algebra
        self.id = id
        object = algebra.document[id].value.object ?? JSONObject()
        draft = algebra.document[id].draft
    }

    func failure(_ reason: ConstraintError.Reason, _ keyword: String, _ message: String) -> ConstraintError {
        ConstraintError(reason, pointer: algebra.document[id].pointer, keyword: keyword, message)
    }

    func shape() throws(ConstraintError) -> ValueShape {
        let kinds = try self.kinds()
        var shape = ValueShape()
        shape.null = kinds.contains("null")
        shape.isTrue = kinds.contains("boolean")
        shape.isFalse = kinds.contains("boolean")
        if kinds.contains("number") || kinds.contains("integer") {
            shape.number = try numbers(integersOnly: !kinds.contains("number"))
        }
        if kinds.contains("string") { (shape.text, shape.strings) = try strings() }
        if kinds.contains("array") { shape.arrays = [try ArrayKeywords(own: self).shape()] }
        if kinds.contains("object") { shape.objects = try ObjectKeywords(own: self).shapes() }
        for keyword in ["enum", "const"] {
            guard let value = object[keyword] else { continue }
            var values = [value]
            if keyword == "enum" {
                guard let list = value.array else { throw failure(.invalid, keyword, "a list of values expected") }
                values = list
            }
            shape = try algebra.intersection(listed(values, keyword), shape)
        }
        return shape
    }

    private static let kindNames: Set<String> = ["null", "boolean", "number", "integer", "string", "array", "object"]

    private func kinds() throws(ConstraintError) -> Set<String> {
        guard let type = object["type"] else { return Self.kindNames }
        var names: Set<String> = []
        for value in type.array ?? [type] {
            guard let name = value.string, Self.kindNames.contains(name) || name == "any" else {
                throw failure(.invalid, "type", "unknown type \(value.kind)")
            }
            if name == "any" {
                guard draft != .modern else { throw failure(.invalid, "type", "unknown type \"any\"") }
                return Self.kindNames
            }
            names.insert(name)
        }
        return names
    }

    // MARK: Numbers and strings

    func decimal(_ keyword: String) throws(ConstraintError) -> DecimalNumber? {
        guard let value = object[keyword] else { return nil }
        switch value {
        case .integer(let number): return DecimalNumber(String(number))
        case .decimal(let text):
            guard let number = DecimalNumber(text) else { throw failure(.unsupported, keyword, "too many digits") }
            return number
        default: throw failure(.invalid, keyword, "a number expected, found \(value.kind)")
        }
    }

    /// A count; very large ones are as good as unbounded.
    func count(_ keyword: String) throws(ConstraintError) -> Int? {
        guard let number = try decimal(keyword) else { return nil }
        guard number.isInteger && !number.isNegative else {
            throw failure(.invalid, keyword, "a count expected")
        }
        return min(Int(number.scaledValue ?? 1 << 54), 1 << 30)
    }

    private func numbers(integersOnly: Bool) throws(ConstraintError) -> NumberLanguage {
        var bounds = NumberLanguage.Bounds()
        if let minimum = try decimal("minimum") {
            bounds.minimum = (minimum, object["exclusiveMinimum"] == .bool(true))
        }
        if let maximum = try decimal("maximum") {
            bounds.maximum = (maximum, object["exclusiveMaximum"] == .bool(true))
        }
        var result = integersOnly ? algebra.integers : algebra.everyNumber
        func restrict(_ language: NumberLanguage) { result = algebra.arena.and(result, language) }
        if bounds.minimum != nil || bounds.maximum != nil { restrict(algebra.arena.numbers(within: bounds)) }
        if object["exclusiveMinimum"]?.bool == nil, let value = try decimal("exclusiveMinimum") {
            var bound = NumberLanguage.Bounds()
            bound.minimum = (value, true)
            restrict(algebra.arena.numbers(within: bound))
        }
        if object["exclusiveMaximum"]?.bool == nil, let value = try decimal("exclusiveMaximum") {
            var bound = NumberLanguage.Bounds()
            bound.maximum = (value, true)
            restrict(algebra.arena.numbers(within: bound))
        }
        for keyword in ["multipleOf", "divisibleBy"] {
            guard let divisor = try decimal(keyword) else { continue }
            guard !divisor.isZero && !divisor.isNegative else {
                throw failure(.invalid, keyword, "a positive number expected")
            }
            let digits = max(
                bounds.minimum?.value.integerDigits.count ?? 1, bounds.maximum?.value.integerDigits.count ?? 1)
            guard let modulus = divisor.scaledValue,
                modulus <= 10_000 / UInt64(digits + divisor.fractionDigits.count)
            else { throw failure(.unsupported, keyword, "too many remainders to keep apart") }
            restrict(algebra.arena.multiples(modulus: modulus, scale: divisor.fractionDigits.count))
        }
        return result
    }

    private func strings() throws(ConstraintError) -> (written: RegexID, all: RegexID) {
        var parts: [RegexID] = []
        let least = try count("minLength") ?? 0
        let most = try count("maxLength") ?? Int.max
        if least > 0 || most < Int.max {
            guard least <= 1_000_000 else { throw failure(.unsupported, "minLength", "over 1,000,000 characters") }
            if least > most { return (RegexArena.empty, RegexArena.empty) }
            let unbounded = most >= 1 << 30
            parts.append(
                algebra.arena.repeat(
                    RegexArena.anyScalar, min: Int32(least), max: unbounded ? RegexArena.unbounded : Int32(most)))
        }
        if let value = object["pattern"] {
            guard let pattern = value.string else { throw failure(.invalid, "pattern", "an expression expected") }
            parts.append(try search(pattern, "pattern"))
        }
        if let value = object["format"] {
            guard let name = value.string else { throw failure(.invalid, "format", "a name expected") }
            if let language = try format(name) {
                try content(&parts)
                let others = algebra.arena.and(parts)
                return (algebra.arena.and(others, language.written), algebra.arena.and(others, language.all))
            }
        }
        try content(&parts)
        let all = algebra.arena.and(parts)
        return (all, all)
    }

    func search(_ pattern: String, _ keyword: String) throws(ConstraintError) -> RegexID {
        let key = ByteKey(text: pattern)
        if let known = algebra.searches[key] { return known }
        do {
            let language = try algebra.arena.search(pattern)
            algebra.searches[key] = language
            return language
        } catch {
            throw failure(.unsupported, keyword, "\(error.message) at character \(error.offset) of '\(pattern)'")
        }
    }

    /// What is written for a format, and all that it may mean.
    private func format(_ name: String) throws(ConstraintError) -> (written: RegexID, all: RegexID)? {
        if let known = algebra.formats[name] { return known }
        guard let pattern = FormatLanguage.pattern(name) else { return nil }
        do {
            var language = try algebra.arena.wholeMatch(pattern)
            if let exclusion = FormatLanguage.exclusion(name) {
                let outside = try algebra.arena.search(exclusion)
                language = algebra.arena.and(language, algebra.arena.not(outside))
            }
            var all = language
            if let wider = FormatLanguage.widerPattern(name) {
                all = algebra.arena.or(language, try algebra.arena.wholeMatch(wider))
            }
            algebra.formats[name] = (language, all)
            return (language, all)
        } catch {
            throw failure(.unsupported, "format", error.message)
        }
    }

    /// Drafts before 2019-09 let a string's content be checked, so there it is.
    private func content(_ parts: inout [RegexID]) throws(ConstraintError) {
        guard draft != .modern else { return }
        if object["contentMediaType"]?.string == "application/json" {
            throw failure(.unsupported, "contentMediaType", "JSON inside a string can't be checked")
        }
        if object["contentEncoding"]?.string == "base64" {
            do { parts.append(try algebra.arena.wholeMatch(FormatLanguage.base64)) } catch {
                throw failure(.unsupported, "contentEncoding", error.message)
            }
        }
    }

    // MARK: Listed values

    /// Exactly `values`.
    private func listed(_ values: [JSONValue], _ keyword: String) throws(ConstraintError) -> ValueShape {
        var shape = ValueShape()
        var texts: [String] = []
        for value in values {
            try algebra.checkLimits()
            switch value {
            case .null: shape.null = true
            case .bool(true): shape.isTrue = true
            case .bool(false): shape.isFalse = true
            case .string(let text): texts.append(text)
            case .integer, .number, .decimal:
                guard let number = DecimalNumber(numberText(value)) else {
                    throw failure(.unsupported, keyword, "a number of too many digits")
                }
                shape.number = algebra.arena.or(shape.number, algebra.arena.numbers(equalTo: number))
            case .array(let items):
                var array = ArrayShape(rest: ValueAlgebra.none, min: items.count, max: items.count)
                for item in items { array.prefix.append(algebra.written(try listed([item], keyword))) }
                shape.arrays.append(array)
            case .object(let members):
                var result = ObjectShape()
                for (name, member) in zip(members.keys, members.values) {
                    result.names.append(ByteKey(text: name))
                    result.values.append(algebra.written(try listed([member], keyword)))
                    result.required.append(true)
                }
                shape.objects.append(result)
            }
        }
        shape.listed = algebra.arena.literals(texts)
        shape.strings = shape.listed
        return shape
    }

    private func numberText(_ value: JSONValue) -> String {
        switch value {
        case .integer(let number): String(number)
        case .decimal(let text): text
        case .number(let number): "\(number)"
        default: ""
        }
    }
}
