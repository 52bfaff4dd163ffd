import CSigma

/// The feed-forward half of a layer: norm, router, choice and experts (or a dense MLP), shared experts; residual += their weighted sum. One
/// operation of the team.
final class CPUFeedForward: TeamOperation, @unchecked Sendable {
    /// Experts whose scores are computed at a time, and rows that a member scores at a time.
    static let routerTile = 8
    private static let routerRows = 8

    static func routerTiles(_ c: ModelConfiguration) -> Int { (c.expertCount + routerTile - 1) / routerTile }

    let context: CPUContext
    let configuration: ModelConfiguration
    private let attention: CPUAttention
    private let head: CPUHead
    private let paging: WeightPaging
    var buffers: FeedForwardBuffers
    /// [members]
    let plans: UnsafeMutablePointer<FeedForwardPlan>
    // Of the layer that is computed now.
    private(set) var layerIndex = 0
    private(set) var layer: CPULayer

    /// - Parameters:
    ///   - attention: what follows a layer.
    ///   - head: what follows the last one.
    init(_ context: CPUContext, attention: CPUAttention, head: CPUHead, paging: WeightPaging) {
        self.context = context
        configuration = context.configuration
        self.attention = attention
        self.head = head
        self.paging = paging
        buffers = FeedForwardBuffers(
            configuration, memberCount: context.team.memberCount, gatedWidth: context.gatedWidth)
        plans = .allocate(capacity: context.team.memberCount)
        layer = context.layers[0]
    }

    deinit { plans.deallocate() }

    var kernels: sigma_kernels { context.kernels }
    var team: ThreadTeam { context.team }
    var rowCount: Int { context.rowCount }

    /// Lays the members' plans into the buffers, which have room for the step.
    func begin() {
        for member in 0..<team.memberCount {
            plans[member] = buffers.plan(
                member: member, rows: rowCount, routesAlone: context.normalizesAlone)
        }
    }

    /// A layer whose experts all lie in memory.
    func compute(layer index: Int) {
        use(layer: index)
        team.run(self)
        let plan = plans[0]
        for index in 0..<plan.groupCount {
            let group = plan.groups[index]
            context.stepBytes += group.gate.byteCount + group.up.byteCount + group.down.byteCount
        }
    }

    /// The layer that is computed next.
    func use(layer index: Int) {
        layerIndex = index
        layer = context.layers[index]
        if let router = layer.router { context.stepBytes += router.byteCount }
    }

    /// What the router of the layer computed last gave; nil for a dense layer.
    var routing: LayerRouting? {
        guard layer.router != nil else { return nil }
        return LayerRouting(
            rows: rowCount, logits: UnsafePointer(buffers.routerLogits.base), chosen: UnsafePointer(plans[0].chosen))
    }

    override func perform(_ member: Int32) {
        let layer = layer
        route(layer, member)
        makePlan(layer, member)
        let plan = plans + Int(member)

        while let item = team.take(1, of: plan.pointee.gateItems, member) { gateAndUp(item, plan, member) }
        if context.isFewRows {
            let group = plan.pointee.group(ofDownItem: team.share(member, of: plan.pointee.downItems))
            let item = team.share(member, of: plan.pointee.downItems) - group.firstDownItem
            context.prefetch(group.down, item * CPUContext.outputTile)
        }
        team.barrier(member)
        while let item = team.take(2, of: plan.pointee.downItems, member) { down(item, plan, member) }
        endLayer(plan, member)
    }

    /// What is left when the member's last tiles of down are done.
    func endLayer(_ plan: UnsafeMutablePointer<FeedForwardPlan>, _ member: Int32) {
        if context.isFewRows { prefetchNext(member) }
        if plan.pointee.hasOneSlotPerRow { return }
        team.barrier(member)
        while let row = team.take(3, of: rowCount, member) { combine(row, plan) }
    }

    /// Prefetches what the member reads first behind this layer.
    private func prefetchNext(_ member: Int32) {
        if layerIndex + 1 < context.layers.count {
            attention.prefetch(layer: layerIndex + 1, member)
        } else {
            head.prefetch(member)
        }
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
            _ = context.normalizeRows(layer.feedForwardNorm, quantized: quantized, list: 0, member)
            return
        }
        /// Scores of some experts, in fp32: the router never goes through 8-bit activations.
        func score(rows: Range<Int>, experts: Range<Int>, _ normed: UnsafePointer<Float>) {
            var input = context.input(normed, context.activations.normedQuantized, width: hidden)
            kernels.matmul_float(
                router.data(row: experts.lowerBound), Int32(router.type.rawValue), Int32(experts.count), Int32(hidden),
                &input, Int32(rows.count),
                buffers.routerLogits.base + rows.lowerBound * c.expertCount + experts.lowerBound, c.expertCount)
        }
        func choose(_ row: Int) {
            let scores = plan.pointee.scores + row * c.expertCount
            scores.update(from: buffers.routerLogits.base + row * c.expertCount, count: c.expertCount)
            Routing.score(scores, count: c.expertCount, c.scoring)
            Routing.choose(
                scores: scores, bias: layer.selectionBias, count: c.expertCount, choices: choices,
                normalizes: c.normalizesWeights(choices: choices), scalingFactor: c.routedScalingFactor,
                chosen: plan.pointee.chosen + row * choices, weights: plan.pointee.weights + row * choices,
                isTaken: UnsafeMutableRawPointer(context.scratch(member)).assumingMemoryBound(to: Bool.self))
        }

