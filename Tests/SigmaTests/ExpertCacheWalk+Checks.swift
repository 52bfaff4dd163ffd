import Sigma

/// What is true of a cache after every transition.
extension ExpertCacheWalk {
    mutating func check() {
        guard violation == nil else { return }
        checkSlots()
        checkRecords()
        checkThreads()
        checkCounts()
        checkStatistics()
        checkWaiting()
        if operations % 16 == 0 { checkOrder() }
    }

    /// Every slot is exactly one of untouched, free, retired, and held by one record.
    private mutating func checkSlots() {
        var owners = TypedArray<Slot, Int>(repeating: 0, count: setup.slots)
        for slot in owners.indices where slot.index >= state.slots.touchedCount { owners[slot] += 1 }
        for slot in state.slots.free { owners[slot] += 1 }
        for slot in state.slots.retired { owners[slot] += 1 }
        for record in state.records.indices {
            guard let slot = state.records[record].slot else { continue }
            owners[slot] += 1
            if state.slots.record(in: slot) != record { fail("slot \(slot) does not know its record \(record)") }
        }
        for slot in owners.indices where owners[slot] != 1 { fail("slot \(slot) has \(owners[slot]) owners") }
        if phase != .limits, state.slots.isOverLimit { fail("\(state.slots.usedCount) slots are used") }
        for slot in state.slots.retired where contents[slot] != .nothing { fail("slot \(slot) kept its pages") }
    }

    /// Every record's state agrees with the threads, the bytes, the queues, and with what the computing thread wants and holds.
    private mutating func checkRecords() {
        for record in state.records.indices {
            let current = state.records[record]
            var queue: Int?
            var isWanted = false
            var isGiven = false
            var isPrefetched = false
            switch current {
            case .absent: break
            case .queued(let purpose):
                isPrefetched = purpose == .prefetch
                isWanted = !isPrefetched
                queue = isPrefetched ? ExpertCacheState.Queue.prefetches : ExpertCacheState.Queue.requests
            case .reading(let slot, let purpose):
                isPrefetched = purpose == .prefetch
                isWanted = purpose != nil && !isPrefetched
                if contents[slot] != .part(record) { fail("\(record) is read into \(contents[slot])") }
            case .ready(let slot, let holder, let verification):
                switch holder {
                case .request: isWanted = true
                case .computation: isGiven = true
                case .prefetch: isPrefetched = true
                case .nobody: break
                }
                guard case .whole(record, let isDamaged) = contents[slot] else {
                    fail("\(record) is ready as \(contents[slot])")
                    continue
                }
                switch verification {
                case .due: queue = ExpertCacheState.Queue.verifications
                case .running: break
                case .intact where isDamaged: fail("damaged record \(record) passed")
                case .intact: if case .nobody = holder { fail("\(record) waits for nothing") }
                case .damaged where !isDamaged: fail("intact record \(record) did not pass")
                case .damaged: if !isWanted, !isGiven { fail("damaged record \(record) stays in the cache") }
                }
            case .idle(let slot):
                if contents[slot] != .whole(record, isDamaged: false) { fail("\(record) is idle as \(contents[slot])") }
            }
            if state.queues.list(of: record) != queue { fail("\(name(current)) record \(record) is in a wrong queue") }
            if state.prefetched.list(of: record) != (isPrefetched ? table.layer(of: record) : nil) {
                fail("\(name(current)) record \(record) is in a wrong layer's prefetches")
            }
            if isWanted != wanted.contains(record), state.failure == nil || isWanted {
                fail("\(name(current)) record \(record) is \(isWanted ? "not " : "")wanted")
            }
            if isGiven != (given[record] != nil) { fail("\(name(current)) record \(record): given out or not?") }
            if let slot = given[record], slot != current.slot { fail("\(record) moved while it was in use") }
        }
    }

    /// A record that is being read or verified is so by one thread.
    private mutating func checkThreads() {
        var busy: Set<Record> = []
        for thread in threads {
            switch thread {
            case .asks, .waits: continue
            case .reads(let record, let slot, _, _):
                busy.insert(record)
                if case .reading(slot, _) = state.records[record] { continue }
                fail("a thread reads the \(name(state.records[record])) record \(record)")
            case .verifies(let record, let slot):
                busy.insert(record)
                if case .ready(slot, _, .running) = state.records[record] { continue }
                fail("a thread verifies the \(name(state.records[record])) record \(record)")
            }
        }
        var count = 0
        for record in state.records {
            switch record {
            case .reading, .ready(_, _, .running): count += 1
            default: break
            }
        }
        if count != busy.count || count != threads.count(where: { $0.isBusy }) {
            fail("\(count) records are read or verified: \(threads)")
        }
    }

