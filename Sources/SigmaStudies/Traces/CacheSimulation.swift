import Sigma

/// A cache of experts without the experts: which accesses of a trace would have hit, for one policy and size.
///
/// It takes the same steps as `ExpertCache`: a layer asks for each expert once a step, all of a step's experts in ascending order, and a step
/// whose rows meet all experts puts what it read at the end where it is given up first.
package struct CacheSimulation {
    package let slots: Int
    private var policy: any EvictionPolicy
    private var isPresent: TypedArray<Record, Bool>
    package private(set) var accesses = 0
    package private(set) var hits = 0

    package init(_ kind: EvictionPolicyKind, recordCount: Int, slots: Int) {
        precondition(slots >= 1)
        self.slots = slots
        policy = kind.make(recordCount: recordCount, capacity: slots)
        isPresent = TypedArray(repeating: false, count: recordCount)
    }

    /// A layer of a step asks for `record`.
    ///
    /// - Parameter isSweep: the step's rows are so many that the record will not be met again soon.
    package mutating func access(_ record: Record, isSweep: Bool) {
        accesses += 1
        if isPresent[record] {
            hits += 1
            policy.remove(record)
            policy.add(record, after: .hit)
            return
        }
        if policy.count == slots, let victim = policy.removeVictim() { isPresent[victim] = false }
        isPresent[record] = true
        policy.add(record, after: isSweep ? .passed : .missed)
    }

    /// Resets the counts; the cache keeps its contents.
    package mutating func forgetCounts() {
        accesses = 0
        hits = 0
    }
}

/// Replays a trace through caches of several sizes and policies at once.
package struct TraceReplay {
    package enum Policy: String, Sendable, CaseIterable { case lru, slru, lfu, belady }

    package struct Result: Sendable {
        package var policy: Policy
        package var slots: Int
        /// Of the tokens after the warm-up.
        package var hitRate: Double
    }

    package let model: ExpertTrace.Model
    /// Tokens that are not counted: the caches fill.
    package let warmUp: Int
    package private(set) var tokens = 0
    private var simulations: [(policy: Policy, slots: Int, cache: CacheSimulation)] = []
    private var optimal: OptimalReplacement?
    private var optimalBefore: [Int] = []
    private var optimalAccessesBefore = 0
    private let optimalSlots: [Int]

    package init(_ model: ExpertTrace.Model, policies: [Policy], slots: [Int], warmUp: Int) {
        self.model = model
        self.warmUp = warmUp
        let records = model.choices.count * model.expertCount
        optimalSlots = policies.contains(.belady) ? slots : []
        if policies.contains(.belady) { optimal = OptimalReplacement(itemCount: records) }
        for policy in policies {
            guard let kind = EvictionPolicyKind(rawValue: policy.rawValue) else { continue }
            for size in slots {
                simulations.append((policy, size, CacheSimulation(kind, recordCount: records, slots: max(1, size))))
            }
        }
    }

    /// Adds the tokens of a block, each as a step of its own: generation.
    package mutating func add(_ block: ExpertTrace.Block) {
        let perToken = model.choicesPerToken
        for token in block.tokens.indices {
            if tokens == warmUp { beginCounting() }
            tokens += 1
            var index = token * perToken
            for (layer, choices) in model.choices.enumerated() {
                for _ in 0..<choices {
                    let record = layer * model.expertCount + Int(block.choices[index])
                    index += 1
                    for place in simulations.indices { simulations[place].cache.access(Record(record), isSweep: false) }
                    optimal?.access(record)
                }
            }
        }
    }

    private mutating func beginCounting() {
        for place in simulations.indices { simulations[place].cache.forgetCounts() }
        optimalBefore = optimal?.hits ?? []
        optimalAccessesBefore = optimal?.accesses ?? 0
    }

    /// One for each policy and size. A hit rate is not a number where no token was counted.
    package var results: [Result] {
        var results = simulations.map { simulation in
            Result(
                policy: simulation.policy, slots: simulation.slots,
                hitRate: Double(simulation.cache.hits) / Double(simulation.cache.accesses))
        }
        if let optimal {
            let accesses = Double(optimal.accesses - optimalAccessesBefore)
            for slots in optimalSlots {
                let counted = min(max(1, slots), optimal.hits.count)
                let hits = optimal.hits[..<counted].reduce(0, +) - optimalBefore.prefix(counted).reduce(0, +)
                results.append(Result(policy: .belady, slots: slots, hitRate: Double(hits) / accesses))
            }
        }
        return results
    }
}
