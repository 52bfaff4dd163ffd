import SystemLibrary

/// Experts in a limited number of equal slots, read from the disk when they are wanted.
///
/// Called by the thread that runs steps, layer by layer: one `request`, then `take` until everything that was asked for has been given; each
/// wave is released before the next is taken. At the step's end `confirm`.
///
/// One lock guards everything but the records' bytes. A slot's bytes are written by the one thread that reads its record, and read by
/// whoever was given the record; they stay until the record is released, so nothing is copied.
///
/// A record that is in use, being read, foretold for a layer to come, or not verified yet is not in the policy's order: it cannot be a victim.
package final class ExpertCache: @unchecked Sendable {
    enum State: UInt8 { case absent, queued, reading, ready }

    struct Entry {
        var slot: Int32 = -1
        var state = State.absent
        /// By the layer that is computed now.
        var isWanted = false
        /// For a layer to come.
        var isForetold = false
        /// A prediction that turned out wrong while it was read: the read may end early.
        var isGivenUp = false
        var isVerified = false
        var isDamaged = false
        /// Given out before it was verified: the step waits for the result.
        var isAwaited = false
        /// What the policy is told when the record is put back.
        var use = RecordUse.missed
        var isOrdered = false
    }

    package let table: ExpertRecordTable
    package let slotBytes: Int
    /// Slots that there may be at most.
    package let slotCapacity: Int
    let reader: any RecordReader
    private let policy: any EvictionPolicy
    private let memory: AnonymousMemory

    // Everything from here on under the lock.
    let lock = ConditionLock()
    /// There is something to read or to verify.
    private let work: Condition
    /// A record has come, or failed to.
    private let arrival: Condition
    private var entries: [Entry]
    /// [slots]: the record that each holds; -1: none.
    private var recordOfSlot: [Int32]
    private var freeSlots: [Int32] = []
    /// Slots that gave their pages back.
    private var retiredSlots: [Int32] = []
    /// Slots that were ever used: the first so many.
    private var touchedSlots = 0
    private var usableSlots: Int
    private var demands = RecordQueue()
    private var foretellings = RecordQueue()
    private var unverified = RecordQueue()
    /// Wanted and ready, not given yet.
    private var arrived: [Int32] = []
    /// Of the current request, not given yet.
    private var outstanding = 0
    private var wanted: [Int32] = []
    /// Foretold records by layer.
    private var foretold: [[Int32]]
    private var heldForetold = 0
    private var demandsInFlight = 0
    private var awaited = 0
    private var failure: SigmaError?
    private var isSweep = false
    /// Of this step: records that were read ahead, and those of them that nobody wanted.
    private var sweepRead = 0
    private var sweepWasted = 0
    private var counts = ExpertStatistics()
    private var isClosed = false
    private var threads: [NativeThread] = []

    /// Reads that are in flight at once, besides one that the computing thread does itself.
    package static let readerCount = 2
    /// Choices per expert of a layer from which on a step is a sweep: uniform choices then leave out 2 % of the experts.
    private static let sweepShare = 4
    /// A prediction's read is looked after at this distance: what was foretold wrongly ends there.
    private static let pieceBytes = 512 << 10

    /// - Parameter slotCapacity: slots that there may ever be; memory is taken only by those that are used.
    /// - Throws: `SigmaError(.unavailable)` if there is no room for the slots, or no thread.
    package init(
        table: ExpertRecordTable, reader: any RecordReader, slotCapacity: Int, policy: EvictionPolicyKind = .lru
    ) throws {
        precondition(slotCapacity >= 1)
        self.table = table
        self.reader = reader
        work = Condition(lock)
        arrival = Condition(lock)
        slotBytes = table.slotBytes
        self.slotCapacity = min(slotCapacity, table.presentCount)
        usableSlots = self.slotCapacity
        self.policy = policy.make(recordCount: table.recordCount, capacity: self.slotCapacity)
        entries = Array(repeating: Entry(), count: table.recordCount)
        foretold = Array(repeating: [], count: table.layerCount)
        recordOfSlot = Array(repeating: -1, count: self.slotCapacity)
        memory = try AnonymousMemory(byteCount: self.slotCapacity * slotBytes)
        do {
            // They hold the cache until it is closed.
            for _ in 0..<Self.readerCount { threads.append(try NativeThread { self.readAndVerify() }) }
        } catch {
            close()
            throw error
        }
    }

    /// Ends the reading threads, and gives the slots' memory back. Nothing may be asked afterwards; what was given is no longer valid.
    package func close() {
        guard !lock.with({ isClosed }) else { return }
        lock.with { isClosed = true }
        work.broadcast()
        for thread in threads { thread.join() }
        threads = []
        memory.free()
    }

    package var statistics: ExpertStatistics { lock.with { counts } }
    package var slotCount: Int { lock.with { usableSlots } }

    // MARK: - The computing thread

    /// A step begins: nothing is wanted from the one before, however it ended.
    package func beginStep(rows: Int) {
        lock.with {
            giveUpForetold(layers: 0..<table.layerCount, but: [])
            failure = nil
            // So many rows meet nearly all experts of a layer: each is used once, in the order of the file.
            isSweep = rows * (table.choices.max() ?? 0) >= Self.sweepShare * table.expertCount
            sweepRead = 0
            sweepWasted = 0
        }
    }

    /// Asks for experts of a layer, in ascending order.
    package func request(_ experts: [Int], layer: Int) {
        lock.with {
            precondition(outstanding == 0 && wanted.isEmpty)
            giveUpForetold(layers: layer..<(layer + 1), but: experts)
            for expert in experts {
                let record = table.record(layer: layer, expert: expert)
                counts.requests += 1
                if entries[record].isDamaged, entries[record].state == .ready, !entries[record].isOrdered {
                    // Foretold, and found damaged: the disk may do better this time.
                    if entries[record].isForetold { endForetelling(record) }
                    freeSlots.append(takeSlot(of: record))
                }
                outstanding += 1
                wanted.append(Int32(record))
                entries[record].isWanted = true
                entries[record].isGivenUp = false
                let wasForetold = entries[record].isForetold
                if wasForetold { endForetelling(record) }
                entries[record].use = isSweep ? .passed : .missed
                switch entries[record].state {
                case .ready:
                    if wasForetold { counts.foretold += 1 } else { counts.hits += 1 }
                    if entries[record].isOrdered {
                        policy.remove(record)
                        entries[record].isOrdered = false
                        entries[record].use = .hit
                    }
                    arrived.append(Int32(record))
                case .reading:
                    if wasForetold { counts.foretold += 1 }
                    demandsInFlight += 1
                case .queued, .absent:
                    entries[record].state = .queued
                    demands.append(record)
                }
            }
            if isSweep { foretellSweep(behind: layer) }
            // A single read is done by the computing thread itself.
            if demands.count > 1 || demandsInFlight > 0 || foretellings.count > 0 { work.broadcast() }
        }
    }

    /// Records of a layer to come that will probably be wanted: they are read while nothing else is to be read. What was foretold for the layer
    /// before is void.
    package func foretell(_ experts: [Int], layer: Int) {
        lock.with {
            giveUpForetold(layers: layer..<(layer + 1), but: experts)
            for expert in experts where entries[table.record(layer: layer, expert: expert)].isForetold {
                foretold[layer].append(Int32(table.record(layer: layer, expert: expert)))
            }
            for expert in experts { foretell(table.record(layer: layer, expert: expert), layer: layer) }
            if foretellings.count > 0 { work.broadcast() }
        }
    }

    /// Counts predictions of single experts, for the statistics.
    package func countPredictions(_ all: Int, right: Int) {
        lock.with {
            counts.predictions += all
            counts.rightPredictions += right
        }
    }

    /// Gives those of them that are there and were not given yet: valid until they are released.
    ///
    /// - Parameter waits: until there is at least one.
    /// - Returns: whether more will follow.
    /// - Throws: `SigmaError`: `.inputOutput` if a record cannot be read, `.damaged` if one is not what was converted. Nothing is wanted then.
    package func take(_ wave: inout ExpertWave, waits: Bool) throws -> Bool {
        wave.removeAll()
        lock.lock()
        defer { lock.unlock() }
        if waits, outstanding > 0, arrived.isEmpty, failure == nil {
            let start = monotonicTime()
            while arrived.isEmpty, failure == nil {
                if demands.count == 1, demandsInFlight == 0, let record = nextDemand() {
                    read(record, verifies: false)
                } else {
                    arrival.wait()
                }
            }
            counts.stall += monotonicTime() - start
        }
        if let failure {
            forgetRequest()
            self.failure = nil
            throw failure
        }
        for record in arrived {
            let record = Int(record)
            if !entries[record].isVerified, !entries[record].isAwaited {
                entries[record].isAwaited = true
                awaited += 1
            }
            wave.append(
                record % table.expertCount,
                UnsafeRawPointer(memory.base + Int(entries[record].slot) * slotBytes))
        }
        outstanding -= arrived.count
        arrived.removeAll(keepingCapacity: true)
        return outstanding > 0
    }

    package func release(_ wave: ExpertWave) {
        lock.with {
            for record in wave.records { release(slot: (record - UnsafeRawPointer(memory.base)) / slotBytes) }
            if outstanding == 0 { wanted.removeAll(keepingCapacity: true) }
        }
        if lock.with({ demands.count > 0 || foretellings.count > 0 }) { work.broadcast() }
    }

    private func release(slot: Int) {
        let record = Int(recordOfSlot[slot])
        entries[record].isWanted = false
        settle(record)
    }

    /// Waits until all that the step was given is known to be what was converted.
    ///
    /// - Throws: `SigmaError(.damaged)` if a record was not: what was computed in this step is void.
    package func confirm() throws {
        lock.lock()
        defer { lock.unlock() }
        while awaited > 0 {
            if let record = nextUnverified() { verify(record) } else { arrival.wait() }
        }
        if let failure {
            forgetRequest()
            self.failure = nil
            throw failure
        }
    }

    /// Makes room for other memory, or takes room that became free: only between steps. Records that are given up are those that the policy
    /// names first; their pages are back with the system when the call returns.
    package func setSlotLimit(_ limit: Int) {
        lock.lock()
        defer { lock.unlock() }
        let limit = max(1, min(limit, slotCapacity))
        giveUpForetold(layers: 0..<table.layerCount, but: [])
        usableSlots = limit
        while touchedSlots - retiredSlots.count > limit {
            if let slot = freeSlots.popLast() ?? evict() {
                let first = Int(slot) * slotBytes
                memory.release(first..<(first + slotBytes))
                retiredSlots.append(slot)
            } else {
                // What is still being read or verified comes into the order soon.
                if let record = nextUnverified() { verify(record) } else { arrival.wait() }
            }
        }
    }

    // MARK: - Under the lock

    private func evict() -> Int32? {
        guard let victim = policy.removeVictim() else { return nil }
        entries[victim].isOrdered = false
        return takeSlot(of: victim)
    }

    /// Makes a record absent.
    private func takeSlot(of record: Int) -> Int32 {
        let slot = entries[record].slot
        entries[record].slot = -1
        entries[record].state = .absent
        entries[record].isVerified = false
        entries[record].isDamaged = false
        recordOfSlot[Int(slot)] = -1
        return slot
    }

    private func nextSlot() -> Int32? {
        if let slot = freeSlots.popLast() { return slot }
        if touchedSlots - retiredSlots.count < usableSlots {
            if let slot = retiredSlots.popLast() { return slot }
            touchedSlots += 1
            return Int32(touchedSlots - 1)
        }
        return evict()
    }

    /// Begins the next read that is waited for, if there is a slot for it.
    private func nextDemand() -> Int? {
        while let record = demands.first {
            guard entries[record].state == .queued, entries[record].isWanted else {
                demands.removeFirst()
                continue
            }
            guard let slot = nextSlot() else { return nil }
            demands.removeFirst()
            demandsInFlight += 1
            begin(record, slot)
            return record
        }
        return nil
    }

    /// Begins the next read that was foretold; never while one that is waited for has no slot, and never with the last slots.
    private func nextForetold() -> Int? {
        while let record = foretellings.first {
            guard entries[record].state == .queued, entries[record].isForetold else {
                foretellings.removeFirst()
                continue
            }
            guard demands.count == 0, heldForetold < min(2 * table.expertCount, usableSlots / 2),
                let slot = nextSlot()
            else { return nil }
            foretellings.removeFirst()
            heldForetold += 1
            sweepRead += 1
            begin(record, slot)
            return record
        }
        return nil
    }

    private func foretell(_ record: Int, layer: Int) {
        guard entries[record].state == .absent else { return }
        entries[record].state = .queued
        entries[record].isForetold = true
        foretold[layer].append(Int32(record))
        foretellings.append(record)
    }

    /// In a sweep the disk goes on with the next layers while this one is computed, unless their experts turn out not to be used.
    private func foretellSweep(behind layer: Int) {
        guard sweepRead < table.expertCount || sweepWasted * 32 < sweepRead else { return }
        for next in (layer + 1)..<max(layer + 1, min(layer + 3, table.layerCount)) where table.choices[next] > 0 {
            for expert in 0..<table.expertCount { foretell(table.record(layer: next, expert: expert), layer: next) }
        }
    }

    private func begin(_ record: Int, _ slot: Int32) {
        entries[record].slot = slot
        entries[record].state = .reading
        recordOfSlot[Int(slot)] = Int32(record)
    }

    private func nextUnverified() -> Int? {
        guard let record = unverified.first else { return nil }
        unverified.removeFirst()
        return record
    }

    /// The layers have come, or the step has ended: what was foretold for them and is not wanted becomes an ordinary record, or is not read.
    private func giveUpForetold(layers: Range<Int>, but experts: [Int]) {
        for layer in layers where !foretold[layer].isEmpty {
            for record in foretold[layer] {
                let record = Int(record)
                guard entries[record].isForetold, !experts.contains(record % table.expertCount) else { continue }
                switch entries[record].state {
                case .queued: entries[record].state = .absent
                case .reading:
                    entries[record].isGivenUp = true
                    sweepWasted += 1
                case .ready: sweepWasted += 1
                case .absent: break
                }
                entries[record].use = .passed
                endForetelling(record)
                settle(record)
            }
            foretold[layer].removeAll(keepingCapacity: true)
        }
    }

    private func endForetelling(_ record: Int) {
        entries[record].isForetold = false
        if entries[record].state == .reading || entries[record].state == .ready { heldForetold -= 1 }
    }

    /// Puts a record that nobody needs now into the order; a damaged one leaves the cache.
    private func settle(_ record: Int) {
        let entry = entries[record]
        guard entry.state == .ready, !entry.isWanted, !entry.isForetold, entry.isVerified, !entry.isOrdered else {
            return
        }
        if entry.isDamaged {
            freeSlots.append(takeSlot(of: record))
        } else {
            policy.add(record, after: entry.use)
            entries[record].isOrdered = true
        }
    }

    /// After a failure: nothing is wanted any more.
    private func forgetRequest() {
        demands.removeAll()
        for record in wanted {
            let record = Int(record)
            guard entries[record].isWanted else { continue }
            entries[record].isWanted = false
            switch entries[record].state {
            case .queued: entries[record].state = .absent
            case .reading: demandsInFlight -= 1
            case .ready, .absent: break
            }
            settle(record)
        }
        wanted.removeAll(keepingCapacity: true)
        arrived.removeAll(keepingCapacity: true)
        outstanding = 0
    }

    private func fail(_ error: any Error) {
        if failure == nil {
            failure =
                (error as? SigmaError) ?? SigmaError(.inputOutput, "cannot read: \(error)", path: table.path)
        }
    }

    // MARK: - Reading

    /// Reads the record into its slot; called and left with the lock held, which is free in between.
    private func read(_ record: Int, verifies: Bool) {
        let place = table.places[record]!
        let target = memory.base + Int(entries[record].slot) * slotBytes
        var done = 0
        var caught: (any Error)?
        while done < place.byteCount, caught == nil {
            // What is waited for comes in one request.
            let isForetold = !entries[record].isWanted
            if entries[record].isGivenUp, isForetold { break }
            let count = isForetold ? min(Self.pieceBytes, place.byteCount - done) : place.byteCount - done
            lock.unlock()
            do { try reader.read(count, at: place.offset + done, into: target + done) } catch { caught = error }
            lock.lock()
            if caught == nil { done += count }
        }
        counts.bytesRead += done
        let isWanted = entries[record].isWanted
        if isWanted { demandsInFlight -= 1 }
        if caught != nil || done < place.byteCount {
            if entries[record].isForetold { heldForetold -= 1 }
            freeSlots.append(takeSlot(of: record))
            entries[record].isForetold = false
            entries[record].isGivenUp = false
            // A prediction that cannot be read fails nobody: who wants the record reads it again.
            if isWanted, let caught {
                fail(caught)
            }
        } else {
            counts.reads += 1
            entries[record].state = .ready
            entries[record].isGivenUp = false
            if isWanted { arrived.append(Int32(record)) }
            if verifies {
                // Whoever waits goes on; the checksum follows.
                if isWanted { arrival.broadcast() }
                verify(record)
            } else {
                unverified.append(record)
                work.broadcast()
            }
        }
        arrival.broadcast()
    }

    /// Called and left with the lock held. The record cannot be a victim meanwhile.
    private func verify(_ record: Int) {
        let place = table.places[record]!
        let bytes = UnsafeRawBufferPointer(
            start: memory.base + Int(entries[record].slot) * slotBytes, count: place.byteCount)
        lock.unlock()
        let found = CRC32C.checksum(bytes)
        lock.lock()
        entries[record].isVerified = true
        if found != place.checksum {
            entries[record].isDamaged = true
            // Of a record that nobody was given nobody needs to hear; when it is wanted, it is read again.
            if entries[record].isAwaited || entries[record].isWanted {
                fail(
                    SigmaError(
                        .damaged,
                        "the record is damaged: expected checksum \(String(place.checksum, radix: 16)), found \(String(found, radix: 16))",
                        path: table.path, item: table.name(of: record), offset: UInt64(place.offset),
                        remedy: "Copy the file again from where it came, or convert the checkpoint again."))
            }
        }
        if entries[record].isAwaited {
            entries[record].isAwaited = false
            awaited -= 1
        }
        settle(record)
        arrival.broadcast()
    }

    private func readAndVerify() {
        lock.lock()
        while !isClosed {
            if let record = nextDemand() {
                read(record, verifies: true)
            } else if let record = nextUnverified() {
                verify(record)
            } else if let record = nextForetold() {
                read(record, verifies: true)
            } else {
                work.wait()
            }
        }
        lock.unlock()
    }
}
