import SystemLibrary

/// Experts in a limited number of equal slots, read from the disk when they are wanted.
///
/// Called by the thread that runs steps, layer by layer: one `request`, then `take` until everything that was asked for
/// has been given; each wave is released before the next is taken. At the step's end `confirm`.
///
/// `ExpertCacheState` decides; this class owns what a decision needs: the lock, the threads, the file and the slots'
/// memory. The lock guards everything but the records' bytes. A slot's bytes are written by the one thread that reads
/// its record, and read by whoever was given the record; they stay until the record is released, so nothing is copied.
package final class ExpertCache: @unchecked Sendable {
    package let table: ExpertRecordTable
    package let slotBytes: Int
    /// Slots that there may be at most.
    package let slotCapacity: Int
    private let reader: any RecordReader
    private let memory: AnonymousMemory

    private let lock = ConditionLock()
    /// Readers wait for it: there is something to read or to verify.
    private let work: Condition
    /// The computing thread waits for it: a read or a verification has ended.
    private let arrival: Condition
    // Under the lock.
    private var state: ExpertCacheState
    private var isClosed = false
    private var threads: [NativeThread] = []

    /// Reads that are in flight at once, besides one that the computing thread does itself.
    package static let readerCount = 2

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
        state = ExpertCacheState(table, slotCapacity: self.slotCapacity, policy: policy)
        memory = try AnonymousMemory(byteCount: self.slotCapacity * slotBytes)
        do {
            // They hold the cache until it is closed.
            for _ in 0..<Self.readerCount { threads.append(try NativeThread { self.readAndVerify() }) }
        } catch {
            close()
            throw error
        }
    }

    /// Ends the reading threads, and gives the slots' memory back. Nothing may be asked afterwards; what was given is
    /// no longer valid.
    package func close() {
        guard !lock.with({ isClosed }) else { return }
        lock.with { isClosed = true }
        work.broadcast()
        for thread in threads { thread.join() }
        threads = []
        memory.free()
    }

    package var statistics: ExpertStatistics { lock.with { state.statistics } }
    package var slotCount: Int { lock.with { state.slots.limit } }

    // MARK: - The computing thread

    /// A step begins: nothing is wanted from the one before, however it ended.
    /// - Parameter hasDrafts: whether rows may turn out not to stay: `endDrafts` then ends the step.
    package func beginStep(rows: Int, hasDrafts: Bool = false) {
        lock.with { state.beginStep(rows: rows, hasDrafts: hasDrafts) }
    }

    /// After `confirm`, in a step with drafts: what only other rows asked for is forgotten.
    package func endDrafts(kept: RowSet) { lock.with { state.endDrafts(kept: kept) } }

    /// Asks for experts of a layer, in ascending order.
    /// - Parameter rows: [experts], in a step with drafts: those that chose each.
    package func request(_ experts: [Expert], of rows: [RowSet] = [], layer: Int) {
        wake(lock.with { state.request(experts, of: rows, layer: layer) })
    }

    /// Reads records of a layer to come, which it will probably ask for, while nothing else is to be read. A newer
    /// prediction for a layer replaces an older one.
    package func prefetch(_ experts: [Expert], layer: Int) { wake(lock.with { state.prefetch(experts, layer: layer) }) }

    /// Counts predictions of single experts, for the statistics.
    package func countPredictions(_ all: Int, right: Int) { lock.with { state.countPredictions(all, right: right) } }

    /// Gives those of the requested experts that are in memory and were not given yet: valid until they are released.
    ///
    /// - Parameter waits: until there is at least one.
    /// - Returns: whether more will follow.
    /// - Throws: `SigmaError`: `.inputOutput` if a record cannot be read, `.damaged` if one is not what was converted.
    ///   Nothing is wanted then.
    package func take(_ wave: inout ExpertWave, waits: Bool) throws -> Bool {
        wave.removeAll()
        lock.lock()
        defer { lock.unlock() }
        if waits, state.isStarved {
            let start = monotonicTime()
            run { $0.nextForTake() }
            state.countStall(monotonicTime() - start)
        }
        if let failure = state.takeFailure() { throw error(failure) }
        return state.take { record, slot in
            wave.append(table.expert(of: record), UnsafeRawPointer(address(of: slot)), in: slot)
        }
    }

    /// The computing thread is done with the wave's records: they can be evicted.
    package func release(_ wave: ExpertWave) { wake(lock.with { state.release(wave.slots) }) }

    /// Waits until all that the step was given is known to be what was converted.
    ///
    /// - Throws: `SigmaError(.damaged)` if a record was not: what was computed in this step is void.
    package func confirm() throws {
        lock.lock()
        defer { lock.unlock() }
        run { $0.nextForConfirm() }
        if let failure = state.takeFailure() { throw error(failure) }
    }

    /// Makes room for other memory, or takes room that became free: only between steps. The policy names the records
    /// that are evicted; their pages are back with the system when the call returns.
    package func setSlotLimit(_ limit: Int) {
        lock.lock()
        defer { lock.unlock() }
        state.setSlotLimit(limit)
        run { $0.nextForSlotLimit() }
    }

    /// Does what the state says until a call of the computing thread has what it needs. Called and left with the lock
    /// held.
    private func run(_ next: (inout ExpertCacheState) -> CacheAction) {
        while true {
            switch next(&state) {
            case .read(let record, let slot): read(record, into: slot, isReader: false)
            case .verify(let record, let slot): verify(record, in: slot, isReader: false)
            case .releasePages(let slot): memory.release((slot.index * slotBytes)..<((slot.index + 1) * slotBytes))
            case .wait: arrival.wait()
            case .done: return
            }
        }
    }

    // MARK: - Reading and verifying

    private func readAndVerify() {
        lock.lock()
        while !isClosed {
            switch state.nextForReader() {
            case .read(let record, let slot): read(record, into: slot, isReader: true)
            case .verify(let record, let slot): verify(record, in: slot, isReader: true)
            case .wait, .done, .releasePages: work.wait()
            }
        }
        lock.unlock()
    }

    /// Reads the record into its slot. Called and left with the lock held, which is free in between.
    private func read(_ record: Record, into slot: Slot, isReader: Bool) {
        let place = table.places[record]!
        let target = address(of: slot)
        var done = 0
        var caught: (any Error)?
        while done < place.byteCount, caught == nil,
            let count = state.bytesToRead(of: record, left: place.byteCount - done)
        {
            lock.unlock()
            do { try reader.read(count, at: place.offset + done, into: target + done) } catch { caught = error }
            lock.lock()
            if caught == nil { done += count }
        }
        guard caught == nil, done == place.byteCount else {
            wake(state.readEnded(record, bytes: done, error: caught), isReader: isReader)
            return
        }
        // Whoever waits for the record goes on; its checksum follows.
        wake(state.readFinished(record, bytes: done, verifies: isReader), isReader: isReader)
        if isReader { verify(record, in: slot, isReader: true) }
    }

    /// Called and left with the lock held, which is free in between. The record stays in its slot meanwhile.
    private func verify(_ record: Record, in slot: Slot, isReader: Bool) {
        let place = table.places[record]!
        let bytes = UnsafeRawBufferPointer(start: address(of: slot), count: place.byteCount)
        lock.unlock()
        let found = CRC32C.checksum(bytes)
        lock.lock()
        wake(
            state.verificationFinished(record, damage: found == place.checksum ? nil : found), isReader: isReader)
    }

    /// - Parameter isReader: the calling thread reads. It looks for work itself, and a transition of its own makes room
    ///   for one read at most: no other reader is needed for it.
    private func wake(_ wakeups: Wakeups, isReader: Bool = false) {
        if wakeups.contains(.readers), !isReader { work.broadcast() }
        if wakeups.contains(.computation) { arrival.broadcast() }
    }

    private func address(of slot: Slot) -> UnsafeMutableRawPointer { memory.base + slot.index * slotBytes }

    private func error(_ failure: RecordFailure) -> SigmaError {
        switch failure {
        case .unreadable(_, let error as SigmaError): error
        case .unreadable(_, let error): SigmaError(.inputOutput, "cannot read: \(error)", path: table.path)
        case .damaged(let record, let found):
            SigmaError(
                .damaged,
                "the record is damaged: expected checksum \(String(table.places[record]!.checksum, radix: 16)), found \(String(found, radix: 16))",
                path: table.path, item: table.name(of: record), offset: UInt64(table.places[record]!.offset),
                remedy: "Copy the file again from its source, or convert the checkpoint again.")
        }
    }
}
