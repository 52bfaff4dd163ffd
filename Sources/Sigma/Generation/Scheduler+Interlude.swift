/// Between the layers of a long step.
extension Scheduler: StepInterlude {
    private static let mostRestarts = 3
    /// Of a step's layers, the part within which it may begin again.
    private static let earlyShare = 16

    /// Whether a step of these jobs can be laid aside. What one layer chose is shown when the step ends, so an observed step goes through.
    func canMakeWay(_ jobs: some Sequence<Job>) -> Bool {
        forwardPass.backend.canSuspend && !favorsThroughput && jobs.allSatisfy { $0.work.routingObserver == nil }
    }

    /// Whether somebody has waited as long as answers may, or would have when the next layer is done.
    func isDue() -> Bool {
        noteLayer()
        if canTakeMore, lock.with({ !incoming.isEmpty }) {
            mainStep.isWithdrawn = true
            return false
        }
        let isNeeded = live.contains { isBesideMainStep($0) } || lock.with { isWoken || !incoming.isEmpty }
        return isNeeded && pacing.isDue
    }

    /// Whether the main step should rather begin again, with work that came while its first layers were computed: requests that come together
    /// share a step then, and what is lost is these layers. Not where it has nearly all rows already, nor where answers wait: they would wait for
    /// these layers twice.
    private var canTakeMore: Bool {
        layersDone <= max(1, forwardPass.layerCount / Self.earlyShare) && restarts < Self.mostRestarts
            && 4 * mainStep.batch.tokens.count <= 3 * memory.rowLimit && !answersWait
    }

    private var answersWait: Bool { live.contains { isBesideMainStep($0) && !$0.isReading } }

    func isBesideMainStep(_ job: Job) -> Bool { job.isReady && !mainStep.contains(job) }

    /// A layer of the main step is done.
    func noteLayer() {
        let now = monotonicTime()
        layersDone += 1
        pacing.recordLayer(seconds: now - layerStart, isAwaited: answersWait)
        layerStart = now
    }

    /// The share of the answers, then a short prompt and theirs again.
    func runOthers() {
        let before = monotonicTime()
        while pacing.owesGeneration, runInner(reads: false) {}
        pacing.settle()
        if runInner(reads: true) {
            while pacing.owesGeneration, runInner(reads: false) {}
            pacing.settle()
        }
        layerStart = monotonicTime()
        interludeSeconds += layerStart - before
    }

    /// - Returns: whether there was a step to run.
    private func runInner(reads: Bool) -> Bool {
        lock.with { takeNews() }
        endCancelled()
        compose(innerStep, reads: reads)
        if innerStep.isEmpty { return false }
        run(innerStep)
        return true
    }
}
