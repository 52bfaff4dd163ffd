import SigmaBase

/// Union, intersection and complement of shapes.
extension ValueAlgebra {
    func union(_ a: ValueShape, _ b: ValueShape) throws(ConstraintError) -> ValueShape {
        var result = a
        result.null = a.null || b.null
        result.isFalse = a.isFalse || b.isFalse
        result.isTrue = a.isTrue || b.isTrue
        result.number = arena.or(a.number, b.number)
        result.listed = arena.or(a.listed, b.listed)
        result.text = arena.or(a.text, b.text)
        result.strings = arena.or(a.strings, b.strings)
        result.arrays = unique(a.arrays, b.arrays)
        result.objects = unique(a.objects, b.objects)
        try checkAlternatives(result.arrays.count + result.objects.count)
        return result
    }

    private func unique<Shape: Hashable>(_ a: [Shape], _ b: [Shape]) -> [Shape] {
        if a.isEmpty { return b }
        var seen = Set(a)
        return a + b.filter { seen.insert($0).inserted }
    }

    func intersection(_ a: ValueShape, _ b: ValueShape) throws(ConstraintError) -> ValueShape {
        try checkLimits()
        var result = ValueShape()
        result.null = a.null && b.null
        result.isFalse = a.isFalse && b.isFalse
        result.isTrue = a.isTrue && b.isTrue
        result.number = arena.and(a.number, b.number)
        let first = arena.or(arena.and(a.listed, b.listed), arena.and(a.listed, b.text))
        result.listed = arena.or(first, arena.and(a.text, b.listed))
        result.text = arena.and(a.text, b.text)
        result.strings = arena.and(a.strings, b.strings)
        for first in a.arrays {
            for second in b.arrays {
                try checkLimits()
                let both = try intersection(first, second)
                if try !isProvenEmpty(both) { result.arrays.append(both) }
            }
            try checkAlternatives(result.arrays.count)
        }
        for first in a.objects {
            for second in b.objects {
                try checkLimits()
                for both in try intersection(first, second) {
                    if try !isProvenEmpty(both) { result.objects.append(both) }
                }
            }
            try checkAlternatives(result.objects.count)
        }
        result.arrays = unique([], result.arrays)
        result.objects = unique([], result.objects)
        return result
    }

    func complement(_ a: ValueShape) throws(ConstraintError) -> ValueShape {
        var result = ValueShape()
        result.null = !a.null
        result.isFalse = !a.isFalse
        result.isTrue = !a.isTrue
        result.number = arena.not(a.number)
        result.text = arena.not(a.strings)
        result.strings = arena.not(arena.or(a.listed, a.text))
        var others = anything()
        others.null = false
        others.number = .none
        for shape in a.arrays {
            let outside = ValueShape(arrays: try complement(shape))
            others.arrays = try intersection(ValueShape(arrays: others.arrays), outside).arrays
        }
        for shape in a.objects {
            let outside = ValueShape(objects: complement(shape))
            others.objects = try intersection(ValueShape(objects: others.objects), outside).objects
        }
        result.arrays = others.arrays
        result.objects = others.objects
        return result
    }

    // MARK: Arrays

    private func intersection(_ a: ArrayShape, _ b: ArrayShape) throws(ConstraintError) -> ArrayShape {
        var result = ArrayShape(rest: and(a.rest, b.rest))
        for index in 0..<max(a.prefix.count, b.prefix.count) {
            result.prefix.append(and(a.value(at: index), b.value(at: index)))
        }
        result.min = max(a.min, b.min)
        result.max = min(a.max, b.max)
        result.contains = unique(a.contains, b.contains)
        result.uniqueSchema = max(a.uniqueSchema, b.uniqueSchema)
        return result
    }

    private func complement(_ a: ArrayShape) throws(ConstraintError) -> [ArrayShape] {
        if a.uniqueSchema >= 0 {
            throw ConstraintError(
                .unsupported, pointer: document.schemas[Int(a.uniqueSchema)].pointer, keyword: "uniqueItems",
                "the opposite of uniqueItems is not supported")
        }
        var result: [ArrayShape] = []
        for (index, value) in a.prefix.enumerated() where value != Self.any {
            let others = [ValueID](repeating: Self.any, count: index)
            result.append(ArrayShape(prefix: others + [not(value)], rest: Self.any, min: index + 1))
        }
        if a.rest != Self.any {
            let outside = ArrayShape.Contains(value: not(a.rest), from: a.prefix.count)
            result.append(ArrayShape(rest: Self.any, contains: [outside]))
        }
        if a.min > 0 { result.append(ArrayShape(rest: Self.any, max: a.min - 1)) }
        if a.max < Int.max { result.append(ArrayShape(rest: Self.any, min: a.max + 1)) }
        for rule in a.contains {
            if rule.min > 0 {
                let fewer = ArrayShape.Contains(value: rule.value, from: rule.from, min: 0, max: rule.min - 1)
                result.append(ArrayShape(rest: Self.any, contains: [fewer]))
            }
            if rule.max < Int.max {
                let more = ArrayShape.Contains(value: rule.value, from: rule.from, min: rule.max + 1)
                result.append(ArrayShape(rest: Self.any, contains: [more]))
            }
        }
        return result
    }

