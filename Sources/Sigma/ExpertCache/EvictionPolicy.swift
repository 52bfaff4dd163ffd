/// Which records a cache evicts first. Every call is O(1).
///
/// A policy orders the records that are in the cache and not in use: one that is used is taken out, and put back after its use. So a victim is
/// never in use, and nothing is searched.
package protocol EvictionPolicy: Sendable {
    /// Records that it orders.
    var count: Int { get }
    /// Puts a record in; it must not be there.
    mutating func add(_ record: Record, after use: RecordUse)
    /// Takes a record out, because it is used now. It must be there.
    mutating func remove(_ record: Record)
    /// Takes out the record that is worth least; nil if there is none.
    mutating func removeVictim() -> Record?
}

/// What happened to a record before the policy orders it.
package enum RecordUse: Sendable, BitwiseCopyable {
    /// Read from the disk, and used.
    case missed
    /// Used again since it was read.
    case hit
    /// Not worth keeping: a prefetched record that no layer asked for, or one that a sweep over all layers will not meet again.
    case passed
}

/// The policies by name.
package enum EvictionPolicyKind: String, Sendable, CaseIterable {
    case lru, slru, lfu

    /// - Parameter capacity: records that the cache holds; only segments depend on it.
    package func make(recordCount: Int, capacity: Int) -> any EvictionPolicy {
        switch self {
        case .lru: LeastRecentlyUsed(recordCount: recordCount)
        case .slru: SegmentedLRU(recordCount: recordCount, capacity: capacity)
        case .lfu: LeastFrequentlyUsed(recordCount: recordCount)
        }
    }
}
