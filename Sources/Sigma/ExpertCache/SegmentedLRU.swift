/// Two LRU orders: what was used once, and what was used again. The second holds at most four fifths; what it loses begins anew in the first.
/// A stream of records that are used once does not displace those that come back.
package struct SegmentedLRU: EvictionPolicy {
    private var order: RecordLists
    private let protectedLimit: Int
    private static let probation = 0
    private static let protected = 1

    package init(recordCount: Int, capacity: Int) {
        order = RecordLists(recordCount: recordCount, listCount: 2)
        protectedLimit = capacity * 4 / 5
    }

    package var count: Int { order.counts[Self.probation] + order.counts[Self.protected] }

    package mutating func add(_ record: Record, after use: RecordUse) {
        switch use {
        case .passed: order.prepend(record, to: Self.probation)
        case .missed: order.append(record, to: Self.probation)
        case .hit:
            order.append(record, to: Self.protected)
            if order.counts[Self.protected] > protectedLimit, let oldest = order.removeFirst(Self.protected) {
                order.append(oldest, to: Self.probation)
            }
        }
    }

    package mutating func remove(_ record: Record) { order.remove(record) }
    package mutating func removeVictim() -> Record? {
        order.removeFirst(Self.probation) ?? order.removeFirst(Self.protected)
    }
}
