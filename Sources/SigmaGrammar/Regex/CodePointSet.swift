/// A set of Unicode scalars: sorted, disjoint, closed ranges that don't touch.
package struct CodePointSet: Hashable, Sendable {
    package struct Range: Hashable, Sendable {
        package var low: UInt32
        package var high: UInt32
    }

    package private(set) var ranges: [Range]

    package static let last: UInt32 = 0x10FFFF
    package static let empty = CodePointSet(ranges: [])
    /// Every code point. Surrogates are in it for arithmetic only: no text spells one.
    package static let all = CodePointSet(ranges: [Range(low: 0, high: last)])

    private init(ranges: [Range]) { self.ranges = ranges }

    /// The union of closed ranges in any order.
    package init(_ pieces: [(UInt32, UInt32)]) {
        let sorted = pieces.filter { $0.0 <= $0.1 }.sorted { $0.0 < $1.0 }
        var merged: [Range] = []
        merged.reserveCapacity(sorted.count)
        for (low, high) in sorted {
            if let end = merged.last?.high, low <= end &+ 1 {
                merged[merged.count - 1].high = max(end, high)
            } else {
                merged.append(Range(low: low, high: high))
            }
        }
        ranges = merged
    }

    package init(_ scalar: UInt32) { ranges = [Range(low: scalar, high: scalar)] }

    package init(_ scalars: String) { self.init(scalars.unicodeScalars.map { ($0.value, $0.value) }) }

    package var isEmpty: Bool { ranges.isEmpty }

    package func contains(_ scalar: UInt32) -> Bool {
        ranges.contains { $0.low <= scalar && scalar <= $0.high }
    }

    package func union(_ other: CodePointSet) -> CodePointSet {
        CodePointSet((ranges + other.ranges).map { ($0.low, $0.high) })
    }

    package var complement: CodePointSet {
        var result: [Range] = []
        var next: UInt32 = 0
        for range in ranges {
            if range.low > next { result.append(Range(low: next, high: range.low - 1)) }
            next = range.high + 1
        }
        if next <= Self.last { result.append(Range(low: next, high: Self.last)) }
        return CodePointSet(ranges: result)
    }

    package func intersection(_ other: CodePointSet) -> CodePointSet {
        complement.union(other.complement).complement
    }
}
