import CSigma

extension CPUBackend {
    /// Rows of a product that are held beside each other before they are used up.
    static let rowPiece = 256
    /// Experts whose scores are computed at a time.
    static let routerTile = 8
    /// Rows that a member scores at a time.
    static let routerRows = 8

    var routerTiles: Int { (configuration.expertCount + Self.routerTile - 1) / Self.routerTile }

    func reserveFeedForward(_ workspace: inout Workspace, rows: Int) throws {
        let c = configuration
        let choices = c.expertsPerToken.max() ?? 0
        // A dense layer and the shared experts use one slot a row.
        let slots = rows * (choices + 1)
        let members = team.memberCount
        let ownRows = min(rows, Self.rowsNormalizedAlone)
        try workspace.scores.reserve((rows + members * ownRows) * c.expertCount)
        try workspace.routerLogits.reserve(rows * c.expertCount)
        try workspace.chosen.reserve((rows + members * ownRows) * choices)
        try workspace.weights.reserve((rows + members * ownRows) * choices)
        try workspace.slots.reserve(members * rows * choices)
        try workspace.slotRows.reserve(members * slots)
        try workspace.offsets.reserve(members * (c.expertCount + 1))
        try workspace.groups.reserve(members * (c.expertCount + 1))
        try workspace.gated.reserve(slots * gatedWidth)
        try workspace.gatedQuantized.reserve(slots * (gatedWidth / 32))
        try workspace.expertOutputs.reserve(slots * c.hiddenSize)
        try workspace.feedForward.reserve(rows * c.hiddenSize)
    }

    /// Every member's plan has its place in the workspace, which may have moved.
    func layPlans() {
        let c = configuration
        let rows = rowCount
        let choices = c.expertsPerToken.max() ?? 0
        let slots = rows * (choices + 1)
        let ownRows = min(rows, Self.rowsNormalizedAlone)
        for member in 0..<team.memberCount {
            // Where every member routes the rows itself, it needs its own place for the result.
            let own = normalizesAlone ? rows + member * ownRows : 0
            plans[member] = FeedForwardPlan(
                scores: workspace.scores.base + own * c.expertCount, chosen: workspace.chosen.base + own * choices,
                weights: workspace.weights.base + own * choices,
                slots: workspace.slots.base + member * rows * choices,
                slotRows: workspace.slotRows.base + member * slots,
                offsets: workspace.offsets.base + member * (c.expertCount + 1),
                groups: workspace.groups.base + member * (c.expertCount + 1))
        }
    }

    package func feedForward(layer: Int) throws {
        layerIndex = layer
        if let router = layers[layer].router { stepBytes += router.byteCount }
        if expertCache != nil, layers[layer].experts != nil {
            try computeInWaves()
            return
        }
        run(.feedForward)
        let plan = plans[0]
        for index in 0..<plan.groupCount {
            let group = plan.groups[index]
            stepBytes += group.gate.byteCount + group.up.byteCount + group.down.byteCount
        }
    }

    package func layerRouting() -> LayerRouting? {
        guard layers[layerIndex].router != nil else { return nil }
        return LayerRouting(
            rows: rowCount, logits: UnsafePointer(workspace.routerLogits.base), chosen: UnsafePointer(plans[0].chosen))
    }

    func feedForwardBody(_ member: Int32) {
        let layer = layers[layerIndex]
        route(layer, member)
        makePlan(layer, member)
        let plan = plans + Int(member)

        while let item = team.take(1, of: plan.pointee.gateItems, member) { gateAndUp(item, plan, member) }
        if isFewRows {
            let group = plan.pointee.group(ofDownItem: team.share(member, of: plan.pointee.downItems))
            let item = team.share(member, of: plan.pointee.downItems) - group.firstDownItem
            prefetch(group.down, item * Self.outputTile)
        }
        team.barrier(member)
        while let item = team.take(2, of: plan.pointee.downItems, member) { down(item, plan, member) }
        endLayer(plan, member)
    }

    /// What is left when the member's last tiles of down are done.
    func endLayer(_ plan: UnsafeMutablePointer<FeedForwardPlan>, _ member: Int32) {
        if isFewRows { prefetchAttention(layer: layerIndex + 1, member) }
        if plan.pointee.hasOneSlotPerRow { return }
        team.barrier(member)
        while let row = team.take(3, of: rowCount, member) { combine(row, plan) }
    }

