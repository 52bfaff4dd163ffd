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

    mutating func below(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
    mutating func chance(_ perThousand: Int) -> Bool { below(1000) < perThousand }
    mutating func someExperts() -> [Expert] {
        let share = [60, 200, 500, 900][below(4)]
        return (0..<setup.experts).filter { _ in chance(share) }.map { Expert($0) }
    }

    /// One transition.
    @discardableResult
    mutating func change<Result>(_ transition: (inout ExpertCacheState) -> Result) -> Result {
        let before = state.records
        let result = transition(&state)
        operations += 1
        for record in before.indices where before[record] != state.records[record] {
            moves[Move(from: name(before[record]), to: name(state.records[record])), default: 0] += 1
        }
        return result
    }

    /// Wakes whom a transition of the thread wants woken. As in the cache, a reader looks for work itself, and wakes no other.
    mutating func wake(_ wakeups: Wakeups, by thread: Int) {
        if wakeups.contains(.computation), threads[0] == .waits { threads[0] = .asks }
        if wakeups.contains(.readers), thread == 0 {
            for reader in 1...Self.readers where threads[reader] == .waits { threads[reader] = .asks }
        }
    }
}
