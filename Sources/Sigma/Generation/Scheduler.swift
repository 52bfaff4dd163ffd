import Synchronization

/// Runs the steps of all live work on one thread.
///
/// A step is one batch: a token of every answer that is past its prompt, and pieces of prompts, as far as the row limit and the time that answers
/// may wait (`StepPacing`) go. Work that found no place goes first in the next step. Where rows are not independent of what is beside them, a step
/// has one piece of work. Where the back end can lay a step aside, prompts are read in long steps instead, and between the layers of such a step
/// the answers have steps of their own, as have prompts that one piece can read.
///
/// When memory ends, kept prefixes and what idle timelines hold are given up first, then work is parked, the youngest first: it gives up its keys
/// and values, waits until there is room for them, and computes them again. So work that fits alone ends as if it were alone.
final class Scheduler: @unchecked Sendable {
    let lock = ConditionLock()
    private let hasNews: Condition
    private let errandIsDone: Condition
    // Under the lock.
    var incoming: [Job] = []
    private var errands: [() -> Void] = []
    var isWoken = false
    private var isClosed = false
    /// Those for whom tokens/s of all matter alone, as nobody waits for an answer: prompts are then read as soon as there is a place.
    private let batches = Atomic<Int>(0)
    // The thread's own.
    let forwardPass: ForwardPass
    let memory: any StepMemory
    private let timelines: TimelineRegistry
    private let prefixes: PrefixCache
    private let drafts: DraftPlanner
    /// In the order in which they get a place in the next step.
    var live: [Job] = []
    /// The round's step, and those that run between its layers.
    let mainStep: ComposedStep
    let innerStep: ComposedStep
    private var arrivals = 0
    var pacing = StepPacing()
    /// When the main step last went on, and the seconds that others had between its layers.
    var layerStart = 0.0
    var interludeSeconds = 0.0
    /// Layers of the main step that are done, and how often it was begun again.
    var layersDone = 0
    var restarts = 0
    /// Whether the last step with prompts left long ones out.
    private var passedOverLong = false
    /// What others may know of it at any time.
    let gauge: EngineGauge

    init(
        _ forwardPass: ForwardPass, memory: any StepMemory, _ configuration: ModelConfiguration,
        timelines: TimelineRegistry, prefixes: PrefixCache, drafts: DraftPlanner,
        gauge: EngineGauge
    ) {
        self.forwardPass = forwardPass
        self.memory = memory
        self.timelines = timelines
        self.prefixes = prefixes
        self.drafts = drafts
        self.gauge = gauge
        mainStep = ComposedStep(configuration)
        innerStep = ComposedStep(configuration)
        hasNews = Condition(lock)
        errandIsDone = Condition(lock)
    }

    // MARK: - From any thread

    var favorsThroughput: Bool { batches.load(ordering: .relaxed) > 0 }

    /// A batch begins or ends.
    func countBatch(_ change: Int) { batches.add(change, ordering: .relaxed) }

    /// - Throws: `SigmaError(.unavailable)` if the system gives no thread.
    func startThread() throws { try NativeThread { self.work() }.detach() }

    func append(_ job: Job) {
        lock.with {
            incoming.append(job)
            hasNews.signal()
        }
    }

    /// Something that a step depends on has changed: a reader has room again, or work was cancelled.
    func wake() {
        lock.with {
            isWoken = true
            hasNews.signal()
        }
    }

    /// Calls `errand` on the scheduler's thread between two steps, and waits for it: not from that thread.
    func betweenSteps<Value>(_ errand: @escaping () throws -> Value) throws -> Value {
        var result: Result<Value, any Error>?
        lock.lock()
        defer { lock.unlock() }
        errands.append { [self] in
            let found = Result { try errand() }
            lock.with {
                result = found
                errandIsDone.broadcast()
            }
        }
        isWoken = true
        hasNews.signal()
        while true {
            if let result { return try result.get() }
            errandIsDone.wait()
        }
    }

    /// A piece of work holds its engine, so none is live then.
    func close() {
        lock.with {
            isClosed = true
            hasNews.signal()
        }
    }

    // MARK: - The thread

    private func work() {
        while receive() {
            for errand in lock.with({ takeErrands() }) { errand() }
            endCancelled()
            unpark()
            compose(mainStep)
            run(mainStep)
        }
    }

