/// Evicts what was used longest ago.
package struct LeastRecentlyUsed: EvictionPolicy {
    private var order: RecordLists

    package init(recordCount: Int) { order = RecordLists(recordCount: recordCount, listCount: 1) }

    package var count: Int { order.counts[0] }

    package mutating func add(_ record: Record, after use: RecordUse) {
        if use == .passed { order.prepend(record, to: 0) } else { order.append(record, to: 0) }
    }

    package mutating func remove(_ record: Record) { order.remove(record) }
    package mutating func removeVictim() -> Record? { order.removeFirst(0) }
}
