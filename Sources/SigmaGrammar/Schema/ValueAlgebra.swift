import SigmaBase

/// Sets of JSON values under union, intersection and complement, exact and lazy.
///
/// Intersections and complements are carried out on shapes (disjunctive normal form), one level at a time: what a
/// property or an item must be stays an expression until it is asked for. There are finitely many expressions over a
/// schema's parts, so recursion ends.
final class ValueAlgebra {
    static let any: ValueID = 0
    static let none: ValueID = 1

    @exclusivity(unchecked) var arena = RegexArena()
    let document: SchemaDocument
    let limits: ConstraintLimits
    private let deadline: ContinuousClock.Instant
    private var ticks = 0

    private(set) var expressions: [ValueExpression] = []
    private var numbers: [ValueExpression: ValueID] = [:]
    private var shapes: [ValueShape?] = []
    private var isInProgress: [Bool] = []
    private var writtenShapes: [ValueShape] = []
    private var depth = 0
    var emptiness: [Emptiness] = []
    /// Of the proof of emptiness that is being made: sets inside each other, and sets looked at.
    var proofDepth = 0
    var proofSteps = 0

    /// Sets inside each other that are resolved at one time.
    private static let depthLimit = 300

    init(document: SchemaDocument, limits: ConstraintLimits) {
        self.document = document
        self.limits = limits
        deadline = ContinuousClock.now + .seconds(limits.compileSeconds)
        arena.deadline = deadline
        _ = intern(.any)
        _ = intern(.none)
    }

    private func intern(_ expression: ValueExpression) -> ValueID {
        if let known = numbers[expression] { return known }
        let id = ValueID(expressions.count)
        expressions.append(expression)
        numbers[expression] = id
        shapes.append(nil)
        isInProgress.append(false)
        emptiness.append(.unknown)
        return id
    }

    /// - Throws: if compiling took too long or grew too large.
    func checkLimits() throws(ConstraintError) {
        ticks += 1
        if arena.isOutOfTime || ticks & 15 == 0 && ContinuousClock.now > deadline {
            throw ConstraintError(time: limits.compileSeconds)
        }
        if expressions.count > limits.values || arena.count > limits.expressions {
            throw ConstraintError(.limit, "the constraint is too large")
        }
    }

    // MARK: Expressions

    func schema(_ id: SchemaID) -> ValueID {
        switch document.schemas[Int(id)].value {
        case .bool(true): Self.any
        case .bool(false): Self.none
        default: intern(.schema(id))
        }
    }

    func own(_ id: SchemaID) -> ValueID { intern(.own(id)) }

    func written(_ shape: ValueShape) -> ValueID {
        writtenShapes.append(shape)
        return intern(.shape(writtenShapes.count - 1))
    }

    func and(_ a: ValueID, _ b: ValueID) -> ValueID { a == b || b == Self.any ? a : a == Self.any ? b : and([a, b]) }

    func and(_ parts: [ValueID]) -> ValueID {
        var flat: [ValueID] = []
        for part in parts where part != Self.any {
            if part == Self.none { return Self.none }
            if case .and(let inner) = expressions[Int(part)] { flat += inner } else { flat.append(part) }
        }
        // The order of parts decides the order of properties, so it is kept.
        var seen: Set<ValueID> = []
        flat = flat.filter { seen.insert($0).inserted }
        if flat.isEmpty { return Self.any }
        return flat.count == 1 ? flat[0] : intern(.and(flat))
    }

    func or(_ parts: [ValueID]) -> ValueID {
        var flat: [ValueID] = []
        for part in parts where part != Self.none {
            if part == Self.any { return Self.any }
            if case .or(let inner) = expressions[Int(part)] { flat += inner } else { flat.append(part) }
        }
        var seen: Set<ValueID> = []
        flat = flat.filter { seen.insert($0).inserted }
        if flat.isEmpty { return Self.none }
        return flat.count == 1 ? flat[0] : intern(.or(flat))
    }

    func not(_ a: ValueID) -> ValueID {
        switch expressions[Int(a)] {
        case .any: Self.none
        case .none: Self.any
        case .not(let inner): inner
        default: intern(.not(a))
        }
    }

    // MARK: Shapes

    /// The shape if it is known, or can be found without what is being found just now.
    func shapeIfPossible(_ id: ValueID) throws(ConstraintError) -> ValueShape? {
        if let known = shapes[Int(id)] { return known }
        return isInProgress[Int(id)] ? nil : try shape(of: id)
    }

    func shape(of id: ValueID) throws(ConstraintError) -> ValueShape {
        if let known = shapes[Int(id)] { return known }
        try checkLimits()
        guard !isInProgress[Int(id)] else {
            throw ConstraintError(.unsupported, pointer: pointer(of: id), keyword: "$ref", "a schema refers to itself")
        }
        guard depth < Self.depthLimit else {
            throw ConstraintError(.limit, pointer: pointer(of: id), "schemas are nested too deeply")
        }
        isInProgress[Int(id)] = true
        depth += 1
        defer {
            isInProgress[Int(id)] = false
            depth -= 1
        }
        let shape = try resolve(expressions[Int(id)])
        shapes[Int(id)] = shape
        return shape
    }

    private func resolve(_ expression: ValueExpression) throws(ConstraintError) -> ValueShape {
        switch expression {
        case .any: return anything()
        case .none: return ValueShape()
        case .shape(let place): return writtenShapes[place]
        case .own(let id): return try ownShape(of: id)
        case .schema(let id):
            let parts = try SchemaReader(algebra: self, id: id).parts()
            return try shape(of: parts)
        case .not(let a): return try complement(shape(of: a))
        case .or(let parts):
            var result = ValueShape()
            for part in parts { result = try union(result, shape(of: part)) }
            return result
        case .and(let parts):
            var result = try shape(of: parts[0])
            for part in parts.dropFirst() { result = try intersection(result, shape(of: part)) }
            return result
        }
    }

    private func pointer(of id: ValueID) -> String {
        switch expressions[Int(id)] {
        case .schema(let schema), .own(let schema): document.schemas[Int(schema)].pointer
        default: ""
        }
    }

    private func ownShape(of id: SchemaID) throws(ConstraintError) -> ValueShape {
        try OwnKeywords(algebra: self, id: id).shape()
    }

    func anything() -> ValueShape { universe }

    private lazy var universe = ValueShape(
        null: true, isFalse: true, isTrue: true, number: everyNumber, text: RegexArena.anything,
        strings: RegexArena.anything,
        arrays: [ArrayShape(rest: Self.any)], objects: [anyObject])
    private(set) lazy var everyNumber = arena.everyNumber()
    private(set) lazy var integers = arena.integers()
    /// Languages of expressions and formats that occurred before.
    var searches: [ByteKey: RegexID] = [:]
    var formats: [String: (written: RegexID, all: RegexID)] = [:]

    var anyObject: ObjectShape {
        ObjectShape(regions: [ObjectShape.Region(keys: RegexArena.anything, value: Self.any)])
    }

    /// All values of the kinds that `shape` lacks nothing of: used where a keyword speaks of one kind only.
    func everythingBut(objects: [ObjectShape]) -> ValueShape {
        var shape = anything()
        shape.objects = objects
        return shape
    }

    func checkAlternatives(_ count: Int) throws(ConstraintError) {
        guard count <= limits.alternatives else {
            throw ConstraintError(.limit, "combining schemas gives over \(limits.alternatives) alternatives")
        }
    }
}
