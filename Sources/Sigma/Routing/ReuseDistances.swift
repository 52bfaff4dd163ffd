/// Exact LRU stack distances of a stream of items: how many different other items were used since an item's last use.
///
/// A cache of c slots that drops what was used longest ago hits an access exactly if its distance is below c, so one pass gives the hit
/// rate of every cache size. O(log items) an access and O(items) memory: only the order of the last uses matters, and a Fenwick
/// tree counts them in a window of positions that is renumbered when it is full.
package struct ReuseDistances: Sendable {
    package let itemCount: Int
    /// [itemCount]: accesses at each distance.
    package private(set) var counts: [Int]
    package private(set) var firstUses = 0
    package private(set) var accesses = 0
    /// [items]: position of an item's last use, from 1; 0: not used yet.
    private var positions: [Int32]
    /// [window + 1]: the item whose last use is at a position; -1: none any more.
    private var items: [Int32]
    /// [window + 1]: Fenwick tree over the positions that hold a last use.
    private var tree: [Int32]
    private var newest = 0

    package init(itemCount: Int) {
        precondition((1...Int(Int32.max / 4)).contains(itemCount))
        self.itemCount = itemCount
        counts = Array(repeating: 0, count: itemCount)
        positions = Array(repeating: 0, count: itemCount)
        // Twice the items: a renumbering comes at most once in `itemCount` accesses.
        let window = max(64, 2 * itemCount)
        items = Array(repeating: -1, count: window + 1)
        tree = Array(repeating: 0, count: window + 1)
    }

    /// Uses `item`.
    /// - Returns: its distance; nil if it is its first use.
    @discardableResult
    package mutating func access(_ item: Int) -> Int? {
        if newest == items.count - 1 { renumber() }
        accesses += 1
        var distance: Int?
        let last = Int(positions[item])
        if last > 0 {
            let later = firstUses - sum(through: last)
            counts[later] += 1
            distance = later
            add(-1, at: last)
            items[last] = -1
        } else {
            firstUses += 1
        }
        newest += 1
        add(1, at: newest)
        items[newest] = Int32(item)
        positions[item] = Int32(newest)
        return distance
    }

    private func sum(through position: Int) -> Int {
        var position = position
        var sum: Int32 = 0
        while position > 0 {
            sum += tree[position]
            position &= position - 1
        }
        return Int(sum)
    }

    private mutating func add(_ value: Int32, at position: Int) {
        var position = position
        while position < tree.count {
            tree[position] += value
            position += position & -position
        }
    }

    /// Moves the last uses together, in their order.
    private mutating func renumber() {
        newest = 0
        for position in 1..<items.count where items[position] >= 0 {
            let item = items[position]
            items[position] = -1
            newest += 1
            items[newest] = item
            positions[Int(item)] = Int32(newest)
        }
        for position in 1..<tree.count {
            // A node covers as many positions as its lowest bit says; the first `newest` positions are in use.
            let first = position - (position & -position)
            tree[position] = Int32(max(0, min(position, newest) - first))
        }
    }

    /// Share of the accesses that hit in caches of 1...itemCount slots.
    package var hitRates: [Double] {
        var hits = 0
        return counts.map {
            hits += $0
            return Double(hits) / Double(accesses)
        }
    }
}
