import CSigma

/// Which products a layer's feed-forward needs, and which rows go where. Every member makes its own from the routers' scores, which costs less than
/// waiting for one that another made; all come out equal. Plain memory of the workspace.
///
/// A *slot* is one (row, chosen expert) pair; slots are grouped by expert, rows in order inside an expert. The dense MLP or the shared
/// experts have one slot a row behind all of these.
struct FeedForwardPlan {
    /// One MLP and the slots that it serves.
    struct Group: BitwiseCopyable {
        var gate: WeightMatrix
        var up: WeightMatrix
        var down: WeightMatrix
        var firstSlot: Int
        var count: Int
        /// Where the group's tiles begin in the lists of gate and down tiles.
        var firstGateItem = 0
        var firstDownItem = 0
    }

    /// [rows, experts]: unbiased scores.
    var scores: UnsafeMutablePointer<Float>
    /// [rows, choices]: expert, weight and slot of each choice.
    var chosen: UnsafeMutablePointer<Int32>
    var weights: UnsafeMutablePointer<Float>
    var slots: UnsafeMutablePointer<Int32>
    /// [slots]: the row of each.
    var slotRows: UnsafeMutablePointer<Int32>
    /// [experts + 1]: the first slot of each expert.
    var offsets: UnsafeMutablePointer<Int32>
    /// [experts + 1]
    var groups: UnsafeMutablePointer<Group>

    /// Experts that a row chooses in this layer.
    var choices = 0
    var groupCount = 0
    var gateItems = 0
    var downItems = 0

    /// Whether a dense MLP or shared experts have slots behind the routed ones.
    var hasAlwaysOn = false
    /// Whether a row's output is one product: it can go to the residual stream at once.
    var hasOneSlotPerRow: Bool { choices + (hasAlwaysOn ? 1 : 0) == 1 }

    /// Whether some row chose the expert; after `sort`.
    func isChosen(_ expert: Int) -> Bool { offsets[expert + 1] > offsets[expert] }

    /// The rows that chose the expert; after `sort`.
    func rows(of expert: Int) -> RowSet {
        var rows = RowSet()
        for slot in offsets[expert]..<offsets[expert + 1] { rows.insert(Int(slotRows[Int(slot)])) }
        return rows
    }

    mutating func removeGroups() {
        groupCount = 0
        gateItems = 0
        downItems = 0
    }

    /// The MLP that every row goes through, behind `routed` slots. The last group.
    mutating func add(_ mlp: MLPWeights, behind routed: Int, rows: Int) {
        for row in 0..<rows { slotRows[routed + row] = Int32(row) }
        add(Group(gate: mlp.gate, up: mlp.up, down: mlp.down, firstSlot: routed, count: rows))
    }

    /// An expert whose record begins at `record`, with the slots that `sort` gave it.
    mutating func add(expert: Int, at record: UnsafeRawPointer, _ layout: ExpertLayout) {
        let first = Int(offsets[expert])
        add(
            Group(
                gate: layout.gate(at: record), up: layout.up(at: record), down: layout.down(at: record),
                firstSlot: first, count: Int(offsets[expert + 1]) - first))
    }

    private mutating func add(_ group: Group) {
        guard group.count > 0 else { return }
        var group = group
        group.firstGateItem = gateItems
        group.firstDownItem = downItems
        groups[groupCount] = group
        groupCount += 1
        gateItems += CPUContext.tiles(group.gate.rows)
        downItems += CPUContext.tiles(group.down.rows)
    }

    /// Groups the rows' choices by expert: a counting sort.
    mutating func sort(rows: Int, experts: Int) {
        let routed = rows * choices
        for expert in 0...experts { offsets[expert] = 0 }
        for index in 0..<routed { offsets[Int(chosen[index]) + 1] += 1 }
        for expert in 0..<experts { offsets[expert + 1] += offsets[expert] }
        for index in 0..<routed {
            let expert = Int(chosen[index])
            let slot = offsets[expert]
            offsets[expert] += 1
            slots[index] = slot
            slotRows[Int(slot)] = Int32(index / choices)
        }
        // Every offset has moved to the next expert's.
        for expert in stride(from: experts, to: 0, by: -1) { offsets[expert] = offsets[expert - 1] }
        offsets[0] = 0
    }

    /// The group that a tile belongs to. All routed groups have the same number of tiles.
    func group(ofGateItem item: Int) -> Group {
        groups[min(item / CPUContext.tiles(groups[0].gate.rows), groupCount - 1)]
    }
    func group(ofDownItem item: Int) -> Group {
        groups[min(item / CPUContext.tiles(groups[0].down.rows), groupCount - 1)]
    }
}
