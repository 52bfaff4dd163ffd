import Sigma
import Testing

/// Rows that do not stay leave no trace in the order in which experts are evicted.
@Suite struct DraftedExpertsTests {
    /// A cache whose requests are read, verified and released at once.
    private struct Cache {
        let table: ExpertRecordTable
        var state: ExpertCacheState

        init(_ policy: EvictionPolicyKind, slots: Int) {
            table = ScriptedExperts(layers: 4, experts: 12, choices: 1).table
            state = ExpertCacheState(table, slotCapacity: slots, policy: policy)
        }

        mutating func request(_ experts: [Expert], of rows: [RowSet] = [], layer: Int) {
            _ = state.request(experts, of: rows, layer: layer)
            var isDone = false
            while !isDone {
                work()
                var slots: [Slot] = []
                isDone = !state.take { _, slot in slots.append(slot) }
                _ = state.release(slots)
            }
            work()
        }

        private mutating func work() {
            while true {
                switch state.nextForReader() {
                case .read(let record, _):
                    _ = state.readFinished(record, bytes: 4096, verifies: true)
                    _ = state.verificationFinished(record, damage: nil)
                case .verify(let record, _): _ = state.verificationFinished(record, damage: nil)
                case .wait, .done, .releasePages: return
                }
            }
        }

        /// The records in the order in which they would be evicted.
        var victims: [Int] {
            var policy = state.policy
            var list: [Int] = []
            while let victim = policy.removeVictim() { list.append(victim.index) }
            return list
        }

        var isConsistent: Bool {
            let idle = (0..<table.recordCount).count { index in
                if case .idle = state.records[Record(index)] { true } else { false }
            }
            return idle == state.policy.count
        }
    }

    private static func rows(_ list: [Int]) -> RowSet {
        var set = RowSet()
        for row in list { set.insert(row) }
        return set
    }

    /// What the rows of a step choose in a layer.
    private static func requests(_ choices: [Int]) -> (experts: [Expert], rows: [RowSet]) {
        let experts = Set(choices).sorted()
        return (
            experts.map { Expert($0) },
            experts.map { expert in rows(choices.indices.filter { choices[$0] == expert }) }
        )
    }

    /// Where everything lies in memory the order is that of a cache that never saw the rejected rows.
    @Test(arguments: EvictionPolicyKind.allCases) func onlyKeptRowsCount(policy: EvictionPolicyKind) {
        var random = SplitMix64(state: 4)
        var drafting = Cache(policy, slots: 48)
        var ordinary = Cache(policy, slots: 48)
        func warm(_ cache: inout Cache) {
            cache.state.beginStep(rows: 1)
            for layer in 0..<4 { cache.request((0..<12).map { Expert($0) }, layer: layer) }
        }
        warm(&drafting)
        warm(&ordinary)
        var rejected = 0
        for _ in 0..<300 {
            let all = 1 + Int(random.next() % 6)
            let kept = 1 + Int(random.next() % UInt64(all))
            drafting.state.beginStep(rows: all, hasDrafts: true)
            ordinary.state.beginStep(rows: 1)
            for layer in 0..<4 {
                let choices = (0..<all).map { _ in Int(random.next() % 12) * Int(random.next() % 2) }
                let (experts, rows) = Self.requests(choices)
                drafting.request(experts, of: rows, layer: layer)
                ordinary.request(Self.requests(Array(choices[..<kept])).experts, layer: layer)
                rejected += Set(choices).count - Set(choices[..<kept]).count
            }
            drafting.state.endDrafts(kept: Self.rows(Array(0..<kept)))
            #expect(drafting.victims == ordinary.victims)
            #expect(drafting.isConsistent)
        }
        #expect(rejected > 500)
        #expect(drafting.state.statistics == ordinary.state.statistics)
    }

    /// What was read for rejected rows alone is evicted first.
    @Test func whatWasReadInVainGoesFirst() {
        var random = SplitMix64(state: 5)
        var drafting = Cache(.lru, slots: 48)
        var ordinary = Cache(.lru, slots: 48)
        var inVain = 0
        for _ in 0..<40 {
            drafting.state.beginStep(rows: 4, hasDrafts: true)
            ordinary.state.beginStep(rows: 1)
            for layer in 0..<4 {
                let choices = (0..<4).map { Int(random.next() % ($0 == 0 ? 6 : 12)) }
                let (experts, rows) = Self.requests(choices)
                drafting.request(experts, of: rows, layer: layer)
                ordinary.request([Expert(choices[0])], layer: layer)
            }
            drafting.state.endDrafts(kept: Self.rows([0]))
            let known = Set(ordinary.victims)
            let victims = drafting.victims
            #expect(victims.filter { known.contains($0) } == ordinary.victims)
            let first = victims.prefix { !known.contains($0) }
            #expect(first.count == victims.count - known.count)
            inVain += first.count
            #expect(drafting.state.statistics.requests == ordinary.state.statistics.requests)
        }
        #expect(inVain > 100)
    }

    /// Where slots are scarce rejected rows cost slots, but no record's place.
    @Test(arguments: EvictionPolicyKind.allCases) func scarceSlotsKeepEverythingConsistent(policy: EvictionPolicyKind) {
        var random = SplitMix64(state: 8)
        for slots in [7, 10, 16] {
            var cache = Cache(policy, slots: slots)
            for _ in 0..<300 {
                let all = 1 + Int(random.next() % 6)
                cache.state.beginStep(rows: all, hasDrafts: true)
                for layer in 0..<4 {
                    let (experts, rows) = Self.requests((0..<all).map { _ in Int(random.next() % 12) })
                    cache.request(experts, of: rows, layer: layer)
                }
                var kept = RowSet()
                for row in 0..<1 + Int(random.next() % UInt64(all)) { kept.insert(row) }
                cache.state.endDrafts(kept: kept)
                #expect(cache.isConsistent)
                #expect(cache.state.policy.count <= slots)
                #expect(Set(cache.victims).count == cache.state.policy.count)
            }
            #expect(cache.state.statistics.hits <= cache.state.statistics.requests)
        }
    }

    /// Steps of one kept row over a few experts, each with a rejected row over all others: the few stay.
    @Test func whatAnswersUseIsNotDisplacedByDrafts() {
        var random = SplitMix64(state: 8)
        var cache = Cache(.lru, slots: 12)
        var reads = 0
        for step in 0..<100 {
            let before = cache.state.statistics.reads
            cache.state.beginStep(rows: 2, hasDrafts: true)
            var wasted = 0
            for layer in 0..<4 {
                let (own, other) = (Int(random.next() % 2), 2 + Int(random.next() % 10))
                let isThere: Bool
                if case .idle = cache.state.records[cache.table.record(layer: layer, expert: Expert(other))] {
                    isThere = true
                } else {
                    isThere = false
                }
                if !isThere { wasted += 1 }
                cache.request([Expert(own), Expert(other)], of: [Self.rows([0]), Self.rows([1])], layer: layer)
            }
            cache.state.endDrafts(kept: Self.rows([0]))
            if step >= 20 { reads += cache.state.statistics.reads - before - wasted }
        }
        #expect(reads <= 4, "\(reads) experts of kept rows were read again")
    }
}
