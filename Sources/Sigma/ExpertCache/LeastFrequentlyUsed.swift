/// Evicts what was used least often; among equals, what was used longest ago. Uses are counted over the whole run, up to a limit, also while a
/// record is not in the cache.
package struct LeastFrequentlyUsed: EvictionPolicy {
    private var order: RecordLists
    private var uses: TypedArray<Record, UInt8>
    package private(set) var count = 0

    package init(recordCount: Int) {
        order = RecordLists(recordCount: recordCount, listCount: Int(UInt8.max) + 1)
        uses = TypedArray(repeating: 0, count: recordCount)
    }

    package mutating func add(_ record: Record, after use: RecordUse) {
        if use == .passed {
            order.prepend(record, to: Int(uses[record]))
        } else {
            if uses[record] < UInt8.max { uses[record] += 1 }
            order.append(record, to: Int(uses[record]))
        }
        count += 1
    }

    package mutating func remove(_ record: Record) {
        order.remove(record)
        count -= 1
    }

    package mutating func removeVictim() -> Record? {
        for list in order.counts.indices {
            if let victim = order.removeFirst(list) {
                count -= 1
                return victim
            }
        }
        return nil
    }
}
