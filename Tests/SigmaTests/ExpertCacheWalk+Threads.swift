import Sigma

/// What the simulated threads do.
extension ExpertCacheWalk {
    mutating func advanceReader(_ thread: Int) {
        if threads[thread] == .asks {
            begin(change { $0.nextForReader() }, thread)
        } else {
            goOn(thread)
        }
        check()
    }

    /// Begins what the state says.
    private mutating func begin(_ action: CacheAction, _ thread: Int) {
        switch action {
        case .wait: threads[thread] = .waits
        case .verify(let record, let slot): threads[thread] = .verifies(record, slot)
        case .read(let record, let slot):
            if given.values.contains(slot) { fail("slot \(slot) is overwritten while it is in use") }
            if case .reading(_, for: .request) = state.records[record] {
                // In the order of the file.
                for other in state.records.indices where other < record {
                    if case .queued(for: .request) = state.records[other] { fail("\(record) is read before \(other)") }
                }
            } else if state.queues.counts[ExpertCacheState.Queue.requests] > 0 {
                fail("\(record) is prefetched while a requested record waits")
            }
            contents[slot] = .part(record)
            readPiece(record, slot, done: 0, thread)
        case .releasePages(let slot): contents[slot] = .nothing
        case .done: break
        }
    }

    private mutating func readPiece(_ record: Record, _ slot: Slot, done: Int, _ thread: Int) {
        if let count = state.bytesToRead(of: record, left: Self.recordBytes - done) {
            threads[thread] = .reads(record, slot, done: done, count: count)
        } else {
            threads[thread] = .asks
            expected.bytesRead += done
            contents[slot] = .nothing
            wake(change { $0.readEnded(record, bytes: done, error: nil) }, by: thread)
        }
    }

    /// Ends a piece of a read, or a verification.
    private mutating func goOn(_ thread: Int) {
        switch threads[thread] {
        case .reads(let record, let slot, let done, let count):
            guard !chance(setup.failures) else {
                if case .reading(_, for: .request) = state.records[record] { unreadable.insert(record) }
                threads[thread] = .asks
                expected.bytesRead += done
                contents[slot] = .nothing
                wake(change { $0.readEnded(record, bytes: done, error: ReadError()) }, by: thread)
                return
            }
            guard done + count == Self.recordBytes else { return readPiece(record, slot, done: done + count, thread) }
            contents[slot] = .whole(record, isDamaged: chance(setup.damages))
            expected.reads += 1
            expected.bytesRead += Self.recordBytes
            threads[thread] = thread == 0 ? .asks : .verifies(record, slot)
            wake(change { $0.readFinished(record, bytes: Self.recordBytes, verifies: thread > 0) }, by: thread)
        case .verifies(let record, let slot):
            let damage: UInt32? = contents[slot] == .whole(record, isDamaged: true) ? 1 : nil
            threads[thread] = .asks
            wake(change { $0.verificationFinished(record, damage: damage) }, by: thread)
        case .asks, .waits: fail("thread \(thread) has nothing to go on with")
        }
    }

    mutating func advanceComputation() {
        switch threads[0] {
        case .asks: advanceCall()
        case .reads, .verifies: goOn(0)
        case .waits: fail("the computing thread goes on while it waits")
        }
        check()
    }

    private mutating func advanceCall() {
        if [.layerBegins, .computes].contains(phase), chance(setup.abandons) { return endStep() }
        switch phase {
        case .stepBegins:
            if mayEnd { return drain() }
            if chance(200) {
                let limit = 1 + below(setup.slots)
                change { $0.setSlotLimit(limit) }
                forgetRequest()
                phase = .limits
            } else {
                beginStep()
            }
        case .limits:
            let action = change { $0.nextForSlotLimit() }
            begin(action, 0)
            if case .done = action { beginStep() }
        case .layerBegins: request()
        case .takes(let waits):
            if waits {
                let action = change { $0.nextForTake() }
                begin(action, 0)
                guard case .done = action else { return }
            }
            take()
        case .computes:
            let slots = given.values.sorted()
            given = [:]
            wake(change { $0.release(slots) }, by: 0)
            if more { phase = .takes(waits: true) } else { endLayer() }
        case .confirms:
            let action = change { $0.nextForConfirm() }
            begin(action, 0)
            guard case .done = action else { return }
            if !endsWithFailure(), used.values.contains(true) { fail("a damaged record was confirmed") }
            endStep()
        case .ended: break
        }
    }

