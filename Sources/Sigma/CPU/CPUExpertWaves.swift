import CSigma

/// What is computed between two looks at the expert cache: written by member 0, read by all.
struct FeedForwardWave {
    var experts = ExpertWave()
    /// Whether the MLP that every row goes through is in it: it waits for nothing.
    var isFirst = false
    var isLast = false
    var failure: (any Error)?
    /// The experts that rows chose, in ascending order; in a step with drafts also the rows of each.
    var chosen: [Expert] = []
    var rows: [RowSet] = []
}

/// A layer whose experts are not all in memory: they are computed in waves, each when its records are there, while others are read. One operation
/// of the team.
final class CPUExpertWaves: TeamOperation, @unchecked Sendable {
    let context: CPUContext
    let feedForward: CPUFeedForward
    let cache: ExpertCache
    let prefetcher: ExpertPrefetcher
    private var wave = FeedForwardWave()

    init(_ context: CPUContext, _ feedForward: CPUFeedForward, _ cache: ExpertCache, _ prefetcher: ExpertPrefetcher) {
        self.context = context
        self.feedForward = feedForward
        self.cache = cache
        self.prefetcher = prefetcher
    }

    func beginStep() {
        cache.beginStep(rows: context.rowCount, hasDrafts: context.batch.hasDrafts)
        prefetcher.beginStep(rows: context.rowCount)
    }

    func endStep() {
        prefetcher.endStep()
        if context.batch.hasDrafts { cache.endDrafts(kept: context.batch.keptRows) }
    }

    /// - Throws: `SigmaError` as `ExpertCache.take`.
    func compute(layer index: Int) throws {
        feedForward.use(layer: index)
        wave.failure = nil
        context.team.run(self)
        if let failure = wave.failure { throw failure }
        cache.release(wave.experts)
    }

    override func perform(_ member: Int32) {
        let layer = feedForward.layer
        let team = context.team
        feedForward.route(layer, member)
        if prefetcher.isActive {
            while let item = team.take(5, of: prefetcher.items(behind: feedForward.layerIndex), member) {
                predict(item, member)
            }
            team.barrier(member)
        }
        let plan = feedForward.plans + Int(member)
        plan.pointee.sort(rows: context.rowCount, experts: layer.experts!.count)
        plan.pointee.hasAlwaysOn = layer.alwaysOn != nil
        if member == 0 { requestExperts(plan.pointee, layer) }
        team.barrier(member)

        while true {
            addGroups(of: layer, to: plan)
            while let item = team.take(1, of: plan.pointee.gateItems, member) {
                feedForward.gateAndUp(item, plan, member)
            }
            team.barrier(member)
            while let item = team.take(2, of: plan.pointee.downItems, member) { feedForward.down(item, plan, member) }
            if wave.isLast { break }
            team.barrier(member)
            if member == 0 { nextWave(layer) }
            team.barrier(member)
        }
        feedForward.endLayer(plan, member)
    }

    /// Asks for the layer's experts, prefetches the next layers', and takes what is there; with an MLP that every row goes through, nothing is
    /// waited for yet.
    private func requestExperts(_ plan: FeedForwardPlan, _ layer: CPULayer) {
        wave.chosen.removeAll(keepingCapacity: true)
        wave.rows.removeAll(keepingCapacity: true)
        let hasDrafts = context.batch.hasDrafts
        for expert in 0..<layer.experts!.count where plan.isChosen(expert) {
            wave.chosen.append(Expert(expert))
            if hasDrafts { wave.rows.append(plan.rows(of: expert)) }
        }
        cache.request(wave.chosen, of: wave.rows, layer: feedForward.layerIndex)
        prefetcher.prefetch(after: feedForward.layerIndex, chosen: wave.chosen)
        wave.isFirst = true
        if let mlp = layer.alwaysOn { context.stepBytes += mlp.gate.byteCount + mlp.up.byteCount + mlp.down.byteCount }
        takeWave(layer, waits: layer.alwaysOn == nil)
    }

    private func nextWave(_ layer: CPULayer) {
        cache.release(wave.experts)
        context.team.reset(1)
        context.team.reset(2)
        wave.isFirst = false
        takeWave(layer, waits: true)
    }

    /// A failure ends the layer.
    private func takeWave(_ layer: CPULayer, waits: Bool) {
        do {
            wave.isLast = try !cache.take(&wave.experts, waits: waits)
        } catch {
            wave.experts.removeAll()
            wave.isLast = true
            wave.failure = error
        }
        context.stepBytes += wave.experts.experts.count * layer.experts!.layout.usedBytes
    }

    private func addGroups(of layer: CPULayer, to plan: UnsafeMutablePointer<FeedForwardPlan>) {
        let layout = layer.experts!.layout
        plan.pointee.removeGroups()
        for (expert, record) in zip(wave.experts.experts, wave.experts.records) {
            plan.pointee.add(expert: expert.index, at: record, layout)
        }
        if wave.isFirst, let mlp = layer.alwaysOn {
            plan.pointee.add(mlp, behind: context.rowCount * plan.pointee.choices, rows: context.rowCount)
        }
    }
}
