/// Some of the first 64 rows of a step.
package struct RowSet: Equatable, Sendable, BitwiseCopyable {
    package static let capacity = 64
    private var bits: UInt64 = 0

    package init() {}

    package mutating func insert(_ row: Int) {
        precondition((0..<Self.capacity).contains(row))
        bits |= 1 << UInt64(row)
    }

    package func intersects(_ other: RowSet) -> Bool { bits & other.bits != 0 }
}
