import Synchronization

/// Keeps keys and values, activations and expert slots within what a plan gives them.
///
/// Blocks of keys and values are counted when a step takes them and when their sequence goes, on whatever thread that is. Slots follow when the
/// next step begins: they are made fewer before the memory is used, and more after it was freed.
final class MemoryBudget: Sendable {
    let plan: MemoryPlan
    private let kvBytes = Mutex(0)

    init(_ plan: MemoryPlan) { self.plan = plan }

    var heldKVBytes: Int { kvBytes.withLock { $0 } }
    func add(kvBytes count: Int) { kvBytes.withLock { $0 += count } }

    /// Whether so much more keys and values, and activations of that size, leave the slots of one token.
    func hasRoom(kvGrowth: Int, activations: Int) -> Bool {
        guard let shared = plan.sharedBytes else { return true }
        let least = plan.isResident ? 0 : plan.recordsPerToken * plan.slotBytes
        return heldKVBytes + kvGrowth + activations + least <= shared
    }

    func slots(kvGrowth: Int, activations: Int) -> Int {
        plan.slots(kv: heldKVBytes + kvGrowth, activations: activations)
    }

    /// Rows of the largest step that leaves slots enough to read a layer's experts while others are computed.
    func rowLimit(kvPositionBytes: Int) -> Int {
        guard let shared = plan.sharedBytes else { return Self.rowCapacity }
        // Up to a block more than the rows need may be allocated.
        let slots = plan.isResident ? 0 : max(plan.recordsPerToken, 64) * plan.slotBytes
        let rest = shared - heldKVBytes - plan.activationBytes - KVCache.blockLength * kvPositionBytes - slots
        let rows = rest / max(1, plan.activationRowBytes + kvPositionBytes)
        return max(1, min(rows, Self.rowCapacity))
    }

    static let rowCapacity = 16384
}
