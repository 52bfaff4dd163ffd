import SigmaBase

/// `unevaluatedProperties` and `unevaluatedItems`: what neither the schema nor those it applies in place speak of.
///
/// Which of the branches apply differs between instances, so they are told apart: a world for each combination, with
/// the condition under which it holds and what its schemas speak of.
struct Unevaluated {
    let reader: SchemaReader
    let keyword: String

    private struct World {
        var condition = ValueAlgebra.any
        var names: Set<ByteKey> = []
        var patterns: [RegexID] = []
        var prefix = 0
        var contains: [ValueID] = []
        var isComplete = false

        var isEmpty: Bool {
            names.isEmpty && patterns.isEmpty && prefix == 0 && contains.isEmpty && !isComplete
                && condition == ValueAlgebra.any
        }
    }

    private static let worldLimit = 64
    private static let depthLimit = 50

    private var algebra: ValueAlgebra { reader.algebra }
    private var isAboutItems: Bool { keyword == "unevaluatedItems" }

    func applied(_ value: JSONValue) throws(ConstraintError) -> ValueID {
        let rest = try reader.schema(value, keyword)
        if rest == ValueAlgebra.any { return rest }
        var choices: [ValueID] = []
        for world in try worlds(of: reader.id, isOuter: true, depth: 0) {
            let limit = isAboutItems ? items(world, rest) : properties(world, rest)
            choices.append(algebra.and(world.condition, limit))
        }
        return algebra.or(choices)
    }

    private func properties(_ world: World, _ rest: ValueID) -> ValueID {
        if world.isComplete { return ValueAlgebra.any }
        var shape = ObjectShape()
        shape.names = world.names.sorted { $0.text < $1.text }
        shape.values = shape.names.map { _ in ValueAlgebra.any }
        shape.required = shape.names.map { _ in false }
        let known = algebra.arena.or(world.patterns)
        let others = algebra.arena.not(known)
        if known != RegexArena.empty { shape.regions.append(.init(keys: known, value: ValueAlgebra.any)) }
        if rest != ValueAlgebra.none { shape.regions.append(.init(keys: others, value: rest)) }
        return algebra.written(algebra.everythingBut(objects: [shape]))
    }

    private func items(_ world: World, _ rest: ValueID) -> ValueID {
        if world.isComplete { return ValueAlgebra.any }
        var shape = algebra.anything()
        let prefix = [ValueID](repeating: ValueAlgebra.any, count: world.prefix)
        shape.arrays = [ArrayShape(prefix: prefix, rest: algebra.or([rest] + world.contains))]
        return algebra.written(shape)
    }

    // MARK: Worlds

    private func worlds(of id: SchemaID, isOuter: Bool, depth: Int) throws(ConstraintError) -> [World] {
        // Schemas that refer to others twice and more are walked as often.
        try algebra.checkLimits()
        guard depth < Self.depthLimit else {
            throw reader.failure(.unsupported, keyword, "references beside it don't end")
        }
        guard case .object(let object) = algebra.document[id].value else { return [World()] }
        let inner = SchemaReader(algebra: algebra, id: id)
        var result = [try own(object, id, isOuter: isOuter)]
        func multiply(_ more: [World]) throws(ConstraintError) { result = try product(result, more) }
        for key in ["$ref", "$dynamicRef", "$recursiveRef"] {
            guard let text = object[key]?.string else { continue }
            let target = try algebra.document.resolve(text, keyword: key, from: id)
            try multiply(worlds(of: target, isOuter: false, depth: depth + 1))
        }
        for (place, member) in (object["allOf"]?.array ?? []).enumerated() {
            let schema = try algebra.document.child(of: id, member, "allOf", "\(place)")
            try multiply(worlds(of: schema, isOuter: false, depth: depth + 1))
        }
        for key in ["anyOf", "oneOf"] {
            for (place, member) in (object[key]?.array ?? []).enumerated() {
                let schema = try algebra.document.child(of: id, member, key, "\(place)")
                let inside = try worlds(of: schema, isOuter: false, depth: depth + 1)
                try multiply(split(on: algebra.schema(schema), inside, [World()]))
            }
        }
        if let condition = object["if"] {
            let schema = try algebra.document.child(of: id, condition, "if")
            var then = try worlds(of: schema, isOuter: false, depth: depth + 1)
            var otherwise = [World()]
            if let branch = object["then"] {
                let schema = try algebra.document.child(of: id, branch, "then")
                then = try product(then, worlds(of: schema, isOuter: false, depth: depth + 1))
            }
            if let branch = object["else"] {
                let schema = try algebra.document.child(of: id, branch, "else")
                otherwise = try worlds(of: schema, isOuter: false, depth: depth + 1)
            }
            try multiply(split(on: algebra.schema(schema), then, otherwise))
        }
        if let members = object["dependentSchemas"]?.object {
            for (name, member) in zip(members.keys, members.values) {
                let schema = try algebra.document.child(of: id, member, "dependentSchemas", name)
                let inside = try worlds(of: schema, isOuter: false, depth: depth + 1)
                try multiply(split(on: inner.members(named: [name], forbidden: false), inside, [World()]))
            }
        }
        return result
    }

    /// What the schema's own keywords speak of.
    private func own(_ object: JSONObject, _ id: SchemaID, isOuter: Bool) throws(ConstraintError) -> World {
        var world = World()
        if isAboutItems {
            let list = object["prefixItems"]?.array ?? object["items"]?.array
            world.prefix = list?.count ?? 0
            if let items = object["items"], items.array == nil { world.isComplete = true }
            if object["items"]?.array != nil && object["additionalItems"] != nil { world.isComplete = true }
            if let value = object["contains"] {
                guard algebra.document[id].draft == .modern else {
                    throw reader.failure(.unsupported, keyword, "beside contains its meaning depends on the draft")
                }
                world.contains.append(algebra.schema(try algebra.document.child(of: id, value, "contains")))
            }
        } else {
            world.names = Set((object["properties"]?.object?.keys ?? []).map { ByteKey(text: $0) })
            for pattern in object["patternProperties"]?.object?.keys ?? [] {
                world.patterns.append(try OwnKeywords(algebra: algebra, id: id).search(pattern, "patternProperties"))
            }
            if object["additionalProperties"] != nil { world.isComplete = true }
        }
        if !isOuter && object[keyword] != nil { world.isComplete = true }
        return world
    }

    private func split(on condition: ValueID, _ inside: [World], _ outside: [World]) -> [World] {
        if inside.allSatisfy({ $0.isEmpty }) && outside.allSatisfy({ $0.isEmpty }) { return [World()] }
        func under(_ condition: ValueID, _ world: World) -> World {
            var result = world
            result.condition = algebra.and(condition, world.condition)
            return result
        }
        return inside.map { under(condition, $0) } + outside.map { under(algebra.not(condition), $0) }
    }

    private func product(_ first: [World], _ second: [World]) throws(ConstraintError) -> [World] {
        var result: [World] = []
        for a in first {
            for b in second {
                var both = a
                both.condition = algebra.and(a.condition, b.condition)
                both.names.formUnion(b.names)
                both.patterns += b.patterns
                both.prefix = max(a.prefix, b.prefix)
                both.contains += b.contains
                both.isComplete = a.isComplete || b.isComplete
                if both.condition != ValueAlgebra.none { result.append(both) }
            }
        }
        guard result.count <= Self.worldLimit else {
            throw reader.failure(.limit, keyword, "over \(Self.worldLimit) combinations of the schemas beside it")
        }
        return result
    }
}
