import Sigma
import Testing

/// Reuse distances and the best possible cache against plain simulations.
@Suite struct RoutingCacheTests {
    /// Streams of several kinds: uniform, skewed, in rounds, in phases.
    static func streams() -> [(items: Int, accesses: [Int])] {
        var random = SplitMix64(state: 5)
        var streams: [(Int, [Int])] = []
        for items in [1, 2, 3, 7, 24, 40] {
            func draw(_ limit: Int) -> Int { Int(random.next() % UInt64(limit)) }
            streams.append((items, (0..<700).map { _ in draw(items) }))
            streams.append((items, (0..<700).map { _ in min(draw(items), draw(items), draw(items)) }))
            streams.append((items, (0..<300).map { $0 % items }))
            streams.append((items, (0..<700).map { ($0 / 90 * 5 + draw(max(1, items / 3))) % items }))
        }
        streams.append((5, []))
        streams.append((5, [3]))
        return streams
    }

    static func hits(_ accesses: [Int], slots: Int, victim: (_ cache: [Int], _ place: Int) -> Int) -> Int {
        var cache: [Int] = []
        var hits = 0
        for (place, item) in accesses.enumerated() {
            if cache.contains(item) {
                hits += 1
            } else {
                if cache.count == slots {
                    let out = victim(cache, place)
                    cache.removeAll { $0 == out }
                }
                cache.append(item)
            }
        }
        return hits
    }

    @Test func leastRecentlyUsed() {
        for (items, accesses) in Self.streams() {
            var reuse = ReuseDistances(itemCount: items)
            for (place, item) in accesses.enumerated() {
                let last = accesses[..<place].lastIndex(of: item)
                #expect(reuse.access(item) == last.map { Set(accesses[($0 + 1)..<place]).count })
            }
            #expect(reuse.firstUses == Set(accesses).count && reuse.accesses == accesses.count)
            for slots in 1...items {
                let expected = Self.hits(accesses, slots: slots) { cache, place in
                    cache.min {
                        accesses[..<place].lastIndex(of: $0)! < accesses[..<place].lastIndex(of: $1)!
                    }!
                }
                #expect(reuse.counts[..<slots].reduce(0, +) == expected, "\(items) items, \(slots) slots")
            }
        }
    }

    /// - Parameter lastTime: small ones force renumbering.
    @Test(arguments: [Int32.max - 2, 300, 173]) func bestPossible(lastTime: Int32) {
        for (items, accesses) in Self.streams() {
            var optimal = OptimalReplacement(itemCount: items, lastTime: lastTime)
            for item in accesses { optimal.access(item) }
            #expect(optimal.accesses == accesses.count)
            for slots in 1...items {
                let expected = Self.hits(accesses, slots: slots) { cache, place in
                    cache.max {
                        (accesses[(place + 1)...].firstIndex(of: $0) ?? .max)
                            < (accesses[(place + 1)...].firstIndex(of: $1) ?? .max)
                    }!
                }
                #expect(optimal.hits[..<slots].reduce(0, +) == expected, "\(items) items, \(slots) slots")
            }
        }
    }

    @Test func quantilesOfMargins() {
        var random = SplitMix64(state: 9)
        var margins = MarginDistribution()
        var values = (0..<5000).map { _ in
            let unit = Double(random.next() >> 11) * 0x1p-53
            return unit * unit * unit
        }
        values += [0, 0, 1e-12, 5e-6]
        for value in values { margins.add(value) }
        values.sort()
        #expect(margins.least == 0 && margins.most == values.last)
        #expect(margins.undecidedCount == values.count { $0 <= 1e-5 })
        #expect(abs(margins.mean - values.reduce(0, +) / Double(values.count)) < 1e-12)
        for share in [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1] {
            let expected = values[Int((share * Double(values.count)).rounded(.up)) - 1]
            #expect(abs(margins.quantile(share) - expected) <= 0.006 * expected, "\(share)")
        }
    }
}
