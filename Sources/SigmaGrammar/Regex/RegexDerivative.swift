/// The code points up to `high` that no earlier entry holds have the derivative `target`.
struct PartitionEntry {
    var high: UInt32
    var target: RegexID
}

extension RegexArena {
    /// The expression's derivatives by all code points: entries in order, the last one ends at U+10FFFF.
    mutating func partition(of id: RegexID) -> [PartitionEntry] {
        if let known = partitions[Int(id)] { return known }
        watchClock()
        // Nobody uses what a compilation that has taken too long still makes.
        if isOutOfTime { return [PartitionEntry(high: CodePointSet.last, target: Self.empty)] }
        // A chain of optional parts is as long as its text: what stands behind them comes first, without a call for each.
        var tails: [RegexID] = []
        var rest = id
        while case .concat(let head, let tail) = nodes[Int(rest)], isNullable(head), partitions[Int(tail)] == nil {
            tails.append(tail)
            rest = tail
        }
        for tail in tails.reversed() where partitions[Int(tail)] == nil && !isOutOfTime {
            watchClock()
            partitions[Int(tail)] = computePartition(tail)
        }
        let computed = computePartition(id)
        partitions[Int(id)] = computed
        return computed
    }

    package mutating func derivative(of id: RegexID, by scalar: UInt32) -> RegexID {
        let entries = partition(of: id)
        return entries[RegexArena.entry(entries, at: scalar)].target
    }

    /// The index of the entry that holds `scalar`.
    @inline(__always)
    static func entry(_ entries: [PartitionEntry], at scalar: UInt32) -> Int {
        var low = 0
        var high = entries.count - 1
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].high < scalar { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Whether the whole text is in the language.
    package mutating func matches(_ id: RegexID, _ text: String) -> Bool {
        var state = id
        for scalar in text.unicodeScalars {
            state = derivative(of: state, by: scalar.value)
            if state == Self.empty { return false }
        }
        return isNullable(state)
    }

    private mutating func computePartition(_ id: RegexID) -> [PartitionEntry] {
        switch nodes[Int(id)] {
        case .empty, .epsilon:
            return [PartitionEntry(high: CodePointSet.last, target: Self.empty)]
        case .set(let scalars):
            return Self.partition(of: scalars, inside: Self.epsilon)
        case .concat(let a, let b):
            let heads = append(b, to: partition(of: a))
            guard isNullable(a) else { return heads }
            return merge([heads, partition(of: b)]) { $0.or($1) }
        case .or(let list):
            let lists = list.map { partition(of: $0) }
            return merge(lists) { $0.or($1) }
        case .and(let list):
            let lists = list.map { partition(of: $0) }
            return merge(lists) { $0.and($1) }
        case .not(let a):
            let inner = partition(of: a)
            return Self.coalesced(inner.map { PartitionEntry(high: $0.high, target: not($0.target)) })
        case .repeat(let a, let min, let max):
            let rest = self.repeat(
                a, min: Swift.max(0, min - 1), max: max == Self.unbounded ? max : max - 1)
            return append(rest, to: partition(of: a))
        case .magnitude(let state):
            return arithmetic { digit in state.advanced(digit).map { .magnitude($0) } }
        case .multiple(let state):
            return arithmetic { digit in state.advanced(digit).map { .multiple($0) } }
        }
    }

    private static func partition(of scalars: CodePointSet, inside: RegexID) -> [PartitionEntry] {
        var entries: [PartitionEntry] = []
        entries.reserveCapacity(2 * scalars.ranges.count + 1)
        for range in scalars.ranges {
            if range.low > 0 && (entries.last.map { $0.high + 1 < range.low } ?? true) {
                entries.append(PartitionEntry(high: range.low - 1, target: empty))
            }
            entries.append(PartitionEntry(high: range.high, target: inside))
        }
        if entries.last?.high != CodePointSet.last {
            entries.append(PartitionEntry(high: CodePointSet.last, target: empty))
        }
        return entries
    }

    private mutating func append(_ tail: RegexID, to entries: [PartitionEntry]) -> [PartitionEntry] {
        var result = entries
        for index in result.indices { result[index].target = concat(result[index].target, tail) }
        return Self.coalesced(result)
    }

    private static func coalesced(_ entries: [PartitionEntry]) -> [PartitionEntry] {
        var result: [PartitionEntry] = []
        result.reserveCapacity(entries.count)
        for entry in entries {
            if let target = result.last?.target, target == entry.target {
                result[result.count - 1].high = entry.high
            } else {
                result.append(entry)
            }
        }
        return result
    }

    private mutating func merge(
        _ lists: [[PartitionEntry]], _ combine: (inout RegexArena, [RegexID]) -> RegexID
    ) -> [PartitionEntry] {
        var positions = [Int](repeating: 0, count: lists.count)
        var targets = [RegexID](repeating: 0, count: lists.count)
        var result: [PartitionEntry] = []
        while true {
            var high = CodePointSet.last
            for index in lists.indices {
                let entry = lists[index][positions[index]]
                high = Swift.min(high, entry.high)
                targets[index] = entry.target
            }
            let target = combine(&self, targets)
            combinations += targets.count
            if result.count & 255 == 255 { watchClock() }
            if let last = result.last?.target, last == target {
                result[result.count - 1].high = high
            } else {
                result.append(PartitionEntry(high: high, target: target))
            }
            if high == CodePointSet.last { return result }
            for index in lists.indices where lists[index][positions[index]].high == high { positions[index] += 1 }
        }
    }

    /// Derivatives that differ for the ten digits and the decimal point.
    private mutating func arithmetic(_ advance: (NumberCharacter) -> RegexNode?) -> [PartitionEntry] {
        var entries = [PartitionEntry(high: 0x2D, target: Self.empty)]
        func number(_ node: RegexNode?, _ arena: inout RegexArena) -> RegexID {
            switch node {
            case .magnitude(let state): arena.magnitude(state)
            case .multiple(let state): arena.multiple(state)
            default: Self.empty
            }
        }
        entries.append(PartitionEntry(high: 0x2E, target: number(advance(.point), &self)))
        entries.append(PartitionEntry(high: 0x2F, target: Self.empty))
        for digit in UInt8(0)...9 {
            entries.append(
                PartitionEntry(high: 0x30 + UInt32(digit), target: number(advance(.digit(digit)), &self)))
        }
        entries.append(PartitionEntry(high: CodePointSet.last, target: Self.empty))
        return Self.coalesced(entries)
    }
}
