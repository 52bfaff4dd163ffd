import Sigma
import SigmaStudies
import Synchronization
import SystemLibrary
import Testing

/// The cache of experts against its own promises, on records without a model.
@Suite struct ExpertCacheTests {
    // MARK: policies

    /// What a policy of the same name does, in the plainest way: a list of (record, use) in order of use.
    @Test(arguments: EvictionPolicyKind.allCases) func policiesOrderAsTheyPromise(kind: EvictionPolicyKind) {
        var random = SplitMix64(state: 3)
        let capacity = 10
        var policy = kind.make(recordCount: 40, capacity: capacity)
        var once: [Record] = []
        var again: [Record] = []
        var uses = TypedArray<Record, Int>(repeating: 0, count: 40)
        func victim() -> Record? {
            switch kind {
            case .lru: return once.first
            case .slru: return once.first ?? again.first
            case .lfu:
                let least = once.map { uses[$0] }.min()
                return once.first { uses[$0] == least }
            }
        }
        func drop(_ record: Record) {
            once.removeAll { $0 == record }
            again.removeAll { $0 == record }
        }
        for step in 0..<4000 {
            let record = Record(min(Int(random.next() % 40), Int(random.next() % 40)))
            if once.contains(record) || again.contains(record) {
                policy.remove(record)
                drop(record)
                policy.add(record, after: .hit)
                switch kind {
                case .lru: once.append(record)
                case .lfu:
                    uses[record] += 1
                    once.append(record)
                case .slru:
                    again.append(record)
                    if again.count > capacity * 4 / 5 { once.append(again.removeFirst()) }
                }
            } else {
                if policy.count == capacity {
                    let expected = victim()
                    #expect(policy.removeVictim() == expected, "step \(step)")
                    drop(expected!)
                }
                let isPassed = random.next() % 4 == 0
                policy.add(record, after: isPassed ? .passed : .missed)
                if !isPassed { uses[record] += 1 }
                if isPassed { once.insert(record, at: 0) } else { once.append(record) }
            }
            #expect(policy.count == once.count + again.count)
        }
        while let last = policy.removeVictim() {
            #expect(last == victim())
            drop(last)
        }
        #expect(once.isEmpty && again.isEmpty)
    }

    // MARK: bytes

