/// How many plain characters a string's expression takes whatever they are.
extension RegexArena {
    /// Plain: everything but `"`, `\` and control characters.
    private static let plainRanges: [(UInt32, UInt32)] = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0x10FFFF)]
    private static let closureLimit = 24

    /// At least so many characters in any order lead to something live; `Int32.max` for no bound.
    mutating func plainCapacity(_ id: RegexID) -> Int32 {
        if id == Self.anything || isCofinite(id) || isClosedOverPlain(id) { return .max }
        switch nodes[Int(id)] {
        case .repeat(Self.anyScalar, _, let max): return max
        case .concat(let head, _):
            // What follows is live, so any stay inside the head can be finished.
            if case .repeat(Self.anyScalar, _, let max) = nodes[Int(head)], isPlain(id) { return max }
            return 0
        case .or(let parts): return parts.map { plainCapacity($0) }.max() ?? 0
        default: return 0
        }
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

    private mutating func isClosedOverPlain(_ id: RegexID) -> Bool {
        var seen: [RegexID] = [id]
        var next = 0
        while next < seen.count {
            let entries = partition(of: seen[next])
            next += 1
            for (low, high) in Self.plainRanges {
                var index = Self.entry(entries, at: low)
                while true {
                    let target = entries[index].target
                    if target == Self.empty || !isLive(target) { return false }
                    if !seen.contains(target) {
                        if seen.count == Self.closureLimit { return false }
                        seen.append(target)
                    }
                    if entries[index].high >= high { break }
                    index += 1
                }
            }
        }
        return true
    }
}
