import CSigma

/// Activations of the feed-forward layers. Row-major fp32 unless stated. Slots: see `FeedForwardPlan`.
struct FeedForwardBuffers: CPUBuffers {
    private let memberCount: Int
    private let expertCount: Int
    private let choices: Int
    private let hidden: Int
    private let gatedWidth: Int

    /// [rows, experts]
    var routerLogits = CPUBuffer<Float>()
    /// What `FeedForwardPlan` is made of, for the rows in common or for each member.
    private var scores = CPUBuffer<Float>()
    private var chosen = CPUBuffer<Int32>()
    private var weights = CPUBuffer<Float>()
    private var slots = CPUBuffer<Int32>()
    private var slotRows = CPUBuffer<Int32>()
    private var offsets = CPUBuffer<Int32>()
    private var groups = CPUBuffer<FeedForwardPlan.Group>()
    /// [slots, intermediate]: silu(gate) * up.
    var gated = CPUBuffer<Float>()
    var gatedQuantized = CPUBuffer<sigma_activation_block>()
    /// [slots, hidden]: down's output.
    var expertOutputs = CPUBuffer<Float>()
    /// [rows, hidden]: weighted sum of the experts' outputs.
    var feedForward = CPUBuffer<Float>()

    init(_ c: ModelConfiguration, memberCount: Int, gatedWidth: Int) {
        self.memberCount = memberCount
        self.gatedWidth = gatedWidth
        expertCount = c.expertCount
        choices = c.expertsPerToken.max() ?? 0
        hidden = c.hiddenSize
    }

    /// A dense layer and the shared experts use one slot a row.
    private func slotCount(_ rows: Int) -> Int { rows * (choices + 1) }

    mutating func visit(_ shape: StepShape, _ visitor: inout some BufferVisitor) throws {
        let rows = shape.rows
        let slotCount = slotCount(rows)
        // Where every member routes the rows itself, it needs its own place for the result.
        let routed = rows + memberCount * min(rows, StepPath.rowsNormalizedAlone)
        try visitor.visit(&routerLogits, rows * expertCount)
        try visitor.visit(&scores, routed * expertCount)
        try visitor.visit(&chosen, routed * choices)
        try visitor.visit(&weights, routed * choices)
        try visitor.visit(&slots, memberCount * rows * choices)
        try visitor.visit(&slotRows, memberCount * slotCount)
        try visitor.visit(&offsets, memberCount * (expertCount + 1))
        try visitor.visit(&groups, memberCount * (expertCount + 1))
        try visitor.visit(&gated, slotCount * gatedWidth)
        try visitor.visit(&gatedQuantized, slotCount * (gatedWidth / 32))
        try visitor.visit(&expertOutputs, slotCount * hidden)
        try visitor.visit(&feedForward, rows * hidden)
    }

    /// A member's plan in its place.
    func plan(member: Int, rows: Int, routesAlone: Bool) -> FeedForwardPlan {
        let own = routesAlone ? rows + member * min(rows, StepPath.rowsNormalizedAlone) : 0
        return FeedForwardPlan(
            scores: scores.base + own * expertCount, chosen: chosen.base + own * choices,
            weights: weights.base + own * choices, slots: slots.base + member * rows * choices,
            slotRows: slotRows.base + member * slotCount(rows), offsets: offsets.base + member * (expertCount + 1),
            groups: groups.base + member * (expertCount + 1))
    }
}
