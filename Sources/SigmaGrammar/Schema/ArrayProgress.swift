/// How far an array has come: items so far, and matches of each `contains`.
struct ArrayProgress: Hashable {
    /// Counted up to where more makes no difference.
    var index = 0
    var counts: [Int]

    init(_ shape: ArrayShape) { counts = [Int](repeating: 0, count: shape.contains.count) }
}

/// One way to go on: an item of `value` counts for the rules in `mask`.
struct ArrayWay: Hashable {
    var value: ValueID
    var mask: UInt32
}

extension ArrayShape {
    /// Rules of `contains` that one array may have.
    static let containsLimit = 4
    private static let searchLimit = 10_000

    /// Positions up to here differ in what an item may be.
    var distinctPositions: Int { Swift.max(prefix.count, contains.map(\.from).max() ?? 0) }

    /// The progress after an item that took `way`; nil if a rule has too many matches.
    func advance(_ progress: ArrayProgress, by way: ArrayWay) -> ArrayProgress? {
        var next = progress
        var horizon = Swift.max(distinctPositions, min)
        if max < Int.max { horizon = Swift.max(horizon, max) }
        next.index = Swift.min(progress.index + 1, horizon)
        for (number, rule) in contains.enumerated() where way.mask >> UInt32(number) & 1 == 1 {
            next.counts[number] += 1
            if rule.max < Int.max {
                if next.counts[number] > rule.max { return nil }
            } else {
                next.counts[number] = Swift.min(next.counts[number], rule.min)
            }
        }
        return next
    }

    func canClose(_ progress: ArrayProgress) -> Bool {
        progress.index >= min && zip(progress.counts, contains).allSatisfy { $0 >= $1.min }
    }

    func canContinue(_ progress: ArrayProgress) -> Bool { max == Int.max || progress.index < max }

    /// Whether an array that has come this far can be finished; nil: there are too many counts to find out. `ways` gives a position's possible
    /// items.
    func canComplete(from start: ArrayProgress, ways: (Int) -> [ArrayWay]) -> Bool? {
        // Without `contains` there is nothing to search: the items up to `min` decide.
        if contains.isEmpty {
            if start.index >= min { return true }
            return (start.index..<Swift.min(min, Swift.max(prefix.count, start.index) + 1)).allSatisfy {
                !ways($0).isEmpty
            }
        }
        var open = [start]
        var seen: Set<ArrayProgress> = [start]
        var isCutShort = false
        while let progress = open.popLast() {
            if canClose(progress) { return true }
            guard canContinue(progress) else { continue }
            guard seen.count < Self.searchLimit else {
                isCutShort = true
                continue
            }
            // The way that matches most is tried first.
            for way in ways(progress.index) {
                guard let next = advance(progress, by: way) else { continue }
                if seen.insert(next).inserted { open.append(next) }
            }
        }
        return isCutShort ? nil : false
    }
}

extension ValueAlgebra {
    /// The item at `index`, for each set of `contains` rules that it may count for.
    ///
    /// Rules with an upper bound need to know of every match, so an item that doesn't count must not match.
    func ways(of shape: ArrayShape, at index: Int) -> [ArrayWay] {
        let base = shape.value(at: index)
        guard !shape.contains.isEmpty && shape.contains.count <= ArrayShape.containsLimit else {
            return [ArrayWay(value: base, mask: 0)]
        }
        var result: [ArrayWay] = []
        for mask in 0..<UInt32(1) << UInt32(shape.contains.count) {
            var parts = [base]
            var isPossible = true
            for (number, rule) in shape.contains.enumerated() {
                let counts = mask >> UInt32(number) & 1 == 1
                if index < rule.from {
                    isPossible = isPossible && !counts
                } else if counts {
                    parts.append(rule.value)
                } else if rule.max < Int.max {
                    parts.append(not(rule.value))
                }
            }
            if isPossible { result.append(ArrayWay(value: and(parts), mask: mask)) }
        }
        return result
    }
}
