import SigmaBase

/// Functions whose calls are tagged XML: a parameter is a member of the arguments, and each has lines of its own.
struct ParameterLists {
    /// A parameter's value.
    struct Value {
        /// As text, with the end of the parameter.
        var text = RegexArena.empty
        /// The arrays and objects among its values; -1: there are none.
        var nested: Int32 = -1
    }

    /// A value beside texts that are read as these kinds.
    private struct Written: Hashable {
        var value: Int32
        var kinds: UInt8
    }

    static let tag = Array(CallForm.parameterTag.open.utf8)
    static let nameEnd = ">\n"
    static let textEnd = "\n\(CallForm.parameterTag.close)\n"
    static let end = Array(textEnd.utf8)

    /// Names with what ends them, sorted by bytes.
    private(set) var spellings: [[UInt8]] = []
    /// For each, the objects that its arguments may be.
    private(set) var rules: [[Int32]] = []
    /// By the number of the parameter's value in the grammar: each way to write a value has one of its own there.
    private(set) var values: [Int32: Value] = [:]
    private var numbers: [Written: Int32] = [:]
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
            let objects = grammar.values[Int(functions[place].value)].objects.map { grammar.objects[Int($0)] }
            let parameters = readings(of: objects, in: grammar)
            var rules: [Int32] = []
            for object in objects {
                do throws(ConstraintError) {
                    let rule = try lists.rule(object, parameters, &grammar)
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

    private static func isWritable(_ name: String) -> Bool {
        !name.isEmpty && !name.unicodeScalars.contains { $0 == ">" || $0 == "\n" }
    }

    /// As what texts are read, whichever of the objects the arguments turn out to be.
    private static func readings(of objects: [ObjectRule], in grammar: Grammar) -> FunctionParameters {
        var parameters = FunctionParameters()
        for object in objects {
            for (name, value) in zip(object.names, object.values) where value >= 0 && isWritable(name) {
                let kinds = grammar.values[Int(value)].parameterKinds
                parameters.named[ByteKey(text: name), default: []].formUnion(kinds)
            }
            for region in object.regions + object.needs {
                parameters.others.formUnion(grammar.values[Int(region.value)].parameterKinds)
            }
        }
        // What one object names is one of the others for an object that does not.
        for object in objects where !object.regions.isEmpty || !object.needs.isEmpty {
            let names = Set(object.names.map { ByteKey(text: $0) })
            for name in parameters.named.keys where !names.contains(name) {
                parameters.named[name]?.formUnion(parameters.others)
            }
        }
        return parameters
    }

    /// The object's members as parameters.
    private mutating func rule(
        _ object: ObjectRule, _ parameters: FunctionParameters, _ grammar: inout Grammar
    ) throws(ConstraintError) -> ObjectRule {
        let rule = ObjectRule(min: object.min, max: object.max)
        rule.names = object.names
        var members = object.values
        for (place, name) in object.names.enumerated() where members[place] >= 0 {
            members[place] =
                Self.isWritable(name) ? number(of: members[place], readAs: parameters.kinds(of: name), &grammar) : -1
            // Nothing is lost where it may be left out.
            guard members[place] >= 0 || object.nextRequired[place] != place else {
                throw ConstraintError(
                    .unsupported, keyword: "properties", "the parameter '\(name)' cannot be written in a tag")
            }
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
        // A key that is free here may be named elsewhere.
        let names = Set(object.names.map { ByteKey(text: $0) })
        let kinds = parameters.named.reduce(into: parameters.others) {
            if !names.contains($1.key) { $0.formUnion($1.value) }
        }
        rule.regions = regions(object.regions, keys, readAs: kinds, &grammar)
        rule.needs = regions(object.needs, keys, readAs: kinds, &grammar)
        guard object.needs.isEmpty || !rule.needs.isEmpty else {
            throw ConstraintError(.unsupported, "a parameter that is needed cannot be written in a tag")
        }
        // Of free parameters only one counts: they may repeat.
        guard object.min <= rule.possibleAfter[0] + (rule.regions.isEmpty ? 0 : 1) else {
            throw ConstraintError(
                .unsupported, keyword: "minProperties", "more parameters are required than can be written in tags")
        }
        return rule
    }

    private mutating func regions(
        _ regions: [ObjectRule.Region], _ keys: RegexID, readAs kinds: ParameterKinds, _ grammar: inout Grammar
    ) -> [ObjectRule.Region] {
        var result: [ObjectRule.Region] = []
        for region in regions {
            let keys = grammar.arena.and(region.keys, keys)
            guard grammar.arena.isLive(keys) else { continue }
            let value = number(of: region.value, readAs: kinds, &grammar)
            if value >= 0 { result.append(ObjectRule.Region(keys: keys, value: value)) }
        }
        return result
    }

    /// The number of the value as it is written where texts are read as these kinds; -1: it cannot be written there.
    private mutating func number(
        of value: Int32, readAs kinds: ParameterKinds, _ grammar: inout Grammar
    ) -> Int32 {
        let key = Written(value: value, kinds: kinds.rawValue)
        if let known = numbers[key] { return known }
        let source = grammar.values[Int(value)]
        var words: [String] = []
        if source.null { words += ["null", "None"] }
        if source.isTrue { words += ["true", "True"] }
        if source.isFalse { words += ["false", "False"] }
        var text = grammar.arena.or([source.number, grammar.arena.literals(words)])
        if source.parameterKinds.contains(.string) {
            let strings = Self.strings(grammar.arena.or(source.listed, source.text), kinds, &grammar.arena)
            text = grammar.arena.or(text, strings)
        }
        var written = Value()
        if grammar.arena.isLive(text) {
            written.text = grammar.arena.concat(text, grammar.arena.literal(Self.textEnd))
        }
        if !source.arrays.isEmpty || !source.objects.isEmpty {
            written.nested = Int32(grammar.values.count)
            grammar.values.append(Grammar.Value(arrays: source.arrays, objects: source.objects))
        }
        var number: Int32 = -1
        if written.text != RegexArena.empty || written.nested >= 0 {
            number = Int32(grammar.values.count)
            grammar.values.append(source)
            values[number] = written
        }
        numbers[key] = number
        return number
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

extension Grammar.Value {
    /// What its values can be.
    fileprivate var parameterKinds: ParameterKinds {
        var kinds: ParameterKinds = []
        if null { kinds.insert(.null) }
        if isTrue || isFalse { kinds.insert(.bool) }
        if number != RegexArena.empty { kinds.insert(.number) }
        if !arrays.isEmpty { kinds.insert(.array) }
        if !objects.isEmpty { kinds.insert(.object) }
        if listed != RegexArena.empty || text != RegexArena.empty { kinds.insert(.string) }
        return kinds
    }
}
