import SigmaBase

/// Turns a set of values into a grammar: everything that can be reached is resolved, and what can't be done exactly is
/// refused here, so that nothing fails later.
struct GrammarBuilder {
    private let algebra: ValueAlgebra
    private var values: [Grammar.Value] = []
    private var arrays: [ArrayRule] = []
    private var objects: [ObjectRule] = []
    private var numbers: [ValueID: Int32] = [:]
    private var queue: [ValueID] = []
    private var arrayNumbers: [ArrayShape: Int32] = [:]
    private var objectNumbers: [ObjectShape: Int32] = [:]

    private init(algebra: ValueAlgebra) { self.algebra = algebra }

    /// - Returns: a grammar of which it isn't said yet what the answer is, and the values' numbers in it.
    static func grammar(
        of roots: [ValueID], in algebra: ValueAlgebra
    ) throws(ConstraintError) -> (grammar: Grammar, values: [Int32]) {
        var builder = GrammarBuilder(algebra: algebra)
        var numbers: [Int32] = []
        for root in roots {
            let number = try builder.number(of: root)
            guard number >= 0 else { throw ConstraintError(.unsatisfiable, "no value satisfies the schema") }
            numbers.append(number)
        }
        var next = 0
        while next < builder.queue.count {
            let value = try builder.value(of: builder.queue[next])
            builder.values[next] = value
            next += 1
        }
        try algebra.checkLimits()
        algebra.arena.deadline = nil
        let grammar = Grammar(
            arena: algebra.arena, values: builder.values, arrays: builder.arrays, objects: builder.objects)
        return (grammar, numbers)
    }

    /// -1 for an empty set.
    private mutating func number(of id: ValueID) throws(ConstraintError) -> Int32 {
        if let known = numbers[id] { return known }
        if try algebra.isEmpty(id) {
            numbers[id] = -1
            return -1
        }
        let number = Int32(values.count)
        numbers[id] = number
        values.append(Grammar.Value())
        queue.append(id)
        return number
    }

    private mutating func value(of id: ValueID) throws(ConstraintError) -> Grammar.Value {
        try algebra.checkLimits()
        let shape = try algebra.shape(of: id)
        var value = Grammar.Value(null: shape.null, isFalse: shape.isFalse, isTrue: shape.isTrue)
        value.number = live(algebra.arena.spelling(of: shape.number))
        value.listed = live(shape.listed)
        value.text = live(shape.text)
        for array in shape.arrays {
            if let rule = try self.array(array) { value.arrays.append(rule) }
        }
        for object in shape.objects {
            if let rule = try self.object(object) { value.objects.append(rule) }
        }
        if value.isEmpty {
            throw ConstraintError(.unsupported, keyword: "format", "no value that the schema asks for can be written")
        }
        return value
    }

    private func live(_ id: RegexID) -> RegexID { algebra.arena.isLive(id) ? id : RegexArena.empty }

    private mutating func array(_ shape: ArrayShape) throws(ConstraintError) -> Int32? {
        if let known = arrayNumbers[shape] { return known }
        guard shape.min <= shape.max else { return nil }
        if shape.contains.count > ArrayShape.containsLimit {
            throw ConstraintError(.unsupported, keyword: "contains", "over \(ArrayShape.containsLimit) rules at once")
        }
        if shape.uniqueSchema >= 0 {
            throw ConstraintError(
                .unsupported, pointer: algebra.document[shape.uniqueSchema].pointer, keyword: "uniqueItems",
                "not supported")
        }
        let rule = ArrayRule(shape: shape)
        for index in 0...shape.distinctPositions {
            var ways: [(value: Int32, way: ArrayWay)] = []
            for way in algebra.ways(of: shape, at: index) {
                let value = try number(of: way.value)
                if value >= 0 { ways.append((value, way)) }
            }
            rule.ways.append(ways)
        }
        guard let canComplete = rule.canComplete(from: ArrayProgress(shape)) else {
            throw ConstraintError(.limit, "an array has too many counts to keep apart")
        }
        guard canComplete else { return nil }
        let number = Int32(arrays.count)
        arrays.append(rule)
        arrayNumbers[shape] = number
        return number
    }

    private mutating func object(_ shape: ObjectShape) throws(ConstraintError) -> Int32? {
        if let known = objectNumbers[shape] { return known }
        guard shape.min <= shape.max else { return nil }
        let rule = ObjectRule(min: shape.min, max: shape.max)
        var members: [Int32] = []
        for (place, value) in shape.values.enumerated() {
            let number = try number(of: value)
            if number < 0 && shape.required[place] { return nil }
            members.append(number)
        }
        rule.setMembers(members, required: shape.required)
        let order = shape.names.indices
            .map { (spelling: jsonSpelling(of: shape.names[$0].text) + [UInt8(ascii: "\"")], place: $0) }
            .sorted { $0.spelling.lexicographicallyPrecedes($1.spelling) }
        rule.spellings = order.map(\.spelling)
        rule.places = order.map(\.place)
        rule.names = shape.names.map(\.text)
        for region in shape.regions where hasUnnamedKeys(region.keys, rule.names) {
            let number = try number(of: region.value)
            if number >= 0 { rule.regions.append(.init(keys: region.keys, value: number)) }
        }
        try addNeeds(of: shape, to: rule)
        if !shape.needs.isEmpty && rule.needs.isEmpty { return nil }
        // Keys that the schema doesn't name may repeat, and a repeated key is one member: only one of them counts.
        let certain = rule.possibleAfter[0] + (rule.regions.isEmpty ? 0 : 1)
        if shape.min > certain {
            if rule.regions.isEmpty { return nil }
            throw ConstraintError(
                .unsupported, keyword: "minProperties", "more members are required than the schema names")
        }
        if rule.requiredAfter[0] + (rule.needs.isEmpty ? 0 : 1) > shape.max { return nil }
        let number = Int32(objects.count)
        objects.append(rule)
        objectNumbers[shape] = number
        return number
    }

    /// Whether there are such keys that aren't names. Any key but some names always is one, so most objects need no search.
    private func hasUnnamedKeys(_ keys: RegexID, _ names: [String]) -> Bool {
        if keys == RegexArena.anything { return true }
        let unnamed = algebra.arena.not(algebra.arena.literals(names))
        return algebra.arena.isLive(algebra.arena.and(keys, unnamed))
    }

    private mutating func addNeeds(of shape: ObjectShape, to rule: ObjectRule) throws(ConstraintError) {
        guard let need = shape.needs.first else { return }
        guard shape.needs.count == 1 else {
            throw ConstraintError(
                .unsupported, keyword: "not", "an object needs several members whose names the schema doesn't give")
        }
        for region in shape.regions {
            let keys = algebra.arena.and(region.keys, need.keys)
            guard hasUnnamedKeys(keys, rule.names) else { continue }
            let number = try number(of: algebra.and(region.value, need.value))
            if number >= 0 { rule.needs.append(.init(keys: keys, value: number)) }
        }
    }
}
