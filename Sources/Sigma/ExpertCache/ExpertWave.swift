/// Records of one layer that can be computed with now.
package struct ExpertWave {
    /// Experts, in the order in which they became ready.
    package private(set) var experts: [Expert] = []
    /// [experts]: the bytes of each one's record.
    package private(set) var records: [UnsafeRawPointer] = []
    /// [experts]: the slot that holds them.
    private(set) var slots: [Slot] = []

    package init() {}

    mutating func removeAll() {
        experts.removeAll(keepingCapacity: true)
        records.removeAll(keepingCapacity: true)
        slots.removeAll(keepingCapacity: true)
    }

    mutating func append(_ expert: Expert, _ record: UnsafeRawPointer, in slot: Slot) {
        experts.append(expert)
        records.append(record)
        slots.append(slot)
    }
}