    @Test(arguments: EvictionPolicyKind.allCases, [1, 2, 5, 16, 48]) func everyRecordIsItself(
        kind: EvictionPolicyKind, slots: Int
    ) throws {
        let scripted = ScriptedExperts(layers: 4, experts: 12, choices: 3, pages: 3)
        let cache = try scripted.cache(slots: slots, policy: kind)
        defer { cache.close() }
        var random = SplitMix64(state: UInt64(slots))
        for step in 0..<200 {
            let rows = step % 25 == 24 ? 20 : 1
            cache.beginStep(rows: rows)
            for layer in 0..<4 {
                let wanted =
                    rows > 1 ? Array(0..<12) : Array(Set((0..<3).map { _ in Int(random.next() % 12) })).sorted()
                if layer < 3, step % 2 == 0 {
                    cache.prefetch(Array(Set((0..<3).map { _ in Int(random.next() % 12) })).sorted(), layer: layer + 1)
                }
                #expect(try scripted.use(wanted, layer: layer, of: cache))
            }
            try cache.confirm()
        }
        let statistics = cache.statistics
        #expect(statistics.requests > 2000 && statistics.reads >= 48 - slots)
        #expect(statistics.bytesRead >= statistics.reads * scripted.recordBytes)
        if slots == 48 { #expect(statistics.reads == 48) }
    }

    /// The simulator takes the same decisions as the cache.
    @Test(arguments: EvictionPolicyKind.allCases) func theSimulationHitsWhatTheCacheHits(kind: EvictionPolicyKind)
        throws
    {
        let scripted = ScriptedExperts(layers: 3, experts: 10)
        let cache = try scripted.cache(slots: 8, policy: kind)
        defer { cache.close() }
        var simulation = CacheSimulation(kind, recordCount: 30, slots: 8)
        var random = SplitMix64(state: 9)
        for _ in 0..<500 {
            cache.beginStep(rows: 1)
            for layer in 0..<3 {
                let expert = min(Int(random.next() % 10), Int(random.next() % 10))
                simulation.access(Record(layer * 10 + expert), isSweep: false)
                #expect(try scripted.use([expert], layer: layer, of: cache))
                // The order of two records is that of their checksums' ends: each ends before the next is used.
                try cache.confirm()
            }
        }
        #expect(simulation.accesses == 1500 && cache.statistics.hits == simulation.hits)
        #expect(simulation.hits > 200)
    }

    // MARK: sweeps and prefetching

    @Test func aSweepReadsEachRecordOnceInTheOrderOfTheFile() throws {
        let scripted = ScriptedExperts(layers: 6, experts: 16)
        // Fewer slots than a layer has experts.
        for slots in [6, 40] {
            let cache = try scripted.cache(slots: slots)
            defer { cache.close() }
            scripted.reader.forgetReads()
            cache.beginStep(rows: 4 * 16)
            for layer in 0..<6 { #expect(try scripted.use(Array(0..<16), layer: layer, of: cache)) }
            try cache.confirm()
            #expect(cache.statistics.reads == 96)
            let order = scripted.reader.reads.map { $0.offset / scripted.recordBytes }
            #expect(Set(order).count == 96 && order.count == 96)
            // Several threads read: one that loses its processor comes late, and moves its neighbours by one place.
            #expect(order.enumerated().filter { abs($0.offset - $0.element) > 3 }.count <= 8, "\(order)")
            // The next one meets again what was kept.
            cache.beginStep(rows: 4 * 16)
            for layer in 0..<6 { #expect(try scripted.use(Array(0..<16), layer: layer, of: cache)) }
            let reads = cache.statistics.reads - 96
            #expect(reads <= 96 && reads >= 96 - slots)
            // What is read ahead takes up to half of the slots; some of the rest is met again.
            if slots == 40 { #expect(reads < 96, "nothing was kept") }
        }
    }

    @Test func prefetchedRecordsAreInMemoryAndWrongPredictionsCostNobody() throws {
        let scripted = ScriptedExperts(layers: 3, experts: 8, pages: 2)
        let cache = try scripted.cache(slots: 8)
        defer { cache.close() }
        cache.beginStep(rows: 1)
        cache.request([1], layer: 0)
        cache.prefetch([2, 3], layer: 1)
        var wave = ExpertWave()
        #expect(try !cache.take(&wave, waits: true))
        #expect(wave.experts == [Expert(1)] && scripted.isRight(wave.records[0], layer: 0, expert: 1))
        // The record in use stays while two others are read.
        #expect(waits { scripted.reader.reads.count >= 3 })
        #expect(scripted.isRight(wave.records[0], layer: 0, expert: 1))
        cache.release(wave)
        #expect(try scripted.use([2], layer: 1, of: cache))
        #expect(cache.statistics.prefetched == 1 && cache.statistics.reads == 3)
        // The one that no layer asked for is an ordinary record now.
        #expect(try scripted.use([3], layer: 1, of: cache))
        #expect(cache.statistics.hits == 1)
        try cache.confirm()
    }

    @Test func aRequestedReadOvertakesPrefetches() throws {
        let scripted = ScriptedExperts(layers: 2, experts: 64)
        let cache = try scripted.cache(slots: 128)
        defer { cache.close() }
        let gate = Atomic<Bool>(false)
        let holder = GateHolder(gate)
        let order = StartedReads()
        scripted.reader.onRead.withLock {
            $0 = { offset, _ in
                let record = offset / scripted.recordBytes
                order.append(record)
                // A thread can lose its processor between choosing its read and beginning it: the others wait for it.
                if order.count > ExpertCache.readerCount, record >= 64 {
                    self.waits(milliseconds: 5000) { order.contains([7, 9]) }
                } else {
                    holder.wait()
                }
            }
        }
        cache.beginStep(rows: 1)
        cache.prefetch(Array(0..<40), layer: 1)
        // Both readers hold a prefetched record each when the layer asks.
        #expect(waits { holder.waiting.load(ordering: .relaxed) >= ExpertCache.readerCount })
        cache.request([7, 9], layer: 0)
        holder.open()
        var wave = ExpertWave()
        var seen: [Int] = []
        while try cache.take(&wave, waits: true) {
            seen += wave.experts.map(\.index)
            cache.release(wave)
        }
        seen += wave.experts.map(\.index)
        cache.release(wave)
        #expect(seen.sorted() == [7, 9])
        // Those that were held, and what a reader began while another had not begun yet.
        let places = [7, 9].compactMap { order.records.firstIndex(of: $0) }
        #expect(places.count == 2 && places.max()! < 2 * ExpertCache.readerCount + 2, "\(order.records)")
    }

    final class StartedReads: Sendable {
        private let list = Mutex<[Int]>([])
        var records: [Int] { list.withLock { $0 } }
        var count: Int { list.withLock { $0.count } }
        func append(_ record: Int) { list.withLock { $0.append(record) } }
        func contains(_ wanted: [Int]) -> Bool { list.withLock { list in wanted.allSatisfy(list.contains) } }
    }

    final class GateHolder: Sendable {
        let gate: Mutex<Bool>
        let waiting = Atomic<Int>(0)
        init(_ gate: borrowing Atomic<Bool>) { self.gate = Mutex(gate.load(ordering: .relaxed)) }
        func wait() {
            waiting.add(1, ordering: .relaxed)
            while !gate.withLock({ $0 }) { usleep(100) }
        }
        func open() { gate.withLock { $0 = true } }
    }

    /// Waits until the condition holds, for a while.
    /// - Returns: whether it does.
    @discardableResult
    private func waits(milliseconds: Int = 30_000, until condition: () -> Bool) -> Bool {
        for _ in 0..<milliseconds * 10 where !condition() { usleep(100) }
        return condition()
    }

    // MARK: the limit

    @Test func slotsComeAndGo() throws {
        let scripted = ScriptedExperts(layers: 2, experts: 20)
        let cache = try scripted.cache(slots: 40)
        defer { cache.close() }
        func useAll() throws {
            cache.beginStep(rows: 1)
            for layer in 0..<2 {
                for expert in 0..<20 {
                    #expect(try scripted.use([expert], layer: layer, of: cache))
                    // A record comes into the order when it has been verified.
                    try cache.confirm()
                }
            }
        }
        try useAll()
        #expect(cache.statistics.reads == 40)
        cache.setSlotLimit(10)
        #expect(cache.slotCount == 10)
        // The ten used last are left.
        cache.beginStep(rows: 1)
        for expert in 10..<20 { #expect(try scripted.use([expert], layer: 1, of: cache)) }
        #expect(cache.statistics.reads == 40 && cache.statistics.hits == 10)
        cache.setSlotLimit(1)
        try useAll()
        cache.setSlotLimit(40)
        try useAll()
        let before = cache.statistics.reads
        try useAll()
        #expect(cache.statistics.reads == before, "all fit again")
    }

    // MARK: faults

    @Test func aReadErrorFailsTheStepAndTheNextSucceeds() throws {
        let scripted = ScriptedExperts(layers: 2, experts: 8, choices: 4)
        let cache = try scripted.cache(slots: 6)
        defer { cache.close() }
        for wanted in [[3], [1, 3, 5]] {
            scripted.reader.fail(.error, at: (8 + 3) * scripted.recordBytes + 100)
            cache.beginStep(rows: 1)
            #expect(try scripted.use([0, 1, 2], layer: 0, of: cache))
            let error = #expect(throws: SigmaError.self) { _ = try scripted.use(wanted, layer: 1, of: cache) }
            #expect(error?.kind == .inputOutput)
            cache.beginStep(rows: 1)
            #expect(try scripted.use([0, 1, 2], layer: 0, of: cache))
            #expect(try scripted.use(wanted, layer: 1, of: cache))
            try cache.confirm()
            // Out of the cache again, for the next round.
            for expert in [0, 2, 4, 6, 7] { #expect(try scripted.use([expert], layer: 1, of: cache)) }
            for expert in 0..<6 { #expect(try scripted.use([expert], layer: 0, of: cache)) }
        }
    }

    @Test func aDamagedRecordIsReportedBeforeTheStepEnds() throws {
        let scripted = ScriptedExperts(layers: 2, experts: 8)
        let cache = try scripted.cache(slots: 4)
        defer { cache.close() }
        for isPrefetched in [false, true] {
            for wanted in [[5], [4, 5, 6]] {
                cache.beginStep(rows: 1)
                for expert in 0..<4 { _ = try scripted.use([expert], layer: 0, of: cache) }
                try cache.confirm()
                scripted.reader.fail(.damage, at: (8 + 5) * scripted.recordBytes + 17)
                cache.beginStep(rows: 1)
                if isPrefetched {
                    let count = scripted.reader.reads.count
                    cache.prefetch([5], layer: 1)
                    // Unless it is still in its slot, from the round before.
                    waits(milliseconds: 100) { scripted.reader.reads.count > count }
                }
                // Either when the record is given, or at the step's end; a record read ahead may have been read again
                // instead.
                var failure: SigmaError?
                do {
                    let isRight = try scripted.use(wanted, layer: 1, of: cache)
                    try cache.confirm()
                    #expect(isRight && isPrefetched)
                } catch { failure = error as? SigmaError }
                if let failure {
                    #expect(failure.kind == .damaged && failure.item == "blk.1.ffn_experts, expert 5")
                    #expect(failure.offset == UInt64((8 + 5) * scripted.recordBytes))
                }
                cache.beginStep(rows: 1)
                #expect(try scripted.use(wanted, layer: 1, of: cache))
                try cache.confirm()
            }
        }
    }

    @Test func aFailedPredictionIsNobodysFailure() throws {
        let scripted = ScriptedExperts(layers: 2, experts: 8)
        let cache = try scripted.cache(slots: 4)
        defer { cache.close() }
        scripted.reader.fail(.error, at: (8 + 5) * scripted.recordBytes)
        cache.beginStep(rows: 1)
        cache.prefetch([5], layer: 1)
        #expect(waits { !scripted.reader.reads.isEmpty })
        #expect(try scripted.use([2], layer: 0, of: cache))
        #expect(try scripted.use([4], layer: 1, of: cache))
        try cache.confirm()
        // Only who wants it while that read is still going on hears of the failure.
        do {
            #expect(try scripted.use([5], layer: 1, of: cache))
        } catch {
            cache.beginStep(rows: 1)
            #expect(try scripted.use([5], layer: 1, of: cache))
        }
    }
}
