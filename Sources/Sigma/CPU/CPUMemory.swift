import Synchronization

/// Memory of the CPU back end: the plan, what a step needs, and whether the budget grants it. Any thread may ask whether there is room; the rest
/// is for the thread that computes.
final class CPUMemory: @unchecked Sendable {
    let plan: MemoryPlan
    let budget: MemoryBudget?
    private let context: CPUContext
    private let parts: CPUParts
    private let residentRowLimit: Int
    /// Of the step that is suspended.
    private let suspended = Mutex<StepShape?>(nil)

    /// Rows of the largest step under a budget: what a prompt's sweep over the experts is good for.
    private static let rowCapacity = 16384
    /// Activations beyond need that are kept: not worth the page faults.
    private static let idleActivationBytes = 16 << 20

    init(_ plan: MemoryPlan, _ context: CPUContext, _ parts: CPUParts, residentRowLimit: Int) {
        self.plan = plan
        self.context = context
        self.parts = parts
        self.residentRowLimit = residentRowLimit
        budget = plan.budget == nil ? nil : MemoryBudget(plan)
    }

    var rowLimit: Int {
        if plan.isResident { return residentRowLimit }
        return budget == nil ? StepPath.sweepRows : Self.rowCapacity
    }

    /// Prompts of several requests together gain from longer steps, which read the weights less often; a single one does not.
    var batchRowLimit: Int { plan.isResident ? StepPath.batchSteps * residentRowLimit : rowLimit }

    /// Experts that are in memory can be met again soon. Where they are read from the disk, more steps would mean more reads.
    var sharedRowLimit: Int { plan.isResident ? min(rowLimit, StepPath.sharedRows) : rowLimit }

    // MARK: - The decision

    /// What a step takes: activations of its shape, and keys and values that are missing.
    private struct Need {
        var shape = StepShape(rows: 0)
        var growth = 0

        mutating func add(_ sequence: SequenceState, count: Int, position: Int, kvHeadCount: Int) {
            AttentionPlan.add(count: count, position: position, kvHeadCount: kvHeadCount, to: &shape)
            growth += sequence.growth(to: position + count)
        }
    }

    /// Lays a step's residual stream aside and keeps the room of its activations; nil: takes it up again.
    func layAside(_ batch: Batch?) {
        let shape = batch.map { need($0.segments).shape }
        suspended.withLock { $0 = shape }
        parts.layAside()
    }

    private func beside(_ shape: StepShape) -> StepShape { shape.keeping(suspended.withLock { $0 }) }

    private func byteCount(_ shape: StepShape) -> BufferCounter { parts.byteCount(beside(shape)) }

    private func reserve(_ shape: StepShape) throws { try parts.reserve(beside(shape)) }

    private func need(_ segments: [Batch.Segment]) -> Need {
        var need = Need()
        for segment in segments {
            need.add(
                segment.sequence, count: segment.count, position: segment.position,
                kvHeadCount: context.configuration.kvHeadCount)
        }
        return need
    }

    /// Rows, at most `limit`, by which the sequence can grow beside the batch: so many that a sweep's reads find slots, else so many that a
    /// token's remain.
    func room(for sequence: SequenceState, limit: Int, beside batch: Batch) -> Int {
        let limit = min(limit, batchRowLimit - batch.tokens.count)
        guard limit > 0, let budget else { return max(0, limit) }
        let before = need(batch.segments)
        func fits(_ count: Int, slots: Int) -> Bool {
            var need = before
            need.add(
                sequence, count: count, position: sequence.length, kvHeadCount: context.configuration.kvHeadCount)
            return budget.grants(
                kvGrowth: need.growth, activations: byteCount(need.shape).needed, slots: slots)
        }
        for slots in [plan.sweepSlots, plan.leastSlots] {
            if fits(limit, slots: slots) { return limit }
            var (fitting, failing) = (0, limit)
            while failing - fitting > 1 {
                let middle = (fitting + failing) / 2
                if fits(middle, slots: slots) { fitting = middle } else { failing = middle }
            }
            if fitting > 0 { return fitting }
            // A step of one row has softmax states of its splits that larger ones don't have, and can be the only one that fits all the same.
            if fits(1, slots: slots) { return 1 }
        }
        return 0
    }

    /// Whether the sequence could have so many positions, one row at a time.
    func hasRoom(for sequence: SequenceState, positions: Int) -> Bool {
        guard let budget else { return true }
        let need = need(sequence, positions: positions)
        return budget.grants(
            kvGrowth: need.growth, activations: byteCount(need.shape).needed, slots: plan.leastSlots)
    }

