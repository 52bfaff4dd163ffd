import SigmaBase

/// Functions whose calls are tagged XML: a parameter is a member of the arguments, and each has lines of its own.
struct ParameterLists {
    /// A parameter's value.
    struct Value {
        /// As text, with the end of the parameter.
        var text = RegexArena.empty
        /// The arrays and objects among its values; -1: there are none.
        var nested: Int32 = -1
        var kinds: ParameterKinds = []
    }

    static let tag = Array(CallForm.parameterTag.open.utf8)
    static let nameEnd = ">\n"
    static let textEnd = "\n\(CallForm.parameterTag.close)\n"
    static let end = Array(textEnd.utf8)

    /// Names with what ends them, sorted by bytes.
    private(set) var spellings: [[UInt8]] = []
    /// For each, the objects that its arguments may be.
    private(set) var rules: [[Int32]] = []
    /// By the number of the parameter's value in the grammar.
    private(set) var values: [Int32: Value] = [:]
    private(set) var parameters: [ByteKey: FunctionParameters] = [:]

    /// - Parameters:
    ///   - functions: names and the values that the arguments may be.
    ///   - grammar: gets the rules by which they are written.
    /// - Throws: `ConstraintError` with the function's place where it has arguments that cannot be written so.
    static func make(
        _ functions: [(name: String, value: Int32)], in grammar: inout Grammar
    ) throws(ConstraintError) -> ParameterLists {
        var lists = ParameterLists()
        let order = functions.indices
            .map { (spelling: Array((functions[$0].name + nameEnd).utf8), place: $0) }
            .sorted { $0.spelling.lexicographicallyPrecedes($1.spelling) }
        for (spelling, place) in order {
            var parameters = FunctionParameters()
            var rules: [Int32] = []
            for rule in grammar.values[Int(functions[place].value)].objects {
                do throws(ConstraintError) {
                    let rule = try lists.rule(grammar.objects[Int(rule)], &parameters, &grammar)
                    rules.append(Int32(grammar.objects.count))
                    grammar.objects.append(rule)
                } catch { throw error.with(function: place) }
            }
            lists.spellings.append(spelling)
            lists.rules.append(rules)
            lists.parameters[ByteKey(text: functions[place].name)] = parameters
        }
        return lists
    }

    /// The object's members as parameters.
    private mutating func rule(
        _ object: ObjectRule, _ parameters: inout FunctionParameters, _ grammar: inout Grammar
    ) throws(ConstraintError) -> ObjectRule {
        let rule = ObjectRule(min: object.min, max: object.max)
        rule.names = object.names
        var members = object.values
        for (place, name) in object.names.enumerated() where members[place] >= 0 {
            let isWritable = !name.unicodeScalars.contains { $0 == ">" || $0 == "\n" } && !name.isEmpty
            let kinds = try isWritable ? self.kinds(of: members[place], &grammar) : []
            if kinds.isEmpty {
                // Nothing is lost where it may be left out.
                guard object.nextRequired[place] != place else {
                    throw ConstraintError(
                        .unsupported, keyword: "properties", "the parameter '\(name)' cannot be written in a tag")
                }
                members[place] = -1
            }
            parameters.named[ByteKey(text: name), default: []].formUnion(kinds)
        }
        rule.setMembers(members, required: object.values.indices.map { object.nextRequired[$0] == $0 })
        let order = object.names.indices
            .map { (spelling: Array((object.names[$0] + Self.nameEnd).utf8), place: $0) }
            .sorted { $0.spelling.lexicographicallyPrecedes($1.spelling) }
        rule.spellings = order.map(\.spelling)
        rule.places = order.map(\.place)
        let keys = grammar.arena.repeat(
            grammar.arena.set(CodePointSet(0x0A).union(CodePointSet(0x3E)).complement), min: 1,
            max: RegexArena.unbounded)
        rule.regions = try regions(object.regions, keys, &parameters, &grammar)
        rule.needs = try regions(object.needs, keys, &parameters, &grammar)
        guard object.needs.isEmpty || !rule.needs.isEmpty else {
            throw ConstraintError(.unsupported, "a parameter that is needed cannot be written in a tag")
        }
        return rule
    }

