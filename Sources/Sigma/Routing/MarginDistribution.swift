import SystemLibrary

/// The distribution of a quantity from 0 on, in fixed memory: mean and extremes exactly, quantiles to 0.6 %.
package struct MarginDistribution: Sendable {
    /// Below it rounding may decide which expert is chosen.
    package static let undecided = 1e-5

    private static let binsPerOctave = 64.0
    private static let leastExponent = -30.0
    private static let binCount = 34 * 64
    package private(set) var count = 0
    package private(set) var undecidedCount = 0
    package private(set) var least = Double.infinity
    package private(set) var most = -Double.infinity
    private var sum = 0.0
    /// Values of 2^-30 to 2^4 by their logarithm; what is beyond is in the first and the last.
    private var bins = [Int](repeating: 0, count: binCount)

    package init() {}

    /// Adds a value; one that is not a number counts as 0: nothing was decided.
    package mutating func add(_ value: Double) {
        let value = value.isNaN ? 0 : value
        count += 1
        sum += value
        least = min(least, value)
        most = max(most, value)
        if value <= Self.undecided { undecidedCount += 1 }
        let bin = (log2(value) - Self.leastExponent) * Self.binsPerOctave
        bins[Int(min(max(bin, 0), Double(Self.binCount - 1)))] += 1
    }

    package var mean: Double { count > 0 ? sum / Double(count) : .nan }

    /// The value that a share of `share` does not exceed.
    package func quantile(_ share: Double) -> Double {
        guard count > 0 else { return .nan }
        let rank = max(1, Int((share * Double(count)).rounded(.up)))
        var seen = 0
        for (bin, number) in bins.enumerated() {
            seen += number
            if seen >= rank {
                let middle = exp2((Double(bin) + 0.5) / Self.binsPerOctave + Self.leastExponent)
                return min(max(middle, least), most)
            }
        }
        return most
    }
}
