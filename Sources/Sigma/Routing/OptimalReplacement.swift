/// Hits of the best possible cache (Belady's: it drops what will be used last) at every cache size, exactly and in one pass.
///
/// The future is not needed. An access hits if the item was kept since its last use, so a cache with c slots chooses among the
/// intervals between successive uses of an item; while one is kept, every access between its ends needs a slot for itself, so at
/// most c - 1 intervals may lie over any access. The largest such choice is scheduling intervals on c - 1 machines: in the order of
/// their ends, each goes to the free machine that was busy last, or is given up. Intervals end now, so each access decides its own.
///
/// The machines of c - 1 are those of c - 2 and one more, so `ends` holds them for all sizes: an access walks it once and moves what
/// changes at each size. O(items) an access, a few vector comparisons for each 8, and O(items) memory.
package struct OptimalReplacement: Sendable {
    package let itemCount: Int
    package private(set) var accesses = 0
    /// [itemCount]: accesses that hit in a cache of this many slots plus one, and in none smaller.
    package private(set) var hits: [Int]
    /// [items]: time of an item's last use; 0: not used yet.
    private var lastUses: [Int32]
    /// [machines, in groups of 8]: when the machine that size i has and size i - 1 has not was last busy; `never` where it wasn't.
    private var ends: [SIMD8<Int32>] = []
    private var machineCount = 0
    private var time: Int32 = 0
    private let lastTime: Int32
    private static let never = Int32.max

    /// - Parameter lastTime: times are renumbered when they reach it.
    package init(itemCount: Int, lastTime: Int32 = .max - 2) {
        precondition(itemCount >= 1 && Int(lastTime) > 4 * itemCount + 4)
        self.itemCount = itemCount
        self.lastTime = lastTime
        hits = Array(repeating: 0, count: itemCount)
        lastUses = Array(repeating: 0, count: itemCount)
    }

    /// Uses `item`.
    package mutating func access(_ item: Int) {
        if time == lastTime { renumber() }
        accesses += 1
        time += 1
        let last = lastUses[item]
        lastUses[item] = time
        if last == 0 { return }
        if time == last + 1 {
            hits[0] += 1
            return
        }
        let level = schedule(from: last + 1)
        hits[level + 1] += 1
    }

    /// Gives the interval that begins at `start` and ends now to a machine at every size that has one free.
    /// - Returns: the first such machine.
    private mutating func schedule(from start: Int32) -> Int {
        var first: Int?
        // Of the free machines so far, the one busy last: it takes the interval, and keeps its place in larger sizes' order.
        var latest = Int32.min
        let now = time
        ends.withUnsafeMutableBufferPointer { ends in
            for group in ends.indices {
                let block = ends[group]
                guard any((block .<= start) .& (block .> latest)) else { continue }
                for lane in 0..<8 {
                    let end = ends[group][lane]
                    guard end <= start, end > latest else { continue }
                    if first == nil {
                        first = group * 8 + lane
                        ends[group][lane] = now
                    } else {
                        ends[group][lane] = latest
                    }
                    latest = end
                }
            }
        }
        if let first { return first }
        if machineCount % 8 == 0 { ends.append(SIMD8(repeating: Self.never)) }
        ends[machineCount / 8][machineCount % 8] = now
        machineCount += 1
        return machineCount - 1
    }

    /// Moves the times that still matter together, in their order. Neighbours stay neighbours, and others stay apart.
    private mutating func renumber() {
        var times = lastUses.filter { $0 > 0 }
        for group in ends { times += (0..<8).map { group[$0] }.filter { $0 != Self.never } }
        times.append(time)
        times.sort()
        var renumbered: [Int32: Int32] = [:]
        var old: Int32 = 0
        var new: Int32 = 0
        for time in times where time != old {
            new += min(time - old, 2)
            old = time
            renumbered[time] = new
        }
        for item in lastUses.indices where lastUses[item] > 0 { lastUses[item] = renumbered[lastUses[item]]! }
        for machine in 0..<machineCount {
            ends[machine / 8][machine % 8] = renumbered[ends[machine / 8][machine % 8]]!
        }
        time = renumbered[time]!
    }

    /// Share of the accesses that hit in caches of 1...itemCount slots.
    package var hitRates: [Double] {
        var sum = 0
        return hits.map {
            sum += $0
            return Double(sum) / Double(accesses)
        }
    }
}
