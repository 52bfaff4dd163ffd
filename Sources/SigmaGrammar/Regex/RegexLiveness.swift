/// Whether an expression's language has a text at all.
enum Liveness: UInt8 {
    case unknown, live, dead
}

extension RegexArena {
    /// Derivatives that one search may look at. A search that needs more answers "live" and notes it as a guess.
    static let searchLimit = 20_000

    /// Whether some text matches. Expressions without intersection and complement show it at once; others are searched
    /// for a derivative that accepts, and what the search learned is kept.
    package mutating func isLive(_ id: RegexID) -> Bool {
        if isPlain(id) || isNullable(id) { return id != Self.empty }
        switch liveness[Int(id)] {
        case .live: return true
        case .dead: return false
        case .unknown: return searchForAcceptance(from: id)
        }
    }

    /// Whether some scalar in the closed range has a live derivative.
    mutating func isLive(_ id: RegexID, low: UInt32, high: UInt32) -> Bool {
        let entries = partition(of: id)
        var index = Self.entry(entries, at: low)
        while true {
            if entries[index].target != Self.empty && isLive(entries[index].target) { return true }
            if entries[index].high >= high { return false }
            index += 1
        }
    }

    private mutating func searchForAcceptance(from start: RegexID) -> Bool {
        struct Visit {
            var id: RegexID
            var targets: [RegexID]
            var next = 0
        }
        var seen: Set<RegexID> = [start]
        var path = [Visit(id: start, targets: targets(of: start))]
        while let visit = path.last {
            // An answer next door is taken before anything is searched.
            let isFound = visit.next == 0 && visit.targets.contains { knownLiveness($0) == .live }
            let isGuess = !isFound && (seen.count > Self.searchLimit || isOutOfTime)
            if isFound || isGuess {
                guessedLiveness = guessedLiveness || isGuess
                for step in path { liveness[Int(step.id)] = .live }
                return true
            }
            guard visit.next < visit.targets.count else {
                path.removeLast()
                continue
            }
            path[path.count - 1].next += 1
            let target = visit.targets[visit.next]
            guard knownLiveness(target) == .unknown && seen.insert(target).inserted else { continue }
            path.append(Visit(id: target, targets: targets(of: target)))
        }
        // Nothing reachable accepts, so everything that was reached is dead.
        for id in seen { liveness[Int(id)] = .dead }
        return false
    }

    private func knownLiveness(_ id: RegexID) -> Liveness {
        if isPlain(id) || isNullable(id) { return id == Self.empty ? .dead : .live }
        return liveness[Int(id)]
    }

    private mutating func targets(of id: RegexID) -> [RegexID] {
        var result: [RegexID] = []
        for entry in partition(of: id) where entry.target != Self.empty && !result.contains(entry.target) {
            result.append(entry.target)
        }
        return result
    }
}