    private mutating func regions(
        _ regions: [ObjectRule.Region], _ keys: RegexID, _ parameters: inout FunctionParameters,
        _ grammar: inout Grammar
    ) throws(ConstraintError) -> [ObjectRule.Region] {
        var result: [ObjectRule.Region] = []
        for region in regions {
            let keys = grammar.arena.and(region.keys, keys)
            let kinds = try kinds(of: region.value, &grammar)
            guard grammar.arena.isLive(keys), !kinds.isEmpty else { continue }
            result.append(ObjectRule.Region(keys: keys, value: region.value))
            parameters.others.formUnion(kinds)
        }
        return result
    }

    /// Says how the value is written, where that is not known yet. Empty: no value can be written.
    private mutating func kinds(
        of number: Int32, _ grammar: inout Grammar
    ) throws(ConstraintError) -> ParameterKinds {
        if let known = values[number] { return known.kinds }
        let value = grammar.values[Int(number)]
        var made = Value()
        if value.null { made.kinds.insert(.null) }
        if value.isTrue || value.isFalse { made.kinds.insert(.bool) }
        if value.number != RegexArena.empty { made.kinds.insert(.number) }
        if !value.arrays.isEmpty { made.kinds.insert(.array) }
        if !value.objects.isEmpty { made.kinds.insert(.object) }
        var words: [String] = []
        if value.null { words += ["null", "None"] }
        if value.isTrue { words += ["true", "True"] }
        if value.isFalse { words += ["false", "False"] }
        var text = grammar.arena.or([value.number, grammar.arena.literals(words)])
        if value.listed != RegexArena.empty || value.text != RegexArena.empty {
            let strings = Self.strings(grammar.arena.or(value.listed, value.text), made.kinds, &grammar.arena)
            if grammar.arena.isLive(strings) {
                made.kinds.insert(.string)
                text = grammar.arena.or(text, strings)
            }
        }
        made.text = grammar.arena.concat(text, grammar.arena.literal(Self.textEnd))
        if !value.arrays.isEmpty || !value.objects.isEmpty {
            made.nested = Int32(grammar.values.count)
            grammar.values.append(Grammar.Value(arrays: value.arrays, objects: value.objects))
        }
        values[number] = made
        return made.kinds
    }

    /// Strings that end where the parameter does, and that are not read as values of the other kinds.
    private static func strings(_ strings: RegexID, _ kinds: ParameterKinds, _ arena: inout RegexArena) -> RegexID {
        let any = RegexArena.anything
        // A value may not seem to have ended before it began, either.
        var others = [
            arena.concat([any, arena.literal(String(textEnd.dropLast())), any]),
            arena.concat(arena.literal(CallForm.parameterTag.close), any),
        ]
        if kinds.contains(.null) { others.append(arena.literals(["null", "None"])) }
        if kinds.contains(.bool) { others.append(arena.literals(["true", "True", "false", "False"])) }
        if kinds.contains(.number) { others.append(arena.writtenNumbers()) }
        if kinds.contains(.array) { others.append(arena.concat(arena.literal("["), any)) }
        if kinds.contains(.object) { others.append(arena.concat(arena.literal("{"), any)) }
        return arena.and(strings, arena.not(arena.or(others)))
    }
}

extension RegexArena {
    /// All that JSON writes as a number.
    fileprivate mutating func writtenNumbers() -> RegexID {
        let digit = set(CodePointSet([(0x30, 0x39)]))
        let digits = self.repeat(digit, min: 1, max: Self.unbounded)
        let natural = or(literal("0"), concat(set(CodePointSet([(0x31, 0x39)])), star(digit)))
        let sign = optional(or(literal("+"), literal("-")))
        let exponent = concat([or(literal("e"), literal("E")), sign, digits])
        return concat([optional(literal("-")), natural, optional(concat(literal("."), digits)), optional(exponent)])
    }
}