    /// Norm, scores and choices of all rows. With few rows the experts are divided among the members, else the rows.
    func route(_ layer: CPULayer, _ member: Int32) {
        let c = configuration
        let hidden = c.hiddenSize
        let quantized = layer.quantizesFeedForwardInput
        let choices = c.expertsPerToken[layerIndex]
        let plan = plans + Int(member)
        plan.pointee.choices = choices
        guard let router = layer.router else {
            _ = normalizeRows(layer.feedForwardNorm, quantized: quantized, list: 0, member)
            return
        }
        /// Scores of some experts, in fp32: the router never goes through 8-bit activations.
        func score(rows: Range<Int>, experts: Range<Int>, _ normed: UnsafePointer<Float>) {
            var input = activations(normed, workspace.normedQuantized, width: hidden)
            kernels.matmul_float(
                router.data(row: experts.lowerBound), Int32(router.type.rawValue), Int32(experts.count), Int32(hidden),
                &input, Int32(rows.count),
                workspace.routerLogits.base + rows.lowerBound * c.expertCount + experts.lowerBound, c.expertCount)
        }
        func choose(_ row: Int) {
            let scores = plan.pointee.scores + row * c.expertCount
            scores.update(from: workspace.routerLogits.base + row * c.expertCount, count: c.expertCount)
            Routing.score(scores, count: c.expertCount, c.scoring)
            Routing.choose(
                scores: scores, bias: layer.selectionBias, count: c.expertCount, choices: choices,
                normalizes: c.normalizesWeights(choices: choices), scalingFactor: c.routedScalingFactor,
                chosen: plan.pointee.chosen + row * choices, weights: plan.pointee.weights + row * choices,
                isTaken: UnsafeMutableRawPointer(scratch(member)).assumingMemoryBound(to: Bool.self))
        }

        if normalizesAlone {
            let normed = normalizeRows(layer.feedForwardNorm, quantized: quantized, list: 0, member)
            while let tile = team.take(4, of: routerTiles, member) {
                let first = tile * Self.routerTile
                score(rows: 0..<rowCount, experts: first..<min(first + Self.routerTile, c.expertCount), normed.values)
            }
            team.barrier(member)
            for row in 0..<rowCount { choose(row) }
        } else {
            let blocks = (rowCount + Self.routerRows - 1) / Self.routerRows
            while let block = team.take(0, of: blocks, member) {
                let rows = block * Self.routerRows..<min((block + 1) * Self.routerRows, rowCount)
                for row in rows { normalize(row: row, to: row, layer.feedForwardNorm, quantized: quantized) }
                score(rows: rows, experts: 0..<c.expertCount, workspace.normed.base + rows.lowerBound * hidden)
                for row in rows { choose(row) }
            }
            team.barrier(member)
        }
    }

    private func makePlan(_ layer: CPULayer, _ member: Int32) {
        let plan = plans + Int(member)
        plan.pointee.removeGroups()
        var routed = 0
        if let experts = layer.experts {
            routed = rowCount * plan.pointee.choices
            plan.pointee.sort(rows: rowCount, experts: experts.count)
            for expert in 0..<experts.count where plan.pointee.isChosen(expert) {
                if member == 0 { paging.requestExpert(expert, layer: layerIndex, of: experts) }
                plan.pointee.add(expert: expert, at: experts.record(expert), experts.layout)
            }
        }
        plan.pointee.hasAlwaysOn = layer.alwaysOn != nil
        if let mlp = layer.alwaysOn { plan.pointee.add(mlp, behind: routed, rows: rowCount) }
    }

    /// gated = silu(gate x) * (up x) for one tile of outputs of one group, and its 8-bit form for the product with down.
    func gateAndUp(_ item: Int, _ plan: UnsafeMutablePointer<FeedForwardPlan>, _ member: Int32) {
        let group = plan.pointee.group(ofGateItem: item)
        let first = (item - group.firstGateItem) * Self.outputTile
        let count = min(Self.outputTile, group.gate.rows - first)
        let gateOut = scratch(member) + scratchLength - 2 * Self.rowPiece * Self.outputTile
        let upOut = gateOut + Self.rowPiece * Self.outputTile
        let normed = normedRows(member)
        var done = 0
        while done < group.count {
            let piece = min(Self.rowPiece, group.count - done)
            let slot = group.firstSlot + done
            var input = normed
            input.index = UnsafePointer(plan.pointee.slotRows + slot)
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

    /// One tile of a group's down projection. Where it is all that its rows get, it goes to the residual stream at once.
    func down(_ item: Int, _ plan: UnsafeMutablePointer<FeedForwardPlan>, _ member: Int32) {
        let group = plan.pointee.group(ofDownItem: item)
        let first = (item - group.firstDownItem) * Self.outputTile
        let hidden = configuration.hiddenSize
        let count = min(Self.outputTile, hidden - first)
        guard plan.pointee.hasOneSlotPerRow else {
            let input = activations(
                workspace.gated.base, workspace.gatedQuantized, width: gatedWidth, first: group.firstSlot)
            multiply(
                group.down, first, count, input, rows: group.count,
                workspace.expertOutputs.base + group.firstSlot * hidden + first, stride: hidden, member)
            return
        }
        let out = scratch(member) + scratchLength - Self.rowPiece * Self.outputTile
        var done = 0
        while done < group.count {
            let piece = min(Self.rowPiece, group.count - done)
            let slot = group.firstSlot + done
            let input = activations(workspace.gated.base, workspace.gatedQuantized, width: gatedWidth, first: slot)
            multiply(group.down, first, count, input, rows: piece, out, stride: Self.outputTile, member)
            for i in 0..<piece {
                let row = Int(plan.pointee.slotRows[slot + i])
                let sum = workspace.feedForward.base + row * hidden + first
                sum.update(repeating: 0, count: count)
                let weight = plan.pointee.choices == 0 ? 1 : plan.pointee.weights[row]
                kernels.add_scaled(sum, weight, out + i * Self.outputTile, Int32(count))
                kernels.add_scaled(workspace.residual.base + row * hidden + first, 1, sum, Int32(count))
            }
            done += piece
        }
    }

    /// feedForward = weighted sum of the row's experts in the order of the choice, plus the shared experts; residual += feedForward.
    private func combine(_ row: Int, _ plan: UnsafeMutablePointer<FeedForwardPlan>) {
        let hidden = configuration.hiddenSize
        let choices = plan.pointee.choices
        let out = workspace.feedForward.base + row * hidden
        out.update(repeating: 0, count: hidden)
        for index in row * choices..<(row + 1) * choices {
            kernels.add_scaled(
                out, plan.pointee.weights[index],
                workspace.expertOutputs.base + Int(plan.pointee.slots[index]) * hidden, Int32(hidden))
        }
        if plan.pointee.hasAlwaysOn {
            kernels.add_scaled(
                out, 1, workspace.expertOutputs.base + (rowCount * choices + row) * hidden, Int32(hidden))
        }
        kernels.add_scaled(workspace.residual.base + row * hidden, 1, out, Int32(hidden))
    }
}
