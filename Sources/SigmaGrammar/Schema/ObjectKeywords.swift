import SigmaBase

/// Reads the keywords of objects.
struct ObjectKeywords {
    let own: OwnKeywords

    private var algebra: ValueAlgebra { own.algebra }

    func shapes() throws(ConstraintError) -> [ObjectShape] {
        var shape = ObjectShape()
        let properties = try members("properties")
        let patterns = try members("patternProperties")
        var expressions: [(keys: RegexID, value: ValueID)] = []
        for (pattern, value) in patterns {
            expressions.append((try own.search(pattern, "patternProperties"), value))
        }
        let rest = try additional()
        for (name, value) in properties {
            var parts = [value]
            for (keys, more) in expressions where algebra.arena.matches(keys, name) { parts.append(more) }
            shape.names.append(ByteKey(text: name))
            shape.values.append(algebra.and(parts))
        }
        shape.regions = try regions(expressions, rest: rest)
        shape.required = [Bool](repeating: false, count: shape.names.count)
        try require(in: &shape)
        shape.min = try own.count("minProperties") ?? 0
        if let most = try own.count("maxProperties"), most < 1 << 30 { shape.max = most }
        guard let value = own.object["propertyNames"] else { return [shape] }
        let names = algebra.schema(try algebra.document.child(of: own.id, value, "propertyNames"))
        return try restrict(shape, to: names)
    }

    private func members(_ keyword: String) throws(ConstraintError) -> [(String, ValueID)] {
        guard let value = own.object[keyword] else { return [] }
        guard let members = value.object else {
            throw own.failure(.invalid, keyword, "an object expected, found \(value.kind)")
        }
        var result: [(String, ValueID)] = []
        result.reserveCapacity(members.count)
        for (name, member) in zip(members.keys, members.values) {
            // Draft 3 and careless authors put annotations among the properties; a schema it must be.
            result.append((name, algebra.schema(try algebra.document.child(of: own.id, member, keyword, name))))
        }
        return result
    }

    private func additional() throws(ConstraintError) -> ValueID {
        guard let value = own.object["additionalProperties"] else { return ValueAlgebra.any }
        return algebra.schema(try algebra.document.child(of: own.id, value, "additionalProperties"))
    }

    /// The keys by the patterns that they match: disjoint regions.
    private func regions(
        _ expressions: [(keys: RegexID, value: ValueID)], rest: ValueID
    ) throws(ConstraintError) -> [ObjectShape.Region] {
        var open: [(keys: RegexID, values: [ValueID])] = [(RegexArena.anything, [])]
        for (keys, value) in expressions {
            try algebra.checkLimits()
            var next: [(keys: RegexID, values: [ValueID])] = []
            for region in open {
                let inside = algebra.arena.and(region.keys, keys)
                if algebra.arena.isLive(inside) { next.append((inside, region.values + [value])) }
                let outside = algebra.arena.and(region.keys, algebra.arena.not(keys))
                if algebra.arena.isLive(outside) { next.append((outside, region.values)) }
            }
            open = next
            try algebra.checkAlternatives(open.count)
        }
        var result: [ObjectShape.Region] = []
        for region in open {
            let value = region.values.isEmpty ? rest : algebra.and(region.values)
            if value != ValueAlgebra.none { result.append(.init(keys: region.keys, value: value)) }
        }
        return algebra.merged(result)
    }

    private func require(in shape: inout ObjectShape) throws(ConstraintError) {
        // Draft 3 wrote `required: true` at the property itself; drafts 4 and later ignore that.
        guard let value = own.object["required"], value.bool == nil || own.draft == .modern else { return }
        guard let names = value.array else { throw own.failure(.invalid, "required", "a list of names expected") }
        var places: [ByteKey: Int] = [:]
        for (place, name) in shape.names.enumerated() { places[name] = place }
        for name in names {
            guard let text = name.string else { throw own.failure(.invalid, "required", "names expected") }
            let key = ByteKey(text: text)
            if let place = places[key] {
                shape.required[place] = true
                continue
            }
            let value = algebra.value(of: key, in: shape, place: nil)
            places[key] = shape.names.count
            shape.names.append(key)
            shape.values.append(value)
            shape.required.append(true)
        }
    }

    private func restrict(_ shape: ObjectShape, to names: ValueID) throws(ConstraintError) -> [ObjectShape] {
        let strings = try algebra.shape(of: names)
        let allowed = algebra.arena.or(strings.listed, strings.text)
        // Regions are complemented later on, so they must be exact.
        if algebra.arena.isLive(algebra.arena.and(strings.strings, algebra.arena.not(allowed))) {
            throw own.failure(.unsupported, "propertyNames", "names of a format that is only written in part")
        }
        let limit = ObjectShape(regions: [.init(keys: allowed, value: ValueAlgebra.any)])
        return try algebra.intersection(ValueShape(objects: [shape]), ValueShape(objects: [limit])).objects
    }
}
