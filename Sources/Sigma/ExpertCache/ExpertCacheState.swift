/// What a cache of experts knows of its records, and how that changes: no threads, no lock, no file.
///
/// One thread computes: it begins steps, and asks for the experts of one layer at a time. Any number of threads read
/// and verify. Each calls a transition under the cache's lock, does what the returned `CacheAction` says without it,
/// and reports the result by another transition. A transition returns which threads to wake.
///
/// A record that is read, held or not verified yet is not in the policy's order: it cannot be a victim.
package struct ExpertCacheState: Sendable {
    let table: ExpertRecordTable
    package internal(set) var records: TypedArray<Record, RecordState>
    package internal(set) var slots: SlotPool
    package internal(set) var policy: any EvictionPolicy
    package internal(set) var statistics = ExpertStatistics()

    /// Records that wait for a thread, by `Queue`.
    package internal(set) var queues: RecordLists
    package enum Queue {
        package static let requests = 0
        package static let prefetches = 1
        package static let verifications = 2
        package static let count = 3
    }
    /// Records whose purpose or holder is a prefetch, by layer; the last list is for `prefetch` alone.
    package internal(set) var prefetched: RecordLists
    /// Those of them that occupy slots.
    package internal(set) var heldPrefetches = 0

    /// Of the current request: all of its records until the last one is released, and those that are ready and not
    /// given out.
    var requested: [Record] = []
    var arrived: [Record] = []
    /// Of the current request: records that were not given out yet, and those that are being read.
    package internal(set) var outstanding = 0
    package internal(set) var requestsInFlight = 0
    /// Records that were given out, and are not released.
    package internal(set) var givenCount = 0

    package internal(set) var step: RecordState.StepNumber = 0
    /// Records that this step was given before they were verified, and are not verified yet.
    package internal(set) var awaited = 0
    package internal(set) var failure: RecordFailure?
    var isSweep = false
    /// Of this step: records that were prefetched, and those of them that no layer asked for.
    var prefetchesRead = 0
    var prefetchesWasted = 0
    /// In a step whose rows may not all stay.
    var drafted: DraftedRequests?

    /// Choices per expert of a layer from which on a step is a sweep: uniform choices then leave out 2 % of the
    /// experts.
    private static let sweepShare = 4
    /// A sweep stops prefetching if more than one in so many records was read in vain.
    private static let wasteShare = 32
    /// Layers that a sweep prefetches.
    private static let sweepDistance = 2
    /// The read of a prefetched record is divided into pieces of this size: what turns out not to be wanted ends there.
    package static let pieceBytes = 512 << 10

    package init(_ table: ExpertRecordTable, slotCapacity: Int, policy: EvictionPolicyKind) {
        precondition(slotCapacity >= 1)
        self.table = table
        let recordCount = table.recordCount
        records = TypedArray(repeating: .absent, count: recordCount)
        slots = SlotPool(capacity: slotCapacity)
        self.policy = policy.make(recordCount: recordCount, capacity: slotCapacity)
        queues = RecordLists(recordCount: recordCount, listCount: Queue.count)
        prefetched = RecordLists(recordCount: recordCount, listCount: table.layerCount + 1)
        requested.reserveCapacity(table.expertCount)
        arrived.reserveCapacity(table.expertCount)
    }

    // MARK: - The computing thread

    /// A step begins. Nothing is wanted or held any more from the one before, however it ended.
    package mutating func beginStep(rows: Int, hasDrafts: Bool = false) {
        endStep()
        drafted = hasDrafts ? DraftedRequests(policy: policy, records: records) : nil
        // So many rows meet nearly all experts of a layer: each is used once, in the order of the file.
        isSweep = !hasDrafts && rows * (table.choices.max() ?? 0) >= Self.sweepShare * table.expertCount
        prefetchesRead = 0
        prefetchesWasted = 0
    }

    private mutating func endStep() {
        // What the step was given before it was verified is nobody's concern any more.
        step &+= 1
        forgetRequest()
        for layer in 0..<table.layerCount { giveUpPrefetches(of: layer) }
        awaited = 0
        failure = nil
    }

    /// Asks for experts of a layer, each once, in ascending order. All records of the request before have been
    /// released.
    package mutating func request(_ experts: [Expert], of rows: [RowSet] = [], layer: Int) -> Wakeups {
        precondition(requested.isEmpty && (drafted == nil || rows.count == experts.count))
        for (index, expert) in experts.enumerated() {
            let record = table.record(layer: layer, expert: expert)
            let (before, isHit) = (statistics, records[record].isIdle)
            request(record)
            drafted?.note(
                DraftedRequests.Request(
                    record: record, rows: rows[index], use: isHit ? .hit : .missed, counted: statistics - before))
        }
        outstanding = experts.count
        giveUpPrefetches(of: layer)
        if isSweep { prefetchSweep(after: layer) }
        let isReadersWork = queues.counts[Queue.requests] > 0 && !hasSingleRequest
        return isReadersWork || queues.counts[Queue.prefetches] > 0 ? .readers : []
    }

    /// One requested record is to be read, and none is being read. The computing thread does it: that saves waking
    /// another.
    package var hasSingleRequest: Bool { queues.counts[Queue.requests] == 1 && requestsInFlight == 0 }

    private mutating func request(_ record: Record) {
        statistics.requests += 1
        requested.append(record)
        let use = isSweep ? RecordUse.passed : .missed
        switch records[record] {
        case .absent:
            records[record] = .queued(for: .request(use))
            queues.append(record, to: Queue.requests)
        case .queued(for: .prefetch):
            prefetched.remove(record)
            queues.remove(record)
            records[record] = .queued(for: .request(use))
            queues.append(record, to: Queue.requests)
        case .reading(let slot, for: .prefetch?):
            endHeldPrefetch(record)
            statistics.prefetched += 1
            requestsInFlight += 1
            records[record] = .reading(slot, for: .request(use))
        case .reading(let slot, for: nil):
            requestsInFlight += 1
            records[record] = .reading(slot, for: .request(use))
        case .ready(let slot, heldBy: .prefetch, let verification):
            endHeldPrefetch(record)
            statistics.prefetched += 1
            records[record] = .ready(slot, heldBy: .request(use), verification)
            arrived.append(record)
        case .ready(let slot, heldBy: .nobody, let verification):
            statistics.hits += 1
            records[record] = .ready(slot, heldBy: .request(use), verification)
            arrived.append(record)
        case .idle(let slot):
            statistics.hits += 1
            policy.remove(record)
            records[record] = .ready(slot, heldBy: .request(.hit), .intact)
            arrived.append(record)
        case .queued(for: .request), .reading(_, for: .request?), .ready(_, heldBy: .request, _),
            .ready(_, heldBy: .computation, _):
            preconditionFailure("record \(record) was asked for twice")
        }
    }

    /// Records of a layer to come that it will probably ask for: they are read while nothing else is to be read. What
    /// was prefetched for that layer before and is not among them is given up.
    package mutating func prefetch(_ experts: [Expert], layer: Int) -> Wakeups {
        let kept = table.layerCount
        for expert in experts {
            let record = table.record(layer: layer, expert: expert)
            if prefetched.list(of: record) == layer {
                prefetched.remove(record)
                prefetched.append(record, to: kept)
            }
        }
        giveUpPrefetches(of: layer)
        while let record = prefetched.removeFirst(kept) { prefetched.append(record, to: layer) }
        for expert in experts { prefetch(table.record(layer: layer, expert: expert), layer: layer) }
        return queues.counts[Queue.prefetches] > 0 ? .readers : []
    }

    private mutating func prefetch(_ record: Record, layer: Int) {
        guard case .absent = records[record] else { return }
        records[record] = .queued(for: .prefetch)
        prefetched.append(record, to: layer)
        queues.append(record, to: Queue.prefetches)
    }

    /// In a sweep the disk goes on with the next layers while this one is computed, unless their experts turn out not
    /// to be used.
    private mutating func prefetchSweep(after layer: Int) {
        guard prefetchesRead < table.expertCount || prefetchesWasted * Self.wasteShare < prefetchesRead else { return }
        for next in (layer + 1)..<max(layer + 1, min(layer + 1 + Self.sweepDistance, table.layerCount))
        where table.choices[next] > 0 {
            for expert in 0..<table.expertCount {
                prefetch(table.record(layer: next, expert: Expert(expert)), layer: next)
            }
        }
    }

    /// What was prefetched for the layer and not asked for becomes an ordinary record, or is not read.
    private mutating func giveUpPrefetches(of layer: Int) {
        while let record = prefetched.first(layer) {
            switch records[record] {
            case .queued(for: .prefetch):
                prefetched.remove(record)
                queues.remove(record)
                records[record] = .absent
            case .reading(let slot, for: .prefetch?):
                endHeldPrefetch(record)
                prefetchesWasted += 1
                records[record] = .reading(slot, for: nil)
            case .ready(let slot, heldBy: .prefetch, let verification):
                endHeldPrefetch(record)
                prefetchesWasted += 1
                letGo(record, slot, after: .passed, verification)
            default: preconditionFailure("record \(record) is not prefetched")
            }
        }
    }

    /// Whether the next `take` has to wait.
    package var isStarved: Bool { outstanding > 0 && arrived.isEmpty && failure == nil }

    /// What the computing thread does until `isStarved` is false.
    package mutating func nextForTake() -> CacheAction {
        guard isStarved else { return .done }
        if hasSingleRequest, let action = beginRequestedRead() { return action }
        return .wait
    }

    /// Gives out what is ready and was not given out yet: it stays until it is released.
    ///
    /// - Returns: whether more will follow.
    package mutating func take(_ body: (Record, Slot) -> Void) -> Bool {
        for record in arrived {
            guard case .ready(let slot, heldBy: .request(let use), var verification) = records[record] else {
                preconditionFailure("record \(record) is not ready")
            }
            switch verification {
            case .due(let awaitedBy) where awaitedBy != step:
                verification = .due(awaitedBy: step)
                awaited += 1
            case .running(let awaitedBy) where awaitedBy != step:
                verification = .running(awaitedBy: step)
                awaited += 1
            default: break
            }
            records[record] = .ready(slot, heldBy: .computation(use), verification)
            body(record, slot)
        }
        outstanding -= arrived.count
        givenCount += arrived.count
        arrived.removeAll(keepingCapacity: true)
        return outstanding > 0
    }

    /// The computing thread is done with what the slots hold.
    package mutating func release(_ released: [Slot]) -> Wakeups {
        for slot in released {
            guard let record = slots.record(in: slot),
                case .ready(_, heldBy: .computation(let use), let verification) = records[record]
            else { preconditionFailure("slot \(slot) was not given out") }
            givenCount -= 1
            letGo(record, slot, after: use, verification)
        }
        if outstanding == 0, givenCount == 0 { requested.removeAll(keepingCapacity: true) }
        return wakeupsForQueues
    }

    /// What the computing thread does at a step's end, until all that the step was given has been verified.
    package mutating func nextForConfirm() -> CacheAction {
        awaited == 0 ? .done : beginVerification() ?? .wait
    }

    /// The failure that the current call reports, if there is one. Nothing is wanted any more then.
    package mutating func takeFailure() -> RecordFailure? {
        guard let failure else { return nil }
        forgetRequest()
        self.failure = nil
        return failure
    }

    /// Changes the number of slots with pages, between steps: `nextForSlotLimit` says what is to be done for it.
    package mutating func setSlotLimit(_ limit: Int) {
        endStep()
        slots.limit = max(1, min(limit, slots.capacity))
    }

    package mutating func nextForSlotLimit() -> CacheAction {
        guard slots.isOverLimit else { return .done }
        if let slot = slots.takeFree() ?? evict() {
            slots.retire(slot)
            return .releasePages(of: slot)
        }
        // What is being read or verified can be evicted soon.
        return beginVerification() ?? .wait
    }

    package mutating func countPredictions(_ all: Int, right: Int) {
        statistics.predictions += all
        statistics.rightPredictions += right
    }

    package mutating func countStall(_ seconds: Double) { statistics.stall += seconds }
}