        if context.normalizesAlone {
            let normed = context.normalizeRows(layer.feedForwardNorm, quantized: quantized, list: 0, member)
            while let tile = team.take(4, of: Self.routerTiles(c), member) {
                let first = tile * Self.routerTile
                score(rows: 0..<rowCount, experts: first..<min(first + Self.routerTile, c.expertCount), normed.values)
            }
            team.barrier(member)
            for row in 0..<rowCount { choose(row) }
        } else {
            // Of few rows each member gets some.
            let blockRows = min(Self.routerRows, (rowCount + team.memberCount - 1) / team.memberCount)
            let blocks = (rowCount + blockRows - 1) / blockRows
            while let block = team.take(0, of: blocks, member) {
                let rows = block * blockRows..<min((block + 1) * blockRows, rowCount)
                for row in rows { context.normalize(row: row, to: row, layer.feedForwardNorm, quantized: quantized) }
                score(
                    rows: rows, experts: 0..<c.expertCount, context.activations.normed.base + rows.lowerBound * hidden)
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
        let first = (item - group.firstGateItem) * CPUContext.outputTile
        let count = min(CPUContext.outputTile, group.gate.rows - first)
        let gateOut = context.scratch(member) + context.scratchLength - 2 * StepPath.rowPiece * CPUContext.outputTile
        let upOut = gateOut + StepPath.rowPiece * CPUContext.outputTile
        let normed = context.normedRows(member)
        var done = 0
        while done < group.count {
            let piece = min(StepPath.rowPiece, group.count - done)
            let slot = group.firstSlot + done
            var input = normed
            input.index = UnsafePointer(plan.pointee.slotRows + slot)
            context.multiply(
                group.gate, first, count, input, rows: piece, gateOut, stride: CPUContext.outputTile, member)
            context.multiply(group.up, first, count, input, rows: piece, upOut, stride: CPUContext.outputTile, member)
            for i in 0..<piece {
                let gated = buffers.gated.base + (slot + i) * context.gatedWidth + first
                kernels.silu_multiply(
                    gateOut + i * CPUContext.outputTile, upOut + i * CPUContext.outputTile, gated, Int32(count))
                if group.down.type.isQuantized {
                    kernels.quantize_activations(
                        gated, buffers.gatedQuantized.base + (slot + i) * (context.gatedWidth / 32) + first / 32,
                        Int32(count)
                    )
                }
            }
            done += piece
        }
    }

    /// One tile of a group's down projection. Where it is all that its rows get, it goes to the residual stream at once.
    func down(_ item: Int, _ plan: UnsafeMutablePointer<FeedForwardPlan>, _ member: Int32) {
        let group = plan.pointee.group(ofDownItem: item)
        let first = (item - group.firstDownItem) * CPUContext.outputTile
        let hidden = configuration.hiddenSize
        let count = min(CPUContext.outputTile, hidden - first)
        guard plan.pointee.hasOneSlotPerRow else {
            let input = context.input(
                buffers.gated.base, buffers.gatedQuantized, width: context.gatedWidth, first: group.firstSlot)
            context.multiply(
                group.down, first, count, input, rows: group.count,
                buffers.expertOutputs.base + group.firstSlot * hidden + first, stride: hidden, member)
            return
        }
        let out = context.scratch(member) + context.scratchLength - StepPath.rowPiece * CPUContext.outputTile
        var done = 0
        while done < group.count {
            let piece = min(StepPath.rowPiece, group.count - done)
            let slot = group.firstSlot + done
            let input = context.input(
                buffers.gated.base, buffers.gatedQuantized, width: context.gatedWidth, first: slot)
            context.multiply(group.down, first, count, input, rows: piece, out, stride: CPUContext.outputTile, member)
            for i in 0..<piece {
                let row = Int(plan.pointee.slotRows[slot + i])
                let sum = buffers.feedForward.base + row * hidden + first
                sum.update(repeating: 0, count: count)
                let weight = plan.pointee.choices == 0 ? 1 : plan.pointee.weights[row]
                kernels.add_scaled(sum, weight, out + i * CPUContext.outputTile, Int32(count))
                kernels.add_scaled(context.activations.residual.base + row * hidden + first, 1, sum, Int32(count))
            }
            done += piece
        }
    }

    /// feedForward = weighted sum of the row's experts in the order of the choice, plus the shared experts; residual += feedForward.
    private func combine(_ row: Int, _ plan: UnsafeMutablePointer<FeedForwardPlan>) {
        let hidden = configuration.hiddenSize
        let choices = plan.pointee.choices
        let out = buffers.feedForward.base + row * hidden
        out.update(repeating: 0, count: hidden)
        for index in row * choices..<(row + 1) * choices {
            kernels.add_scaled(
                out, plan.pointee.weights[index],
                buffers.expertOutputs.base + Int(plan.pointee.slots[index]) * hidden, Int32(hidden))
        }
        if plan.pointee.hasAlwaysOn {
            kernels.add_scaled(
                out, 1, buffers.expertOutputs.base + (rowCount * choices + row) * hidden, Int32(hidden))
        }
        kernels.add_scaled(context.activations.residual.base + row * hidden, 1, out, Int32(hidden))
    }
}
