/// What the user allows.
package struct MemoryLimits: Sendable {
    package enum Cache: Sendable, Equatable {
        /// What the budget leaves.
        case auto
        /// Every expert stays, mapped.
        case all
        case bytes(Int)
    }

    /// Everything that the process uses; nil: no limit is kept.
    package var memory: Int?
    /// What the process itself takes of it; nil: what it uses now, and what it is expected to.
    package var processBytes: Int?
    package var cache: Cache
    package var policy: EvictionPolicyKind
    package var prediction: PredictionMode

    package init(
        memory: Int? = nil, cache: Cache = .auto, policy: EvictionPolicyKind = .lru, prediction: PredictionMode = .auto
    ) {
        self.memory = memory
        self.cache = cache
        self.policy = policy
        self.prediction = prediction
    }

    /// Nothing is limited.
    package static var none: MemoryLimits { MemoryLimits(cache: .all) }
}

/// Whether experts of the next layers are predicted and read ahead in generation.
package enum PredictionMode: String, Sendable, CaseIterable {
    /// Where it was measured to be faster.
    case auto
    case on, off
}
