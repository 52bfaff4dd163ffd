/// Reading, verifying and evicting.
extension ExpertCacheState {
    // MARK: - What is to be done

    /// What a reader does next: what was asked for, then checksums, then what was prefetched.
    package mutating func nextForReader() -> CacheAction {
        beginRequestedRead() ?? beginVerification() ?? beginPrefetch() ?? .wait
    }

    mutating func beginRequestedRead() -> CacheAction? {
        guard let record = queues.first(Queue.requests), case .queued(let purpose) = records[record],
            let slot = takeSlot()
        else { return nil }
        requestsInFlight += 1
        return begin(record, slot, for: purpose)
    }

    /// Never with the last slots. Requested records had their turn before: there is none, or no slot for it.
    private mutating func beginPrefetch() -> CacheAction? {
        guard let record = queues.first(Queue.prefetches), heldPrefetches < prefetchLimit, let slot = takeSlot()
        else { return nil }
        heldPrefetches += 1
        prefetchesRead += 1
        return begin(record, slot, for: .prefetch)
    }

    /// Slots that prefetched records may occupy.
    package var prefetchLimit: Int { min(2 * table.expertCount, slots.limit / 2) }

    private mutating func begin(_ record: Record, _ slot: Slot, for purpose: RecordState.Purpose) -> CacheAction {
        queues.remove(record)
        slots.hold(record, in: slot)
        records[record] = .reading(slot, for: purpose)
        return .read(record, into: slot)
    }

    mutating func beginVerification() -> CacheAction? {
        guard let record = queues.removeFirst(Queue.verifications) else { return nil }
        guard case .ready(let slot, let holder, .due(let awaitedBy)) = records[record] else {
            preconditionFailure("record \(record) is not to be verified")
        }
        records[record] = .ready(slot, heldBy: holder, .running(awaitedBy: awaitedBy))
        return .verify(record, in: slot)
    }

    // MARK: - What was done

    /// Bytes that the thread that reads the record reads next, of `left` bytes; nil: the read ends here, and `readEnded` is called.
    package func bytesToRead(of record: Record, left: Int) -> Int? {
        guard case .reading(_, let purpose) = records[record] else {
            preconditionFailure("record \(record) is not being read")
        }
        switch purpose {
        // What is waited for is read at once.
        case .request?: return left
        case .prefetch?: return min(Self.pieceBytes, left)
        case nil: return nil
        }
    }

    /// All bytes of the record are in its slot.
    ///
    /// - Parameter verifies: the thread that read it verifies it next; otherwise any thread does.
    package mutating func readFinished(_ record: Record, bytes: Int, verifies: Bool) -> Wakeups {
        guard case .reading(let slot, let purpose) = records[record] else {
            preconditionFailure("record \(record) is not being read")
        }
        statistics.reads += 1
        statistics.bytesRead += bytes
        let holder: RecordState.Holder
        var wakeups: Wakeups = []
        switch purpose {
        case .request(let use)?:
            holder = .request(use)
            requestsInFlight -= 1
            arrived.append(record)
            wakeups.insert(.computation)
        case .prefetch?: holder = .prefetch
        case nil: holder = .nobody(.passed)
        }
        records[record] = .ready(slot, heldBy: holder, verifies ? .running(awaitedBy: nil) : .due(awaitedBy: nil))
        if !verifies {
            queues.append(record, to: Queue.verifications)
            wakeups.insert(.readers)
        }
        return wakeups
    }

    /// The read ended without the whole record: it failed, or `bytesToRead` ended it.
    package mutating func readEnded(_ record: Record, bytes: Int, error: (any Error)?) -> Wakeups {
        guard case .reading(let slot, let purpose) = records[record] else {
            preconditionFailure("record \(record) is not being read")
        }
        statistics.bytesRead += bytes
        switch purpose {
        case .request?:
            requestsInFlight -= 1
            if let error { fail(.unreadable(record, error)) }
        // Nobody waits for a prefetched record: the layer that asks for it reads it again.
        case .prefetch?: endHeldPrefetch(record)
        case nil: break
        }
        drop(record, slot)
        return wakeupsForQueues.union(.computation)
    }

    /// - Parameter damage: the checksum that was found, if it is not the record's.
    package mutating func verificationFinished(_ record: Record, damage: UInt32?) -> Wakeups {
        guard case .ready(let slot, let holder, .running(let awaitedBy)) = records[record] else {
            preconditionFailure("record \(record) is not being verified")
        }
        let isAwaited = awaitedBy == step
        if isAwaited { awaited -= 1 }
        let verification: RecordState.Verification = damage == nil ? .intact : .damaged
        var isUsed = isAwaited
        switch holder {
        case .request, .computation:
            isUsed = true
            records[record] = .ready(slot, heldBy: holder, verification)
        case .prefetch where damage != nil:
            endHeldPrefetch(record)
            drop(record, slot)
        case .prefetch: records[record] = .ready(slot, heldBy: .prefetch, .intact)
        case .nobody(let use): letGo(record, slot, after: use, verification)
        }
        // Nobody uses a damaged record otherwise: the layer that asks for it reads it again.
        if isUsed, let damage { fail(.damaged(record, found: damage)) }
        return wakeupsForQueues.union(.computation)
    }

    /// Readers have something to do, or may have by now.
    var wakeupsForQueues: Wakeups {
        queues.counts[Queue.requests] > 0 || queues.counts[Queue.prefetches] > 0 ? .readers : []
    }

    private mutating func fail(_ new: RecordFailure) {
        if failure == nil { failure = new }
    }

    // MARK: - Leaving

    /// A record in memory has no holder any more.
    mutating func letGo(
        _ record: Record, _ slot: Slot, after use: RecordUse, _ verification: RecordState.Verification
    ) {
        switch verification {
        case .due, .running: records[record] = .ready(slot, heldBy: .nobody(use), verification)
        case .intact:
            records[record] = .idle(slot)
            policy.add(record, after: use)
        case .damaged: drop(record, slot)
        }
    }

    private mutating func drop(_ record: Record, _ slot: Slot) {
        records[record] = .absent
        slots.vacate(slot)
        slots.addFree(slot)
    }

    /// A prefetched record that occupies a slot is not prefetched any more.
    mutating func endHeldPrefetch(_ record: Record) {
        prefetched.remove(record)
        heldPrefetches -= 1
    }

    /// After a failure, or a step's end: nothing is wanted or held by the computing thread any more.
    mutating func forgetRequest() {
        for record in requested {
            switch records[record] {
            case .queued(for: .request):
                queues.remove(record)
                records[record] = .absent
            case .reading(let slot, for: .request?):
                requestsInFlight -= 1
                records[record] = .reading(slot, for: nil)
            case .ready(let slot, heldBy: .request(let use), let verification):
                letGo(record, slot, after: use, verification)
            case .ready(let slot, heldBy: .computation(let use), let verification):
                letGo(record, slot, after: use, verification)
            // Released before, or it could not be read. Whatever happened since, this request does not want it.
            default: break
            }
        }
        requested.removeAll(keepingCapacity: true)
        arrived.removeAll(keepingCapacity: true)
        outstanding = 0
        givenCount = 0
    }

    /// A slot for a record: an empty one, or the policy's victim's.
    private mutating func takeSlot() -> Slot? { slots.takeEmpty() ?? evict() }

    mutating func evict() -> Slot? {
        guard let victim = policy.removeVictim() else { return nil }
        guard case .idle(let slot) = records[victim] else { preconditionFailure("record \(victim) is in use") }
        records[victim] = .absent
        slots.vacate(slot)
        return slot
    }
}
