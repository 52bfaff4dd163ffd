/// The slots of a cache: which record each holds, which are free, and which gave their pages back.
///
/// A slot that was never used has no pages either, so slots are taken into use in order. At every moment a slot is free, retired, not yet touched, or held by one record.
package struct SlotPool: Sendable {
    package let capacity: Int
    /// Slots that may have pages.
    package var limit: Int
    /// [slots]: the record that each holds.
    private var holders: TypedArray<Slot, Record?>
    package private(set) var free: [Slot] = []
    /// Slots that gave their pages back.
    package private(set) var retired: [Slot] = []
    /// Slots that were ever used: the first so many.
    package private(set) var touchedCount = 0

    package init(capacity: Int) {
        self.capacity = capacity
        limit = capacity
        holders = TypedArray(repeating: nil, count: capacity)
        free.reserveCapacity(capacity)
        retired.reserveCapacity(capacity)
    }

    package func record(in slot: Slot) -> Record? { holders[slot] }
    /// Slots with pages.
    package var usedCount: Int { touchedCount - retired.count }
    package var isOverLimit: Bool { usedCount > limit }

    /// A slot that holds nothing, within the limit.
    mutating func takeEmpty() -> Slot? {
        if let slot = free.popLast() { return slot }
        guard usedCount < limit else { return nil }
        if let slot = retired.popLast() { return slot }
        touchedCount += 1
        return Slot(touchedCount - 1)
    }

    mutating func takeFree() -> Slot? { free.popLast() }

    mutating func hold(_ record: Record, in slot: Slot) { holders[slot] = record }

    /// Takes the slot from its record; it is the caller's.
    mutating func vacate(_ slot: Slot) { holders[slot] = nil }

    mutating func addFree(_ slot: Slot) { free.append(slot) }
    mutating func retire(_ slot: Slot) { retired.append(slot) }
}
