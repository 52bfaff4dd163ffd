import Synchronization

/// Keeps keys and values, activations and expert slots within what a plan gives them.
///
/// Blocks of keys and values are counted when they are taken and given back, on whatever thread that is. Slots follow when the next step begins:
/// they are made fewer before the memory is used, and more after it was freed.
package final class MemoryBudget: Sendable {
    package let plan: MemoryPlan
    private let kvBytes = Mutex(0)

    package init(_ plan: MemoryPlan) { self.plan = plan }

    package var heldKVBytes: Int { kvBytes.withLock { $0 } }
    package func add(kvBytes count: Int) { kvBytes.withLock { $0 += count } }

    /// Whether so much more keys and values, and activations of that size, leave so many slots: what decides everywhere.
    package func grants(kvGrowth: Int, activations: Int, slots: Int) -> Bool {
        guard let shared = plan.sharedBytes else { return true }
        return heldKVBytes + kvGrowth + activations + slots * plan.slotBytes <= shared
    }

    package func slots(kvGrowth: Int, activations: Int) -> Int {
        plan.slots(kv: heldKVBytes + kvGrowth, activations: activations)
    }
}
