import Sigma

/// A cache without threads and files: one computing thread and the readers are simulated, and a seeded generator decides which of them goes
/// on next. After every transition the whole state is held against what must be true of it.
///
/// A simulated thread that waits goes on only if a transition wakes it: a lost wakeup ends the walk with a deadlock.
struct ExpertCacheWalk {
    struct Setup {
        var policy = EvictionPolicyKind.lru
        var layers = 3
        var experts = 6
        var slots = 6
        /// Of a thousand: reads that fail, and records that come damaged.
        var failures = 10
        var damages = 10
        /// Of a thousand calls: the step ends in the middle, as after an error elsewhere.
        var abandons = 5
        /// Of ten turns, how many the computing thread has when readers could go on, too.
        var computationShare = 4
    }

    /// What a simulated thread does outside of the state.
    enum Activity: Equatable {
        /// It asks the state next what to do.
        case asks
        case waits
        case reads(Record, Slot, done: Int, count: Int)
        case verifies(Record, Slot)
    }

    enum Phase: Equatable {
        case stepBegins, limits, layerBegins
        case takes(waits: Bool)
        case computes, confirms, ended
    }

    enum Content: Equatable {
        case nothing
        /// Written to by a thread.
        case part(Record)
        case whole(Record, isDamaged: Bool)
    }

    /// A record's, from state to state.
    struct Move: Hashable {
        let from: String
        let to: String
    }

    struct ReadError: Error {}

    let setup: Setup
    let table: ExpertRecordTable
    var state: ExpertCacheState
    var random: SplitMix64
    /// The computing thread, then the readers.
    var threads: [Activity]
    var phase = Phase.stepBegins
    var layer = 0
    var more = false
    var contents: TypedArray<Slot, Content>
    /// Of the current request, as the computing thread sees it: not given out yet; given out, and not released.
    var wanted: Set<Record> = []
    var given: [Record: Slot] = [:]
    /// Of the current step: what was given out, and whether its bytes were damaged.
    var used: [Record: Bool] = [:]
    var unreadable: Set<Record> = []
    var expected = ExpertStatistics()
    var mayEnd = false

    var operations = 0
    /// How often each move was seen.
    var moves: [Move: Int] = [:]
    var failedSteps = 0
    var violation: String?

    static let recordBytes = ExpertCacheState.pieceBytes * 2 + 4096
    static let readers = 2

    init(_ setup: Setup, seed: UInt64) {
        self.setup = setup
        let recordCount = setup.layers * setup.experts
        table = ExpertRecordTable(
            expertCount: setup.experts, choices: Array(repeating: 2, count: setup.layers),
            places: (0..<recordCount).map {
                ExpertRecordTable.Place(offset: $0 * Self.recordBytes, byteCount: Self.recordBytes, checksum: 0)
            }, path: "walk")
        state = ExpertCacheState(table, slotCapacity: setup.slots, policy: setup.policy)
        random = SplitMix64(state: seed)
        threads = Array(repeating: .asks, count: 1 + Self.readers)
        contents = TypedArray(repeating: .nothing, count: setup.slots)
    }

    // MARK: - The walk

    /// Goes on until so many transitions were made and the step that runs then has ended, or something is wrong.
    mutating func run(operations count: Int) {
        while violation == nil, phase != .ended || threads[1...].contains(where: { $0 != .waits }) {
            mayEnd = operations >= count
            let ready = threads.indices.filter { threads[$0] != .waits && ($0 > 0 || phase != .ended) }
            guard !ready.isEmpty else { return fail("deadlock in \(phase): \(threads)") }
            if ready[0] == 0, ready.count == 1 || chance(setup.computationShare * 100) {
                advanceComputation()
            } else {
                advanceReader(ready[0] == 0 ? ready[1 + below(ready.count - 1)] : ready[below(ready.count)])
            }
        }
    }

    mutating func fail(_ text: String) {
        if violation == nil { violation = "operation \(operations): \(text)" }
    }