    /// Waits while there is nothing to do.
    /// - Returns: false when the engine is gone.
    private func receive() -> Bool {
        // Parked work is looked at in every round: who holds its memory may have ended.
        let canGoOn = live.contains { !$0.work.isPaused || $0.work.isCancelled }
        if !canGoOn { gauge.rests(work: live.count) }
        lock.lock()
        defer { lock.unlock() }
        while incoming.isEmpty, !isWoken, !isClosed, !canGoOn { hasNews.wait() }
        if isClosed, incoming.isEmpty, live.isEmpty { return false }
        takeNews()
        return true
    }

    /// Under the lock.
    func takeNews() {
        isWoken = false
        for job in incoming {
            job.arrival = arrivals
            arrivals += 1
            live.append(job)
        }
        incoming.removeAll(keepingCapacity: true)
    }

    /// Under the lock.
    private func takeErrands() -> [() -> Void] {
        defer { errands.removeAll() }
        return errands
    }

    private func end(_ job: Job, _ result: Result<Void, any Error> = .success(())) {
        live.removeAll { $0 === job }
        job.work.timeline.endUse()
        job.onEnd(result)
    }

    func endCancelled() {
        // Those in a step that is under way are noticed there.
        for job in live where job.work.isCancelled && !mainStep.contains(job) {
            job.work.endInterrupted()
            end(job)
        }
    }

    // MARK: - Memory

    /// Parked work goes on, the oldest first, where there is room for all its keys and values and one block more; or where nobody else runs.
    private func unpark() {
        for job in live.filter({ $0.isParked && !$0.work.isPaused }).sorted(by: { $0.arrival < $1.arrival }) {
            let isAlone = !live.contains(where: \.isReady)
            let positions = job.work.timeline.tokens.count + 1 + KVBlockLayout.length
            while !isAlone, !memory.hasRoom(for: job.sequence, positions: positions) {
                guard prefixes.evictOne() else { return }
            }
            job.isParked = false
        }
    }

    private func park(_ job: Job) {
        job.work.timeline.giveUpBlocks()
        job.isParked = true
    }

    /// Makes room for the next row of a job that found none: by what nobody needs now, else by the youngest that is not older than it.
    /// - Returns: false if all that can be had is the job's already.
    private func makeRoom(for job: Job) -> Bool {
        if prefixes.evictOne() || timelines.giveUpOldestIdle() { return true }
        let others = live.filter { $0 !== job && !$0.isParked }.sorted { $0.arrival > $1.arrival }
        if let paused = others.first(where: { $0.work.isPaused && $0.sequence.byteCount > 0 }) {
            park(paused)
            return true
        }
        guard let youngest = others.first(where: { !$0.work.isPaused }) else { return false }
        park(youngest.arrival > job.arrival ? youngest : job)
        return true
    }

    // MARK: - A step

    /// Chooses a step's members.
    ///
    /// - Parameters:
    ///   - step: the main one, or one between its layers, which has nobody who is in the main one and makes no room in memory.
    ///   - reads: whether prompts may have a place; between layers only those that one piece can read.
    func compose(_ step: ComposedStep, reads: Bool = true) {
        step.removeAll()
        let isInner = step === innerStep
        func isCandidate(_ job: Job) -> Bool { isInner ? isBesideMainStep(job) : job.isReady }
        let waiting = live.count(where: isCandidate)
        let reading = live.count { isCandidate($0) && $0.isReading }
        step.isShared = isInner || (reading > 0 && reading < waiting && !favorsThroughput)
        let canMakeWay = !isInner && reading > 0 && canMakeWay(live.lazy.filter(isCandidate))
        let makesWay = step.isShared && canMakeWay
        // Whoever waits for a step that makes way does not wait for its end: several prompts share one, which reads each expert once for all.
        let isAwaited = waiting > 1 && !canMakeWay && !favorsThroughput
        let longest = favorsThroughput && waiting > 1 ? memory.batchRowLimit : memory.rowLimit
        let rowLimit = isAwaited || isInner ? memory.sharedRowLimit : longest
        var promptRows = rowLimit
        if step.isShared {
            promptRows = makesWay ? pacing.longStepRows(layerCount: forwardPass.layerCount) : pacing.promptRows
        }
        if !reads { promptRows = 0 }
        // Short prompts do not wait for the long ones that a step could have beside them; nor these for ever.
        let onlyShort = canMakeWay && !passedOverLong && hasShortAndLong(live.lazy.filter(isCandidate))
        if onlyShort { promptRows = min(promptRows, pacing.pieceRows) }
        if canMakeWay { passedOverLong = onlyShort }
        // A step that makes way leaves the answers to those between its layers.
        let onlyReads = makesWay && promptRows > 0
        let limit = forwardPass.backend.rowsAreIndependent ? waiting : 1
        for job in live where isCandidate(job) {
            guard step.members.count < limit, step.batch.tokens.count < rowLimit else { break }
            if onlyReads && !job.isReading { continue }
            let pending = job.work.pendingCount()
            guard pending > 0 else {
                end(job)
                continue
            }
            let missing = job.work.timeline.missing.count
            let isReading = job.isReading
            guard !isReading || promptRows > 0 else { continue }
            if isInner && isReading && max(missing, pending) > promptRows { continue }
            if onlyShort && isReading && max(missing, pending) > pacing.pieceRows { continue }
            let wanted = min(
                missing == 0 ? pending : missing, rowLimit - step.batch.tokens.count, isReading ? promptRows : pending)
            let count = memory.room(for: job.sequence, limit: wanted, beside: step.batch)
            guard count > 0 else {
                if isInner { continue }
                // Those that are in the step already may be what is in the way: they can be parked, so the step is composed again.
                if !makeRoom(for: job) {
                    if step.isEmpty { endForWantOfMemory(job) }
                    break
                }
                return compose(step)
            }
            step.append(job, count: count)
            if isReading { promptRows -= count }
        }
        // Who had a place goes behind those that found none.
        for member in step.members {
            live.removeAll { $0 === member.job }
            live.append(member.job)
        }
        step.finish(drafts, memory)
    }

