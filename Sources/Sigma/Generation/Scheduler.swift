import Synchronization

/// Runs the steps of all live work on one thread.
///
/// A step is one batch: a token of every answer that is past its prompt, and pieces of prompts, as far as the row limit and the time that answers
/// may wait (`StepPacing`) go. Work that found no place goes first in the next step. Where rows are not independent of what is beside them, a step
/// has one piece of work.
///
/// When memory ends, kept prefixes and what idle timelines hold are given up first, then work is parked, the youngest first: it gives up its keys
/// and values, waits until there is room for them, and computes them again. So work that fits alone ends as if it were alone.
final class Scheduler: @unchecked Sendable {
    final class Job: @unchecked Sendable {
        let work: any StepWork
        let onEnd: @Sendable (Result<Void, any Error>) -> Void
        // The thread's own.
        fileprivate var arrival = 0
        fileprivate var isParked = false

        init(work: any StepWork, onEnd: @escaping @Sendable (Result<Void, any Error>) -> Void) {
            self.work = work
            self.onEnd = onEnd
        }

        fileprivate var sequence: SequenceState { work.timeline.sequence }
        fileprivate var isReading: Bool { !work.timeline.missing.isEmpty || !work.isGenerating }
    }

    private let lock = ConditionLock()
    private let hasNews: Condition
    // Under the lock.
    private var incoming: [Job] = []
    private var isWoken = false
    private var isClosed = false
    /// Whether tokens/s of all matter alone, and nobody waits for an answer: prompts are then read as soon as there is a place.
    private let throughput = Atomic<Bool>(false)
    // The thread's own.
    private let forwardPass: ForwardPass
    private let memory: any StepMemory
    private let timelines: TimelineRegistry
    private let prefixes: PrefixCache
    private let batch = Batch()
    /// What the members of a step but one have in it.
    private let others = Batch()
    private let drafts: DraftPlanner
    private let routing: RoutingRecord
    /// In the order in which they get a place in the next step.
    private var live: [Job] = []
    private var members: [Member] = []
    private var requests: [LogitRequest] = []
    private var requesters: [(member: Int, row: Int)] = []
    private var arrivals = 0
    private var pacing = StepPacing()
    /// Whether the step that is composed has answers that wait for prompts.
    private var isShared = false
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
        routing = RoutingRecord(configuration)
        hasNews = Condition(lock)
    }

    // MARK: - From any thread

    var favorsThroughput: Bool {
        get { throughput.load(ordering: .relaxed) }
        set { throughput.store(newValue, ordering: .relaxed) }
    }

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
            endCancelled()
            unpark()
            compose()
            if !members.isEmpty {
                gauge.stepBegins(work: live.count)
                run()
            }
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
        isWoken = false
        for job in incoming {
            job.arrival = arrivals
            arrivals += 1
            live.append(job)
        }
        incoming.removeAll(keepingCapacity: true)
        return true
    }

    private func end(_ job: Job, _ result: Result<Void, any Error> = .success(())) {
        live.removeAll { $0 === job }
        job.work.timeline.endUse()
        job.onEnd(result)
    }

    private func endCancelled() {
        for job in live where job.work.isCancelled {
            job.work.endInterrupted()
            end(job)
        }
    }

    // MARK: - Memory

    /// Parked work goes on, the oldest first, where there is room for all its keys and values and one block more; or where nobody else runs.
    private func unpark() {
        for job in live.filter({ $0.isParked && !$0.work.isPaused }).sorted(by: { $0.arrival < $1.arrival }) {
            let isAlone = !live.contains { !$0.isParked && !$0.work.isPaused }
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

    /// A piece of work's part of a step.
    private struct Member {
        let job: Job
        var piece: ArraySlice<Int32>
        /// Of the piece, the last so many are guesses.
        var drafts = 0
        /// Tokens of the timeline whose keys and values were given up: nobody wants anything of them.
        let isRecomputed: Bool
        /// Whether it reads a prompt, or computes again: more than the next token.
        let isReading: Bool
        var firstRow = 0
        var work: any StepWork { job.work }
    }

    /// Chooses the next step's members.
    private func compose() {
        members.removeAll(keepingCapacity: true)
        batch.removeAll()
        let waiting = live.count { !$0.isParked && !$0.work.isPaused }
        let rowLimit = waiting > 1 ? memory.sharedRowLimit : memory.rowLimit
        let reading = live.count { !$0.isParked && !$0.work.isPaused && $0.isReading }
        isShared = reading > 0 && reading < waiting && !favorsThroughput
        var promptRows = isShared ? pacing.promptRows : rowLimit
        let limit = forwardPass.backend.rowsAreIndependent ? waiting : 1
        for job in live where !job.isParked && !job.work.isPaused {
            guard members.count < limit, batch.tokens.count < rowLimit else { break }
            let pending = job.work.pendingCount()
            guard pending > 0 else {
                end(job)
                continue
            }
            let missing = job.work.timeline.missing
            let isReading = job.isReading
            guard !isReading || promptRows > 0 else { continue }
            let wanted = min(
                missing.isEmpty ? pending : missing.count, rowLimit - batch.tokens.count,
                isReading ? promptRows : pending)
            let count = memory.room(for: job.sequence, limit: wanted, beside: batch)
            guard count > 0 else {
                // Those that are in the step already may be what is in the way: they can be parked, so the step is composed again.
                if !makeRoom(for: job) {
                    if members.isEmpty { endForWantOfMemory(job) }
                    break
                }
                return compose()
            }
            let piece = missing.isEmpty ? job.work.takePiece(count) : missing.prefix(count)
            members.append(
                Member(job: job, piece: piece, isRecomputed: !missing.isEmpty, isReading: isReading))
            if isReading { promptRows -= count }
            batch.append(piece, to: job.sequence)
        }
        // Who had a place goes behind those that found none.
        for member in members {
            live.removeAll { $0 === member.job }
            live.append(member.job)
        }
        // Rows whose logits are wanted lie side by side, so that the head is read once for all of them.
        members.sort { ($0.piece.count, $0.job.arrival) < ($1.piece.count, $1.job.arrival) }
        if !members.contains(where: \.isReading) { addDrafts() }
        fillBatch()
    }

    private func fillBatch() {
        batch.removeAll()
        for index in members.indices {
            let member = members[index]
            members[index].firstRow = batch.tokens.count
            batch.append(member.piece, to: member.job.sequence, drafts: member.drafts)
        }
    }

    /// Puts guesses behind the members' pieces, as many as pay, where there is room for them that nobody else wants.
    private func addDrafts() {
        let rows = batch.tokens.count
        let limit = min(memory.sharedRowLimit, RowSet.capacity)
        guard rows < limit else { return }
        var drafting: [Int] = []
        var candidates: [DraftPlanner.Candidate] = []
        for (index, member) in members.enumerated() {
            guard let candidate = member.work.proposeDraft() else { continue }
            drafting.append(index)
            candidates.append(candidate)
        }
        if candidates.isEmpty { return }
        drafts.plan(rows: rows, sequences: members.count, limit: limit, &candidates)
        for (index, candidate) in zip(drafting, candidates) where candidate.count > 0 {
            others.removeAll()
            for (other, member) in members.enumerated() where other != index {
                others.append(member.piece, to: member.job.sequence)
            }
            let member = members[index]
            let wanted = member.piece.count + candidate.count
            let room = memory.room(for: member.job.sequence, limit: wanted, beside: others) - member.piece.count
            guard room > 0 else { continue }
            let piece = member.work.takeDraft(room)
            members[index].drafts = piece.count - member.piece.count
            members[index].piece = piece
        }
        others.removeAll()
    }

    private func endForWantOfMemory(_ job: Job) {
        do {
            try job.work.endForWantOfMemory()
            end(job)
        } catch { end(job, .failure(error)) }
    }

    /// One step.
    private func run() {
        // Emptied again: they would keep sequences, and the engine, alive that nobody else wants.
        defer {
            batch.removeAll()
            members.removeAll(keepingCapacity: true)
        }
        batch.routing = members.contains { !$0.isRecomputed && $0.work.routingObserver != nil } ? routing : nil
        let before = monotonicTime()
        do {
            let completed = try forwardPass.run(
                batch, isCancelled: { members.allSatisfy(\.work.isCancelled) }, progress: showProgress, readOut: readOut
            )
            // Cancelled work ends before the next step.
            guard completed else { return }
        } catch {
            batch.removeAll()
            return runApart(after: error)
        }
        let cost = StepCost(seconds: monotonicTime() - before, bytes: forwardPass.backend.stepBytes)
        let promptRows = members.reduce(0) { $0 + ($1.isReading ? $1.piece.count : 0) }
        pacing.record(seconds: cost.seconds, promptRows: promptRows, isShared: isShared)
        if promptRows == 0 { drafts.costs.note(rows: batch.tokens.count, seconds: cost.seconds) }
        gauge.stepEnded(batch)
        if batch.routing != nil { showRouting() }
        for (index, member) in members.enumerated() where !member.isRecomputed {
            member.work.timeline.tokens += member.piece.prefix(batch.segments[index].kept)
            do {
                if try !member.work.finishStep(cost) { end(member.job) }
            } catch { end(member.job, .failure(error)) }
        }
    }

    /// What fails together may succeed alone and without drafts, where memory ended for one of them.
    private func runApart(after error: any Error) {
        let isForWantOfMemory = (error as? SigmaError)?.kind == .unavailable
        guard members.count > 1 || (isForWantOfMemory && members[0].drafts > 0) else {
            return end(members[0].job, .failure(error))
        }
        for var member in members {
            if member.drafts > 0 {
                member.piece = member.work.takePiece(member.piece.count - member.drafts)
                member.drafts = 0
            }
            members = [member]
            fillBatch()
            run()
        }
    }

    private func readOut(_ backend: any Backend) {
        requests.removeAll(keepingCapacity: true)
        requesters.removeAll(keepingCapacity: true)
        for (index, member) in members.enumerated() where !member.isRecomputed {
            for row in member.work.wishedRows {
                let (wish, mask) = member.work.wish(row: row)
                requests.append(LogitRequest(row: member.firstRow + row, wish: wish, mask: mask))
                requesters.append((index, row))
            }
        }
        if !requests.isEmpty {
            backend.readLogits(requests) { index, logits in
                members[requesters[index].member].work.take(row: requesters[index].row, logits)
            }
        }
        for (index, member) in members.enumerated() where !member.isRecomputed {
            batch.keep(member.work.keptRows, ofSegment: index)
        }
    }

    /// Rows from which a step's progress is shown.
    private static let longStep = 256

    /// Some times in a step of many rows, which takes long.
    private func showProgress(_ layer: Int) {
        gauge.makesProgress()
        guard batch.tokens.count >= Self.longStep, layer > 0, layer % max(1, forwardPass.layerCount / 8) == 0 else {
            return
        }
        for member in members where !member.isRecomputed {
            member.work.showProgress(share: Double(layer) / Double(forwardPass.layerCount))
        }
    }

    /// Of the rows that are kept.
    private func showRouting() {
        for (index, member) in members.enumerated() where !member.isRecomputed {
            let segment = batch.segments[index]
            guard let observer = member.work.routingObserver, segment.kept > 0 else { continue }
            observer.observe(
                RoutedTokens(
                    record: routing, rows: segment.firstRow..<segment.firstRow + segment.kept,
                    tokens: member.piece.prefix(segment.kept), sequence: member.work.timeline.number,
                    position: segment.position))
        }
    }
}