    // MARK: Objects

    /// What a shape says about the member `name`.
    func value(of name: ByteKey, in shape: ObjectShape, place: Int?) -> ValueID {
        if let place { return shape.values[place] }
        for region in shape.regions where region.keys == RegexArena.anything || arena.matches(region.keys, name.text) {
            return region.value
        }
        return Self.none
    }

    /// Several shapes only where a need may be met by a named member.
    private func intersection(_ a: ObjectShape, _ b: ObjectShape) throws(ConstraintError) -> [ObjectShape] {
        var result = ObjectShape()
        var placesInB: [ByteKey: Int] = [:]
        for (place, name) in b.names.enumerated() { placesInB[name] = place }
        for (place, name) in a.names.enumerated() {
            let other = placesInB.removeValue(forKey: name)
            result.names.append(name)
            result.values.append(and(a.values[place], value(of: name, in: b, place: other)))
            result.required.append(a.required[place] || (other.map { b.required[$0] } ?? false))
        }
        for (place, name) in b.names.enumerated() where placesInB[name] != nil {
            result.names.append(name)
            result.values.append(and(value(of: name, in: a, place: nil), b.values[place]))
            result.required.append(b.required[place])
        }
        for first in a.regions {
            for second in b.regions {
                let value = and(first.value, second.value)
                let keys = arena.and(first.keys, second.keys)
                if value != Self.none && arena.isLive(keys) { result.regions.append(.init(keys: keys, value: value)) }
            }
        }
        result.regions = merged(result.regions)
        result.min = max(a.min, b.min)
        result.max = min(a.max, b.max)
        result.needs = unique(a.needs, b.needs)
        return result.needs.isEmpty ? [result] : try expandingNeeds(of: result)
    }

    /// Regions with the same value are one.
    func merged(_ regions: [ObjectShape.Region]) -> [ObjectShape.Region] {
        var result: [ObjectShape.Region] = []
        for region in regions {
            if let place = result.firstIndex(where: { $0.value == region.value }) {
                result[place].keys = arena.or(result[place].keys, region.keys)
            } else {
                result.append(region)
            }
        }
        return result
    }

    /// A need is met by a named member whose name it covers, or by another member: one shape for each way.
    private func expandingNeeds(of shape: ObjectShape) throws(ConstraintError) -> [ObjectShape] {
        var open = shape
        open.needs = []
        var results = [open]
        for need in shape.needs {
            var next: [ObjectShape] = []
            for result in results {
                for (place, name) in result.names.enumerated() where arena.matches(need.keys, name.text) {
                    var named = result
                    named.values[place] = and(result.values[place], need.value)
                    named.required[place] = true
                    next.append(named)
                }
                var free = result
                var keys = need.keys
                if !result.names.isEmpty { keys = arena.and(keys, arena.not(arena.literals(result.names.map(\.text)))) }
                if arena.isLive(keys) {
                    free.needs.append(.init(keys: keys, value: need.value))
                    next.append(free)
                }
            }
            results = next
            try checkAlternatives(results.count)
        }
        return results
    }

    private func complement(_ a: ObjectShape) -> [ObjectShape] {
        var result: [ObjectShape] = []
        func with(_ change: (inout ObjectShape) -> Void) {
            var shape = anyObject
            change(&shape)
            result.append(shape)
        }
        for (place, name) in a.names.enumerated() {
            if a.values[place] != Self.any {
                let outside = not(a.values[place])
                with {
                    $0.names = [name]
                    $0.values = [outside]
                    $0.required = [true]
                }
            }
            if a.required[place] {
                with {
                    $0.names = [name]
                    $0.values = [Self.none]
                    $0.required = [false]
                }
            }
        }
        let unnamed = arena.not(arena.literals(a.names.map(\.text)))
        var covered = RegexArena.empty
        for region in a.regions {
            covered = arena.or(covered, region.keys)
            if region.value != Self.any {
                let need = ObjectShape.Region(keys: arena.and(region.keys, unnamed), value: not(region.value))
                with { $0.needs = [need] }
            }
        }
        let uncovered = arena.and(arena.not(covered), unnamed)
        if arena.isLive(uncovered) { with { $0.needs = [.init(keys: uncovered, value: Self.any)] } }
        if a.min > 0 { with { $0.max = a.min - 1 } }
        if a.max < Int.max { with { $0.min = a.max + 1 } }
        for need in a.needs {
            let outside = arena.not(need.keys)
            with {
                $0.regions = [.init(keys: need.keys, value: not(need.value)), .init(keys: outside, value: Self.any)]
            }
        }
        return result
    }
}