    /// Whether some of the jobs' prompts can be read in the time that answers may wait, and others cannot.
    private func hasShortAndLong(_ jobs: some Sequence<Job>) -> Bool {
        var (hasShort, hasLong) = (false, false)
        for job in jobs where job.isReading {
            let rows = max(job.work.timeline.missing.count, job.work.pendingCount())
            if rows > pacing.pieceRows { hasLong = true } else { hasShort = true }
        }
        return hasShort && hasLong
    }

    private func endForWantOfMemory(_ job: Job) {
        do {
            try job.work.endForWantOfMemory()
            end(job)
        } catch { end(job, .failure(error)) }
    }

    /// Runs a step and takes in its results.
    /// - Parameter isApart: whether it is one member of a step that failed, which is repeated: nobody has a turn in between.
    func run(_ step: ComposedStep, isApart: Bool = false) {
        if step.isEmpty { return }
        gauge.stepBegins(work: live.count)
        // Emptied again: it would keep sequences, and the engine, alive that nobody else wants.
        defer { step.removeAll() }
        let makesWay =
            !isApart && step === mainStep && step.members.allSatisfy(\.isReading)
            && canMakeWay(step.members.lazy.map(\.job))
        let before = monotonicTime()
        if makesWay {
            layerStart = before
            interludeSeconds = 0
            layersDone = 0
        }
        do {
            guard try step.run(forwardPass, interlude: makesWay ? self : nil, gauge) else {
                // Cancelled work ends before the next step.
                if step.isWithdrawn { restarts += 1 }
                return
            }
            if makesWay { restarts = 0 }
        } catch {
            pacing.settle()
            return runApart(step, after: error)
        }
        let others = makesWay ? interludeSeconds : 0
        let cost = StepCost(seconds: monotonicTime() - before - others, bytes: forwardPass.backend.stepBytes)
        let promptRows = step.promptRows
        if makesWay {
            noteLayer()
            pacing.recordLongStep(seconds: cost.seconds, promptRows: promptRows, isShared: step.isShared)
        } else {
            pacing.record(seconds: cost.seconds, promptRows: promptRows, isShared: step.isShared)
        }
        if promptRows == 0 { drafts.costs.note(rows: step.batch.tokens.count, seconds: cost.seconds) }
        gauge.stepEnded(step.batch, seconds: cost.seconds, readsPrompt: promptRows > 0)
        step.showRouting()
        for (index, member) in step.members.enumerated() where !member.isRecomputed {
            member.work.timeline.tokens += member.piece.prefix(step.batch.segments[index].kept)
            do {
                if try !member.work.finishStep(cost) { end(member.job) }
            } catch { end(member.job, .failure(error)) }
        }
    }

    /// What fails together may succeed alone and without drafts, where memory ended for one of them.
    private func runApart(_ step: ComposedStep, after error: any Error) {
        let members = step.members
        let isForWantOfMemory = (error as? SigmaError)?.kind == .unavailable
        guard members.count > 1 || (isForWantOfMemory && members[0].drafts > 0) else {
            return end(members[0].job, .failure(error))
        }
        for member in members {
            step.keepOnly(member)
            run(step, isApart: true)
        }
    }
}