    private mutating func checkCounts() {
        var held = 0
        var awaited = 0
        var idle = 0
        var inFlight = 0
        for record in state.records {
            switch record {
            case .reading(_, for: .prefetch?): held += 1
            case .reading(_, for: .request?): inFlight += 1
            case .ready(_, heldBy: let holder, let verification):
                if holder == .prefetch { held += 1 }
                switch verification {
                case .due(let step), .running(let step): if step == state.step { awaited += 1 }
                case .intact, .damaged: break
                }
            case .idle: idle += 1
            default: break
            }
        }
        if held != state.heldPrefetches { fail("\(held) prefetches hold slots, and \(state.heldPrefetches) count") }
        if held > state.prefetchLimit { fail("\(held) prefetches hold slots of \(state.slots.limit)") }
        if inFlight != state.requestsInFlight { fail("\(inFlight) reads, and \(state.requestsInFlight) count") }
        if awaited != state.awaited { fail("\(awaited) records are awaited, and \(state.awaited) count") }
        if idle != state.policy.count { fail("\(idle) records are idle, and \(state.policy.count) in order") }
        if state.outstanding != wanted.count { fail("\(state.outstanding) outstanding of \(wanted.count)") }
        if state.givenCount != given.count { fail("\(state.givenCount) given of \(given.count)") }
    }

    private mutating func checkStatistics() {
        if state.statistics != expected { fail("\(state.statistics) is not \(expected)") }
    }

    /// A thread that waits has nothing to do: a copy of the state says so, too.
    private mutating func checkWaiting() {
        var copy = state
        if threads[0] == .waits {
            let action =
                switch phase {
                case .limits: copy.nextForSlotLimit()
                case .confirms: copy.nextForConfirm()
                default: copy.nextForTake()
                }
            if case .wait = action { return }
            return fail("computation waits, and could go on: \(action)")
        }
        // The computing thread reads a single requested record itself, and a failed step's prefetches are not wanted.
        guard threads[1...].contains(.waits), !threads[1...].contains(.asks), !copy.hasSingleRequest,
            phase != .stepBegins
        else { return }
        if case .wait = copy.nextForReader() { return }
        fail("a reader waits, and could go on")
    }

    /// What the policy orders is what is idle: nothing else can be evicted. The copy is emptied, the cache is not.
    private mutating func checkOrder() {
        var policy = state.policy
        var victims: Set<Record> = []
        while let victim = policy.removeVictim() { victims.insert(victim) }
        for record in state.records.indices {
            var isIdle = false
            if case .idle = state.records[record] { isIdle = true }
            if isIdle != victims.contains(record) { fail("\(name(state.records[record])) record \(record): in order?") }
        }
    }

    /// After the end: the readers found nothing more to do.
    mutating func checkDrained() {
        for record in state.records.indices {
            switch state.records[record] {
            case .absent, .idle: break
            default: fail("\(name(state.records[record])) record \(record) is left")
            }
        }
        for queue in 0..<ExpertCacheState.Queue.count where state.queues.counts[queue] > 0 {
            fail("queue \(queue) is not empty")
        }
        state.setSlotLimit(1)
        while case .releasePages = state.nextForSlotLimit() {}
        if state.slots.usedCount > 1 { fail("\(state.slots.usedCount) slots cannot be given back") }
    }

    /// The state's name in the table of docs/expert-cache.md.
    func name(_ state: RecordState) -> String {
        func name(_ verification: RecordState.Verification) -> String {
            switch verification {
            case .due: "due"
            case .running: "running"
            case .intact: "intact"
            case .damaged: "damaged"
            }
        }
        return switch state {
        case .absent: "absent"
        case .queued(for: .request): "queued for request"
        case .queued(for: .prefetch): "queued for prefetch"
        case .reading(_, for: .request?): "reading for request"
        case .reading(_, for: .prefetch?): "reading for prefetch"
        case .reading(_, for: nil): "reading for nobody"
        case .ready(_, heldBy: .request, let verification): "ready for request, \(name(verification))"
        case .ready(_, heldBy: .computation, let verification): "ready for computation, \(name(verification))"
        case .ready(_, heldBy: .prefetch, let verification): "ready for prefetch, \(name(verification))"
        case .ready(_, heldBy: .nobody, let verification): "ready for nobody, \(name(verification))"
        case .idle: "idle"
        }
    }
}

extension ExpertCacheWalk.Activity {
    var isBusy: Bool { self != .asks && self != .waits }
}
