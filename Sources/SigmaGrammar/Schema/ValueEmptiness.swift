/// Whether a set of values has a member.
enum Emptiness: UInt8 {
    case unknown, inProgress, empty, inhabited
}

/// Emptiness: the least fixed point over the expressions that a value is made of.
extension ValueAlgebra {
    /// Sets inside each other that one proof looks at, and all that it looks at.
    private static let proofDepthLimit = 300
    private static let proofStepLimit = 2_000

    /// True only if it is certain already: a set that is being resolved counts as inhabited, and so does what lies
    /// behind the limits.
    func isProvenEmpty(_ shape: ObjectShape) throws(ConstraintError) -> Bool {
        if shape.min > shape.max { return true }
        for (place, value) in shape.values.enumerated() where shape.required[place] {
            if try isProvenEmpty(value) { return true }
        }
        return false
    }

    func isProvenEmpty(_ shape: ArrayShape) throws(ConstraintError) -> Bool {
        if shape.min > shape.max { return true }
        for value in shape.prefix.prefix(shape.min) {
            if try isProvenEmpty(value) { return true }
        }
        return shape.min > shape.prefix.count ? try isProvenEmpty(shape.rest) : false
    }

    func isProvenEmpty(_ id: ValueID) throws(ConstraintError) -> Bool {
        switch emptiness[Int(id)] {
        case .empty: return true
        case .inhabited, .inProgress: return false
        case .unknown: break
        }
        // A long chain of references would overflow the stack, and branches that meet again would be walked once for
        // each path to them.
        if proofDepth == 0 { proofSteps = 0 }
        guard proofDepth < Self.proofDepthLimit && proofSteps < Self.proofStepLimit else { return false }
        try checkLimits()
        proofSteps += 1
        proofDepth += 1
        defer { proofDepth -= 1 }
        guard let shape = try shapeIfPossible(id) else { return false }
        if isPlainlyInhabited(shape) {
            emptiness[Int(id)] = .inhabited
            return false
        }
        emptiness[Int(id)] = .inProgress
        defer { if emptiness[Int(id)] == .inProgress { emptiness[Int(id)] = .unknown } }
        for array in shape.arrays {
            if try !isProvenEmpty(array) { return false }
        }
        for object in shape.objects {
            if try !isProvenEmpty(object) { return false }
        }
        emptiness[Int(id)] = .empty
        return true
    }

    private func hasScalar(_ shape: ValueShape) -> Bool {
        shape.null || shape.isTrue || shape.isFalse || arena.isLive(shape.strings)
            || arena.isLive(shape.number.plain)
    }

    /// Inhabited whatever its parts are: by a scalar, or by `[]` or `{}`.
    private func isPlainlyInhabited(_ shape: ValueShape) -> Bool {
        shape.arrays.contains { $0.min == 0 && $0.contains.isEmpty }
            || shape.objects.contains { $0.min == 0 && $0.needs.isEmpty && !$0.required.contains(true) }
            || hasScalar(shape)
    }

    /// Exact, once every shape can be had: `id` and what it consists of are settled.
    func isEmpty(_ id: ValueID) throws(ConstraintError) -> Bool {
        if emptiness[Int(id)] == .unknown { try settle(id) }
        return emptiness[Int(id)] == .empty
    }

    /// Marks what is inhabited round by round; what is left when a round finds nothing more is empty.
    private func settle(_ start: ValueID) throws(ConstraintError) {
        // Everything that can decide about `start`.
        var open = [start]
        var seen: Set<ValueID> = [start]
        var next = 0
        while next < open.count {
            let shape = try shape(of: open[next])
            if isPlainlyInhabited(shape) {
                emptiness[Int(open[next])] = .inhabited
            } else {
                for value in try dependencies(of: shape) where emptiness[Int(value)] == .unknown {
                    if seen.insert(value).inserted { open.append(value) }
                }
            }
            next += 1
        }
        var hasChanged = true
        while hasChanged {
            hasChanged = false
            for id in open.reversed() where emptiness[Int(id)] == .unknown {
                let shape = try shape(of: id)
                var isInhabited = false
                for array in shape.arrays where !isInhabited { isInhabited = isInhabitedNow(array) }
                for object in shape.objects where !isInhabited { isInhabited = isInhabitedNow(object) }
                if isInhabited {
                    emptiness[Int(id)] = .inhabited
                    hasChanged = true
                }
            }
        }
        for id in open where emptiness[Int(id)] == .unknown { emptiness[Int(id)] = .empty }
    }

    private func dependencies(of shape: ValueShape) throws(ConstraintError) -> [ValueID] {
        var result: [ValueID] = []
        for array in shape.arrays {
            result += array.prefix
            result.append(array.rest)
            for index in 0...array.distinctPositions {
                for way in ways(of: array, at: index) { result.append(way.value) }
            }
        }
        for object in shape.objects {
            result += object.values
            for region in object.regions {
                result.append(region.value)
                for need in object.needs { result.append(and(region.value, need.value)) }
            }
        }
        return result
    }

    private func isInhabitedNow(_ shape: ObjectShape) -> Bool {
        func isInhabited(_ id: ValueID) -> Bool { emptiness[Int(id)] == .inhabited }
        for (place, value) in shape.values.enumerated() where shape.required[place] && !isInhabited(value) {
            return false
        }
        for need in shape.needs {
            let isMet = shape.regions.contains {
                arena.isLive(arena.and($0.keys, need.keys)) && isInhabited(and($0.value, need.value))
            }
            if !isMet { return false }
        }
        let requiredCount = shape.required.count { $0 } + (shape.needs.isEmpty ? 0 : 1)
        guard requiredCount <= shape.max && shape.min <= shape.max else { return false }
        if shape.min <= requiredCount { return true }
        // Keys of a region are taken for endless: that can only cost a complement, never an instance.
        if shape.regions.contains(where: { isInhabited($0.value) }) { return true }
        return shape.values.count { isInhabited($0) } >= shape.min
    }

    private func isInhabitedNow(_ shape: ArrayShape) -> Bool {
        guard shape.min <= shape.max else { return false }
        // Where that cannot be found out, building the grammar says so.
        return shape.canComplete(from: ArrayProgress(shape)) { index in
            ways(of: shape, at: index).filter { emptiness[Int($0.value)] == .inhabited }
        } ?? true
    }
}
