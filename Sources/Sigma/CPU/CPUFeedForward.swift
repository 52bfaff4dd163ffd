import CSigma

/// Which products a layer's feed-forward needs: made by one member once the choices of all rows are known.
struct FeedForwardPlan {
    /// One MLP and the slots that it serves.
    struct Group {
        var gate: WeightMatrix
        var up: WeightMatrix
        var down: WeightMatrix
        var firstSlot: Int
        var count: Int
    }
    struct Item {
        var group: Int
        var tile: Int
    }

    /// Experts that a row chooses; shared or dense MLPs add one slot a row behind all of theirs.
    var choices = 0
    /// The experts that rows chose, in ascending order.
    var chosen: [Int] = []
    /// The dense or shared MLP.
    var alwaysOn: Group?

    // The wave: what is computed now, and whether anything follows.
    var wave = ExpertWave()
    var isLast = false
    var groups: [Group] = []
    var gateItems: [Item] = []
    var downItems: [Item] = []
    /// [experts + 1]: each expert's first slot.
    var offsets: [Int] = []
    /// [experts]: the next free slot while rows are sorted.
    var ends: [Int] = []

    mutating func removeGroups() {
        groups.removeAll(keepingCapacity: true)
        gateItems.removeAll(keepingCapacity: true)
        downItems.removeAll(keepingCapacity: true)
    }

    mutating func add(_ group: Group) {
        guard group.count > 0 else { return }
        groups.append(group)
        for tile in 0..<CPUBackend.tiles(group.gate.rows) {
            gateItems.append(Item(group: groups.count - 1, tile: tile))
        }
        for tile in 0..<CPUBackend.tiles(group.down.rows) {
            downItems.append(Item(group: groups.count - 1, tile: tile))
        }
    }
}

extension CPUBackend {
    /// Rows of a product that are held beside each other before they are used up.
    static let rowPiece = 256

    func reserveFeedForward(_ workspace: inout Workspace, rows: Int) throws {
        let c = configuration
        let choices = c.expertsPerToken.max() ?? 0
        // A dense layer and the shared experts use one slot a row.
        let slots = rows * (choices + 1)
        try workspace.scores.reserve(rows * c.expertCount)
        if keepsRouterLogits { try workspace.routerLogits.reserve(rows * c.expertCount) }
        try workspace.chosen.reserve(rows * choices)
        try workspace.weights.reserve(rows * choices)
        try workspace.slots.reserve(rows * choices)
        try workspace.slotRows.reserve(slots)
        try workspace.gated.reserve(slots * gatedWidth)
        try workspace.gatedQuantized.reserve(slots * (gatedWidth / 32))
        try workspace.expertOutputs.reserve(slots * c.hiddenSize)
        try workspace.feedForward.reserve(rows * c.hiddenSize)
    }

    package func feedForward(layer: Int) throws {
        layerIndex = layer
        expertFailure = nil
        run(.feedForward)
        if let expertFailure { throw expertFailure }
        experts.release(plan.wave)
        if layer == configuration.layerCount - 1 { try experts.confirm() }
    }

    package func layerRouting() -> LayerRouting? {
        precondition(keepsRouterLogits)
        guard case .mixture = weights.layers[layerIndex].feedForward else { return nil }
        return LayerRouting(
            rows: rowCount, logits: UnsafePointer(workspace.routerLogits.base),
            chosen: UnsafePointer(workspace.chosen.base))
    }

    /// Routing of all rows; then experts in waves, each when its records are there; then the sum.
    func feedForwardBody(_ member: Int32) {
        let layer = weights.layers[layerIndex]
        while let row = team.take(0, of: rowCount) {
            normalize(row: row, to: row, layer.feedForwardNorm, quantized: needsQuantizedInput(layer.feedForward))
            if case .mixture(let router, let bias, _, _) = layer.feedForward { route(row, router, bias, member) }
        }
        if let foresight, foresight.isActive {
            while let item = team.take(4, of: foresight.items(behind: layerIndex)) { foresee(item, member) }
        }
        team.barrier(member)
        if member == 0 {
            sortRows(layer.feedForward)
            planWave(isFirst: true)
        }
        team.barrier(member)

        while true {
            while let item = team.take(1, of: plan.gateItems.count) { gateAndUp(plan.gateItems[item], member) }
            team.barrier(member)
            while let item = team.take(2, of: plan.downItems.count) { down(plan.downItems[item], member) }
            team.barrier(member)
            if plan.isLast { break }
            if member == 0 { planWave(isFirst: false) }
            team.barrier(member)
        }
        while let row = team.take(3, of: rowCount) { combine(row) }
    }

