/// How many characters of a kind a string's expression takes whatever they are.
extension RegexArena {
    private static let stateLimit = 64

    /// At least so many characters of the kind, in any order, lead to something live; `Int32.max` for no bound.
    mutating func capacity(of id: RegexID, for kind: CharacterKind) -> Int32 {
        if id == Self.anything || isCofinite(id) { return .max }
        switch nodes[Int(id)] {
        case .repeat(Self.anyScalar, _, let max): return max
        case .concat(let head, _):
            // What follows is live, so any stay inside the head can be finished.
            if case .repeat(Self.anyScalar, _, let max) = nodes[Int(head)], isPlain(id) { return max }
        default: break
        }
        return explore(id, kind)
    }

    /// All texts but finitely many: any text can be finished.
    private func isCofinite(_ id: RegexID) -> Bool {
        switch nodes[Int(id)] {
        case .not(let inner): isFinite(inner)
        case .and(let parts): parts.allSatisfy { isCofinite($0) }
        default: id == Self.anything
        }
    }

    private func isFinite(_ id: RegexID) -> Bool {
        var open = [id]
        var visits = 0
        while let next = open.popLast() {
            visits += 1
            if visits > 2_000 { return false }
            switch nodes[Int(next)] {
            case .empty, .epsilon, .set: break
            case .concat(let a, let b): open += [a, b]
            case .or(let parts): open += parts
            case .repeat(let a, _, let max):
                if max == Self.unbounded { return false }
                open.append(a)
            default: return false
            }
        }
        return true
    }

    /// Takes all characters of the kind at once, from the set of states that as many characters can lead to.
    private mutating func explore(_ id: RegexID, _ kind: CharacterKind) -> Int32 {
        let ranges = kind.ranges
        var seen: Set<RegexID> = [id]
        var level = [id]
        var depth: Int32 = 0
        while !level.isEmpty {
            var next: [RegexID] = []
            for state in level {
                let entries = partition(of: state)
                for (low, high) in ranges {
                    var index = Self.entry(entries, at: low)
                    while true {
                        let target = entries[index].target
                        if target == Self.empty || !isLive(target) { return depth }
                        if seen.insert(target).inserted { next.append(target) }
                        if entries[index].high >= high { break }
                        index += 1
                    }
                }
            }
            depth += 1
            if seen.count > Self.stateLimit { return depth }
            level = next
        }
        return .max
    }
}
