/// Which records a cache gives up first. Every call is O(1).
///
/// A policy orders the records that are in the cache and not in use: one that is used is taken out, and put back behind its use. So a
/// victim is never in use, and nothing is searched.
package protocol EvictionPolicy: AnyObject {
    /// Records that it orders.
    var count: Int { get }
    /// Puts a record in; it must not be there.
    func add(_ record: Int, after use: RecordUse)
    /// Takes a record out, because it is used now. It must be there.
    func remove(_ record: Int)
    /// Takes out the record whose place is worth least; nil where there is none.
    func removeVictim() -> Int?
}

/// What happened to a record before it is put into the policy's order.
package enum RecordUse: Sendable {
    /// Read from the disk, and used.
    case missed
    /// Used again since it was read.
    case hit
    /// Read, and not worth keeping: a prediction that nobody used, or a record that a sweep over all layers will not meet again.
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

/// Doubly linked lists over the same items: an item is in one list at most.
struct IntrusiveLists {
    /// Of an item: its neighbours (heads are items behind the last), and the list; -1: none.
    private var previous: [Int32]
    private var next: [Int32]
    private var list: [Int32]
    private let itemCount: Int
    private(set) var counts: [Int]

    init(itemCount: Int, listCount: Int) {
        precondition(itemCount + listCount < Int(Int32.max))
        self.itemCount = itemCount
        previous = (0..<(itemCount + listCount)).map { Int32($0) }
        next = previous
        list = Array(repeating: -1, count: itemCount)
        counts = Array(repeating: 0, count: listCount)
    }

    func list(of item: Int) -> Int? { list[item] < 0 ? nil : Int(list[item]) }
    func first(_ list: Int) -> Int? { counts[list] == 0 ? nil : Int(next[itemCount + list]) }
    func last(_ list: Int) -> Int? { counts[list] == 0 ? nil : Int(previous[itemCount + list]) }

    mutating func append(_ item: Int, to list: Int) { insert(item, before: itemCount + list, in: list) }
    mutating func prepend(_ item: Int, to list: Int) { insert(item, before: Int(next[itemCount + list]), in: list) }

    private mutating func insert(_ item: Int, before neighbour: Int, in list: Int) {
        precondition(self.list[item] < 0)
        let before = Int(previous[neighbour])
        previous[item] = Int32(before)
        next[item] = Int32(neighbour)
        next[before] = Int32(item)
        previous[neighbour] = Int32(item)
        self.list[item] = Int32(list)
        counts[list] += 1
    }

    mutating func remove(_ item: Int) {
        let list = Int(self.list[item])
        precondition(list >= 0)
        next[Int(previous[item])] = next[item]
        previous[Int(next[item])] = previous[item]
        self.list[item] = -1
        counts[list] -= 1
    }
}

/// Drops what was used longest ago.
package final class LeastRecentlyUsed: EvictionPolicy {
    private var order: IntrusiveLists

    package init(recordCount: Int) { order = IntrusiveLists(itemCount: recordCount, listCount: 1) }

    package var count: Int { order.counts[0] }
    package func add(_ record: Int, after use: RecordUse) {
        if use == .passed { order.prepend(record, to: 0) } else { order.append(record, to: 0) }
    }
    package func remove(_ record: Int) { order.remove(record) }
    package func removeVictim() -> Int? {
        guard let victim = order.first(0) else { return nil }
        order.remove(victim)
        return victim
    }
}

/// Two LRU orders: what was used once, and what was used again. The second holds at most four fifths; what it loses begins anew in the first.
/// A stream of records that are used once does not displace those that come back.
package final class SegmentedLRU: EvictionPolicy {
    private var order: IntrusiveLists
    private let protectedLimit: Int
    private static let probation = 0
    private static let protected = 1

    package init(recordCount: Int, capacity: Int) {
        order = IntrusiveLists(itemCount: recordCount, listCount: 2)
        protectedLimit = capacity * 4 / 5
    }

    package var count: Int { order.counts[Self.probation] + order.counts[Self.protected] }
    package func add(_ record: Int, after use: RecordUse) {
        switch use {
        case .passed: order.prepend(record, to: Self.probation)
        case .missed: order.append(record, to: Self.probation)
        case .hit:
            order.append(record, to: Self.protected)
            if order.counts[Self.protected] > protectedLimit, let oldest = order.first(Self.protected) {
                order.remove(oldest)
                order.append(oldest, to: Self.probation)
            }
        }
    }
    package func remove(_ record: Int) { order.remove(record) }
    package func removeVictim() -> Int? {
        guard let victim = order.first(Self.probation) ?? order.first(Self.protected) else { return nil }
        order.remove(victim)
        return victim
    }
}

/// Drops what was used least often, of equals what was used longest ago. Uses are counted over the whole run, up to a limit, also while a
/// record is not in the cache.
package final class LeastFrequentlyUsed: EvictionPolicy {
    private var order: IntrusiveLists
    private var uses: [UInt8]

    package init(recordCount: Int) {
        order = IntrusiveLists(itemCount: recordCount, listCount: Int(UInt8.max) + 1)
        uses = Array(repeating: 0, count: recordCount)
    }

    package private(set) var count = 0
    package func add(_ record: Int, after use: RecordUse) {
        if use == .passed {
            order.prepend(record, to: Int(uses[record]))
        } else {
            if uses[record] < UInt8.max { uses[record] += 1 }
            order.append(record, to: Int(uses[record]))
        }
        count += 1
    }
    package func remove(_ record: Int) {
        order.remove(record)
        count -= 1
    }
    package func removeVictim() -> Int? {
        for list in order.counts.indices {
            if let victim = order.first(list) {
                order.remove(victim)
                count -= 1
                return victim
            }
        }
        return nil
    }
}