    private func needsQuantizedInput(_ feedForward: LayerWeights.FeedForward) -> Bool {
        switch feedForward {
        case .dense(let mlp): return mlp.gate.type.isQuantized || mlp.up.type.isQuantized
        case .mixture(_, _, let experts, let shared):
            return experts.layout.gateType.isQuantized || experts.layout.upType.isQuantized
                || (shared.map { $0.gate.type.isQuantized || $0.up.type.isQuantized } ?? false)
        }
    }

    /// Scores and choice of one row, in fp32: the router never goes through 8-bit activations.
    private func route(_ row: Int, _ router: WeightMatrix, _ bias: FloatVector?, _ member: Int32) {
        let c = configuration
        let choices = c.expertsPerToken[layerIndex]
        let scores = workspace.scores.base + row * c.expertCount
        var input = activations(
            workspace.normed.base, workspace.normedQuantized, width: c.hiddenSize, first: row)
        kernels.matmul_float(
            router.data, Int32(router.type.rawValue), Int32(c.expertCount), Int32(c.hiddenSize), &input, 1, scores,
            c.expertCount)
        if keepsRouterLogits {
            (workspace.routerLogits.base + row * c.expertCount).update(from: scores, count: c.expertCount)
        }
        Routing.score(scores, count: c.expertCount, c.scoring)
        let normalizes: Bool
        switch c.weightNormalization {
        case .never: normalizes = false
        case .whenSeveral: normalizes = choices > 1
        case .always: normalizes = true
        }
        Routing.choose(
            scores: scores, bias: bias?.pointer, count: c.expertCount, choices: choices, normalizes: normalizes,
            scalingFactor: c.routedScalingFactor, chosen: workspace.chosen.base + row * choices,
            weights: workspace.weights.base + row * choices,
            isTaken: UnsafeMutableRawPointer(scratch(member)).assumingMemoryBound(to: Bool.self))
    }

    /// Groups the rows by expert (a counting sort, rows in order inside an expert), and asks for the experts that were chosen.
    private func sortRows(_ feedForward: LayerWeights.FeedForward) {
        let choices = configuration.expertsPerToken[layerIndex]
        let routed = rowCount * choices
        plan.choices = choices
        plan.chosen.removeAll(keepingCapacity: true)
        var alwaysOn: MLPWeights?
        switch feedForward {
        case .dense(let mlp): alwaysOn = mlp
        case .mixture(let router, _, let records, let shared):
            stepBytes += router.byteCount
            alwaysOn = shared
            let count = records.count
            if plan.offsets.count != count + 1 {
                plan.offsets = Array(repeating: 0, count: count + 1)
                plan.ends = Array(repeating: 0, count: count)
            }
            for expert in 0...count { plan.offsets[expert] = 0 }
            for index in 0..<routed { plan.offsets[Int(workspace.chosen.base[index]) + 1] += 1 }
            for expert in 0..<count {
                if plan.offsets[expert + 1] > 0 { plan.chosen.append(expert) }
                plan.offsets[expert + 1] += plan.offsets[expert]
                plan.ends[expert] = plan.offsets[expert]
            }
            for index in 0..<routed {
                let expert = Int(workspace.chosen.base[index])
                let slot = plan.ends[expert]
                plan.ends[expert] += 1
                workspace.slots.base[index] = Int32(slot)
                workspace.slotRows.base[slot] = Int32(index / choices)
            }
        }
        plan.alwaysOn = alwaysOn.map { mlp in
            for row in 0..<rowCount { workspace.slotRows.base[routed + row] = Int32(row) }
            return .init(gate: mlp.gate, up: mlp.up, down: mlp.down, firstSlot: routed, count: rowCount)
        }
        experts.request(plan.chosen, layer: layerIndex)
        foresight?.tell(layer: layerIndex, chosen: plan.chosen)
    }