    private mutating func beginStep() {
        let rows = chance(150) ? 16 : 1
        change { $0.beginStep(rows: rows) }
        forgetRequest()
        used = [:]
        layer = 0
        phase = .layerBegins
    }

    private mutating func endStep() { phase = .stepBegins }

    private mutating func endLayer() {
        layer += 1
        phase = layer < setup.layers ? .layerBegins : .confirms
    }

    private mutating func request() {
        if chance(500) { prefetch() }
        let experts = someExperts()
        for expert in experts {
            let record = table.record(layer: layer, expert: expert)
            expected.requests += 1
            switch state.records[record] {
            case .idle, .ready(_, heldBy: .nobody, _): expected.hits += 1
            case .reading(_, for: .prefetch?), .ready(_, heldBy: .prefetch, _): expected.prefetched += 1
            default: break
            }
        }
        let layer = layer
        wake(change { $0.request(experts, layer: layer) }, by: 0)
        wanted = Set(experts.map { table.record(layer: layer, expert: $0) })
        for record in state.records.indices where table.layer(of: record) == layer {
            if state.prefetched.list(of: record) != nil { fail("\(record) is still prefetched for its own layer") }
        }
        if chance(500) { prefetch() }
        phase = .takes(waits: chance(700))
    }

    /// Predicts for any layer, once or twice.
    private mutating func prefetch() {
        for _ in 0...below(2) {
            let experts = someExperts()
            let target = chance(800) ? min(layer + 1, setup.layers - 1) : below(setup.layers)
            wake(change { $0.prefetch(experts, layer: target) }, by: 0)
            for record in state.records.indices where table.layer(of: record) == target {
                let isPredicted = experts.contains(table.expert(of: record))
                let isPrefetched = state.prefetched.list(of: record) != nil
                if isPrefetched ? !isPredicted : isPredicted && state.records[record] == .absent {
                    fail("\(record) is \(isPrefetched ? "" : "not ")prefetched for the newest prediction")
                }
            }
        }
    }

    private mutating func take() {
        if endsWithFailure() { return endStep() }
        var wave: [(Record, Slot)] = []
        more = change { $0.take { wave.append(($0, $1)) } }
        for (record, slot) in wave {
            if wanted.remove(record) == nil { fail("record \(record) is given twice, or was not wanted") }
            guard case .whole(record, let isDamaged) = contents[slot] else {
                fail("record \(record) is given as \(contents[slot])")
                continue
            }
            given[record] = slot
            used[record] = isDamaged
        }
        if more == wanted.isEmpty { fail("\(wanted.count) more are to come, and the state says \(more)") }
        phase = .computes
    }

    /// Whether the call fails; then the failure must have a reason, and nothing may be wanted.
    private mutating func endsWithFailure() -> Bool {
        guard let failure = change({ $0.takeFailure() }) else { return false }
        failedSteps += 1
        switch failure {
        case .unreadable(let record, _):
            if !wanted.contains(record) || !unreadable.contains(record) { fail("\(record) failed without a reason") }
        case .damaged(let record, _):
            let isDamaged = used[record] ?? (wanted.contains(record) && isDamaged(record))
            if !isDamaged { fail("\(record) is reported as damaged, and was not used") }
        }
        forgetRequest()
        return true
    }

    private func isDamaged(_ record: Record) -> Bool {
        // The failure made it absent: its bytes are still where they were.
        contents.contains(.whole(record, isDamaged: true))
    }

    private mutating func forgetRequest() {
        wanted = []
        given = [:]
        unreadable = []
    }

    /// The last step is over: readers finish what they do.
    private mutating func drain() {
        change { $0.beginStep(rows: 1) }
        forgetRequest()
        phase = .ended
    }
}