    private mutating func below(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
    private mutating func chance(_ perThousand: Int) -> Bool { below(1000) < perThousand }
    private mutating func someExperts() -> [Expert] {
        let share = [60, 200, 500, 900][below(4)]
        return (0..<setup.experts).filter { _ in chance(share) }.map { Expert($0) }
    }

    /// One transition, and what must be true afterwards.
    @discardableResult
    private mutating func change<Result>(
        _ thread: Int, _ transition: (inout ExpertCacheState) -> Result, _ wakeups: (Result) -> Wakeups = { _ in [] }
    ) -> Result {
        let before = state.records
        let result = transition(&state)
        operations += 1
        for record in before.indices where before[record] != state.records[record] {
            moves[Move(from: name(before[record]), to: name(state.records[record])), default: 0] += 1
        }
        let woken = wakeups(result)
        if woken.contains(.computation), threads[0] == .waits { threads[0] = .asks }
        // As in the cache: a reader looks for work itself.
        if woken.contains(.readers), thread == 0 {
            for reader in 1...Self.readers where threads[reader] == .waits { threads[reader] = .asks }
        }
        return result
    }

    // MARK: - Threads

    private mutating func advanceReader(_ thread: Int) {
        if threads[thread] == .asks {
            begin(change(thread) { $0.nextForReader() }, thread)
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
            change(thread) {
                $0.readEnded(record, bytes: done, error: nil)
            } _: {
                $0
            }
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
                change(thread) {
                    $0.readEnded(record, bytes: done, error: ReadError())
                } _: {
                    $0
                }
                return
            }
            guard done + count == Self.recordBytes else { return readPiece(record, slot, done: done + count, thread) }
            contents[slot] = .whole(record, isDamaged: chance(setup.damages))
            expected.reads += 1
            expected.bytesRead += Self.recordBytes
            threads[thread] = thread == 0 ? .asks : .verifies(record, slot)
            change(thread) {
                $0.readFinished(record, bytes: Self.recordBytes, verifies: thread > 0)
            } _: {
                $0
            }
        case .verifies(let record, let slot):
            let damage: UInt32? = contents[slot] == .whole(record, isDamaged: true) ? 1 : nil
            threads[thread] = .asks
            change(thread) {
                $0.verificationFinished(record, damage: damage)
            } _: {
                $0
            }
        case .asks, .waits: fail("thread \(thread) has nothing to go on with")
        }
    }

    private mutating func advanceComputation() {
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
                change(0) { $0.setSlotLimit(limit) }
                forgetRequest()
                phase = .limits
            } else {
                beginStep()
            }
        case .limits:
            let action = change(0) { $0.nextForSlotLimit() }
            begin(action, 0)
            if case .done = action { beginStep() }
        case .layerBegins: request()
        case .takes(let waits):
            if waits {
                let action = change(0) { $0.nextForTake() }
                begin(action, 0)
                guard case .done = action else { return }
            }
            take()
        case .computes:
            let slots = given.values.sorted()
            given = [:]
            change(0) {
                $0.release(slots)
            } _: {
                $0
            }
            if more { phase = .takes(waits: true) } else { endLayer() }
        case .confirms:
            let action = change(0) { $0.nextForConfirm() }
            begin(action, 0)
            guard case .done = action else { return }
            if !endsWithFailure(), used.values.contains(true) { fail("a damaged record was confirmed") }
            endStep()
        case .ended: break
        }
    }

    private mutating func beginStep() {
        let rows = chance(150) ? 16 : 1
        change(0) { $0.beginStep(rows: rows) }
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
        change(0) {
            $0.request(experts, layer: layer)
        } _: {
            $0
        }
        wanted = Set(experts.map { table.record(layer: layer, expert: $0) })
        if chance(500) { prefetch() }
        phase = .takes(waits: chance(700))
    }

    /// Predicts for any layer, once or twice.
    private mutating func prefetch() {
        for _ in 0...below(2) {
            let experts = someExperts()
            let target = chance(800) ? min(layer + 1, setup.layers - 1) : below(setup.layers)
            change(0) {
                $0.prefetch(experts, layer: target)
            } _: {
                $0
            }
        }
    }

    private mutating func take() {
        if endsWithFailure() { return endStep() }
        var wave: [(Record, Slot)] = []
        more = change(0) { $0.take { wave.append(($0, $1)) } }
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
        guard let failure = change(0, { $0.takeFailure() }) else { return false }
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
        change(0) { $0.beginStep(rows: 1) }
        forgetRequest()
        phase = .ended
    }
}
