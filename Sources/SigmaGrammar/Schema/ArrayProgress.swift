/// How far an array has come: items so far, and matches of each `contains`.
struct ArrayProgress: Hashable {
    /// Counted up to where more makes no difference.
    var index: Int
    var counts: [Int]

    init(_ shape: ArrayShape) {
        index = 0
        counts = [Int](repeating: 0, count: shape.contains.count)
    }
}

/// One way to go on: an item of `value` counts for the rules in `mask`.
struct ArrayWay {
    var value: ValueID
    var mask: UInt32
}

extension ValueAlgebra {
    static let containsLimit = 4

    /// The item at `index`, for each set of `contains` rules that it may count for.
    ///
    /// Rules with an upper bound need to know of every match, so an item that doesn't count must not match.
    func ways(of shape: ArrayShape, at index: Int) -> [ArrayWay] {
        let base = shape.value(at: index)
        guard !shape.contains.isEmpty && shape.contains.count <= Self.containsLimit else {
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

    /// The progress behind an item that took `way`; nil if a rule has too many matches.
    func advance(_ progress: ArrayProgress, in shape: ArrayShape, by way: ArrayWay) -> ArrayProgress? {
        var next = progress
        // Up to here the position matters: for the prefix, the fewest and most items, and where rules begin.
        var horizon = max(shape.prefix.count, shape.min, shape.contains.map(\.from).max() ?? 0)
        if shape.max < Int.max { horizon = max(horizon, shape.max) }
        next.index = min(progress.index + 1, horizon)
        for (number, rule) in shape.contains.enumerated() where way.mask >> UInt32(number) & 1 == 1 {
            next.counts[number] += 1
            if rule.max < Int.max {
                if next.counts[number] > rule.max { return nil }
            } else {
                next.counts[number] = min(next.counts[number], rule.min)
            }
        }
        return next
    }

    func canClose(_ progress: ArrayProgress, in shape: ArrayShape) -> Bool {
        progress.index >= shape.min && zip(progress.counts, shape.contains).allSatisfy { $0 >= $1.min }
    }

    func canContinue(_ progress: ArrayProgress, in shape: ArrayShape) -> Bool {
        shape.max == Int.max || progress.index < shape.max
    }

    /// Whether an array that has come this far can be finished.
    func canComplete(
        _ shape: ArrayShape, from start: ArrayProgress, isInhabited: (ValueID) -> Bool
    ) -> Bool {
        // Without `contains` there is nothing to search: the items up to `min` decide.
        if shape.contains.isEmpty {
            if start.index >= shape.min { return true }
            for index in start.index..<min(shape.min, shape.prefix.count + 1)
            where !isInhabited(shape.value(at: index)) {
                return false
            }
            return true
        }
        var open = [start]
        var seen: Set<ArrayProgress> = [start]
        while let progress = open.popLast() {
            if canClose(progress, in: shape) { return true }
            guard canContinue(progress, in: shape), seen.count < 10_000 else { continue }
            // Matching as much as possible is tried first.
            for way in ways(of: shape, at: progress.index) where isInhabited(way.value) {
                guard let next = advance(progress, in: shape, by: way) else { continue }
                if seen.insert(next).inserted { open.append(next) }
            }
        }
        return false
    }
}