    /// Of the last row of so many positions, whose keys and values come by other ways than steps.
    private func need(_ sequence: SequenceState, positions: Int) -> Need {
        var need = Need()
        AttentionPlan.add(
            count: 1, position: max(0, positions - 1), kvHeadCount: context.configuration.kvHeadCount, to: &need.shape)
        need.growth = sequence.growth(to: positions)
        return need
    }

    /// Takes keys and values outside a step.
    /// - Throws: as `grant`.
    func reserve(_ positions: Int, of sequence: SequenceState, cache: ExpertCache?) throws {
        try grant(need(sequence, positions: positions), cache: cache)
        try sequence.reserve(positions)
    }

    /// Before a step takes memory for its rows and positions: slots give theirs, and activations that were needed for a long prompt go.
    ///
    /// - Throws: `SigmaError(.unavailable)` if fewer slots than a token needs would remain.
    func grant(_ batch: Batch, cache: ExpertCache?) throws { try grant(need(batch.segments), cache: cache) }

    private func grant(_ need: Need, cache: ExpertCache?) throws {
        guard budget != nil || !plan.isResident else { return try reserve(need.shape) }
        var bytes = byteCount(need.shape)
        let isIdle = bytes.held > 2 * bytes.needed + Self.idleActivationBytes
        let isInTheWay =
            budget.map { !$0.grants(kvGrowth: need.growth, activations: bytes.kept, slots: plan.sweepSlots) } ?? false
        if suspended.withLock({ $0 == nil }), isIdle || isInTheWay {
            parts.release()
            bytes = byteCount(need.shape)
        }
        if let budget {
            guard budget.grants(kvGrowth: need.growth, activations: bytes.kept, slots: plan.leastSlots) else {
                throw SigmaError(
                    .unavailable,
                    "the memory budget of \((plan.budget ?? 0) >> 20) MiB has no room for \((need.growth + bytes.needed) >> 20) MiB more of keys, values and activations",
                    remedy: .anyOf([
                        .raise(.memory, least: nil), "Shorten the prompt.", "Use fewer sequences at once.",
                        .set(.kvType, to: "q8_0"),
                    ]))
            }
            cache?.setSlotLimit(budget.slots(kvGrowth: need.growth, activations: bytes.kept))
        }
        try reserve(need.shape)
    }
}

/// The parts of the back end that own activations.
final class CPUParts: @unchecked Sendable {
    let context: CPUContext
    let attention: CPUAttention
    let feedForward: CPUFeedForward
    let head: CPUHead
    /// Held while buffers change or are counted: other threads count.
    private let lock = Mutex<Void>(())

    init(_ context: CPUContext, _ paging: WeightPaging) {
        self.context = context
        attention = CPUAttention(context)
        head = CPUHead(context)
        feedForward = CPUFeedForward(context, attention: attention, head: head, paging: paging)
    }

    private func visit(_ shape: StepShape, _ visitor: inout some BufferVisitor) throws {
        try lock.withLock { _ in
            try context.activations.visit(shape, &visitor)
            try attention.buffers.visit(shape, &visitor)
            try feedForward.buffers.visit(shape, &visitor)
            try head.buffers.visit(shape, &visitor)
        }
    }

    func layAside() { lock.withLock { _ in context.activations.layAside() } }

    /// - Throws: `SigmaError(.unavailable)` if memory ends.
    func reserve(_ shape: StepShape) throws {
        var reserver = BufferReserver()
        try visit(shape, &reserver)
    }

    func byteCount(_ shape: StepShape) -> BufferCounter {
        var counter = BufferCounter()
        // Counting takes nothing.
        try? visit(shape, &counter)
        return counter
    }

    func release() {
        var releaser = BufferReleaser()
        try? visit(StepShape(rows: 0), &releaser)
    }
}

extension MemoryPlan {
    /// What the model would use under the limits.
    /// - Throws: `SigmaError(.unavailable)` if they are too small.
    init(_ model: ModelFile, _ weights: ModelWeights, limits: MemoryLimits, parts: CPUParts) throws {
        self.init(model, weights, limits: limits)
        func bytes(rows: Int, position: Int = 0) -> Int {
            var shape = StepShape(rows: 0)
            AttentionPlan.add(
                count: rows, position: position, kvHeadCount: model.configuration.kvHeadCount, to: &shape)
            return parts.byteCount(shape).needed
        }
        let (rows, blocks) = (1024, 1024)
        // Buffers are whole pages: two of them grow with the positions.
        activationBytes = bytes(rows: 1) + 2 * 4096
        activationRowBytes = (bytes(rows: rows) - activationBytes) / (rows - 1) + 1
        activationBlockBytes =
            (bytes(rows: 1, position: blocks * KVBlockLayout.length) - bytes(rows: 1)) / blocks + 1
        decide(limits)
        try check(path: model.path)
    }
}