    /// What is computed next: the experts whose records are there; with the first ones the MLP that every row goes through, which waits for
    /// nothing. A failure ends the layer.
    private func planWave(isFirst: Bool) {
        if !isFirst {
            experts.release(plan.wave)
            team.reset(1)
            team.reset(2)
        }
        plan.removeGroups()
        let always = isFirst ? plan.alwaysOn : nil
        do {
            plan.isLast = try !experts.take(&plan.wave, waits: always == nil)
        } catch {
            plan.wave.removeAll()
            plan.isLast = true
            expertFailure = error
        }
        if let always { plan.add(always) }
        if case .mixture(_, _, let records, _) = weights.layers[layerIndex].feedForward {
            for (expert, record) in zip(plan.wave.experts, plan.wave.records) {
                plan.add(
                    .init(
                        gate: records.layout.gate(at: record), up: records.layout.up(at: record),
                        down: records.layout.down(at: record), firstSlot: plan.offsets[expert],
                        count: plan.offsets[expert + 1] - plan.offsets[expert]))
            }
        }
        for group in plan.groups { stepBytes += group.gate.byteCount + group.up.byteCount + group.down.byteCount }
    }

    /// gated = silu(gate x) * (up x) for one tile of outputs of one group, and its 8-bit form for the product with down.
    private func gateAndUp(_ item: FeedForwardPlan.Item, _ member: Int32) {
        let group = plan.groups[item.group]
        let width = group.gate.rows
        let first = item.tile * Self.outputTile
        let count = min(Self.outputTile, width - first)
        let gateOut = scratch(member) + scratchLength - 2 * Self.rowPiece * Self.outputTile
        let upOut = gateOut + Self.rowPiece * Self.outputTile
        var done = 0
        while done < group.count {
            let piece = min(Self.rowPiece, group.count - done)
            let slot = group.firstSlot + done
            let input = activations(
                workspace.normed.base, workspace.normedQuantized, width: configuration.hiddenSize,
                index: UnsafePointer(workspace.slotRows.base + slot))
            multiply(group.gate, first, count, input, rows: piece, gateOut, stride: Self.outputTile, member)
            multiply(group.up, first, count, input, rows: piece, upOut, stride: Self.outputTile, member)
            for i in 0..<piece {
                let gated = workspace.gated.base + (slot + i) * gatedWidth + first
                kernels.silu_multiply(
                    gateOut + i * Self.outputTile, upOut + i * Self.outputTile, gated, Int32(count))
                if group.down.type.isQuantized {
                    kernels.quantize_activations(
                        gated, workspace.gatedQuantized.base + (slot + i) * (gatedWidth / 32) + first / 32, Int32(count)
                    )
                }
            }
            done += piece
        }
    }

    private func down(_ item: FeedForwardPlan.Item, _ member: Int32) {
        let group = plan.groups[item.group]
        let first = item.tile * Self.outputTile
        let hidden = configuration.hiddenSize
        let input = activations(
            workspace.gated.base, workspace.gatedQuantized, width: gatedWidth, first: group.firstSlot)
        multiply(
            group.down, first, min(Self.outputTile, hidden - first), input, rows: group.count,
            workspace.expertOutputs.base + group.firstSlot * hidden + first, stride: hidden, member)
    }

    /// feedForward = weighted sum of the row's experts in the order of the choice, plus the shared or dense MLP; residual += feedForward.
    private func combine(_ row: Int) {
        let hidden = configuration.hiddenSize
        let out = workspace.feedForward.base + row * hidden
        out.update(repeating: 0, count: hidden)
        for choice in 0..<plan.choices {
            let index = row * plan.choices + choice
            kernels.add_scaled(
                out, workspace.weights.base[index],
                workspace.expertOutputs.base + Int(workspace.slots.base[index]) * hidden, Int32(hidden))
        }
        if let always = plan.alwaysOn {
            kernels.add_scaled(
                out, 1, workspace.expertOutputs.base + (always.firstSlot + row) * hidden, Int32(hidden))
        }
        kernels.add_scaled(workspace.residual.base + row * hidden, 1, out, Int32(hidden))
    }
}
