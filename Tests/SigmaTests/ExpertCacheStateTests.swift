import Sigma
import Testing

/// The states of records, without threads.
@Suite struct ExpertCacheStateTests {
    /// Every move of a record from state to state that there is; docs/expert-cache.md says what causes them.
    static let moves: [String: Set<String>] = [
        "absent": ["queued for request", "queued for prefetch"],
        "queued for request": ["reading for request", "absent"],
        "queued for prefetch": ["reading for prefetch", "queued for request", "absent"],
        "reading for request": [
            "ready for request, due", "ready for request, running", "reading for nobody", "absent",
        ],
        "reading for prefetch": [
            "ready for prefetch, running", "reading for request", "reading for nobody", "absent",
        ],
        "reading for nobody": ["ready for nobody, running", "reading for request", "absent"],
        "ready for request, due": [
            "ready for computation, due", "ready for request, running", "ready for nobody, due",
        ],
        "ready for request, running": [
            "ready for computation, running", "ready for request, intact", "ready for request, damaged",
            "ready for nobody, running",
        ],
        "ready for request, intact": ["ready for computation, intact", "idle"],
        "ready for request, damaged": ["absent"],
        "ready for computation, due": ["ready for computation, running", "ready for nobody, due"],
        "ready for computation, running": [
            "ready for computation, intact", "ready for computation, damaged", "ready for nobody, running",
        ],
        "ready for computation, intact": ["idle"],
        "ready for computation, damaged": ["absent"],
        "ready for prefetch, running": [
            "ready for prefetch, intact", "ready for request, running", "ready for nobody, running", "absent",
        ],
        "ready for prefetch, intact": ["ready for request, intact", "idle"],
        "ready for nobody, due": ["ready for nobody, running", "ready for request, due"],
        "ready for nobody, running": ["idle", "ready for request, running", "absent"],
        "idle": ["ready for request, intact", "absent"],
    ]

    @Test func everyInterleavingKeepsThePromises() {
        var seen: [String: Set<String>] = [:]
        var operations = 0
        var failedSteps = 0
        for policy in EvictionPolicyKind.allCases {
            for (index, slots) in [1, 2, 4, 7, 18].enumerated() {
                var setup = ExpertCacheWalk.Setup(policy: policy, slots: slots)
                // Readers that fall behind, and computation that does.
                setup.computationShare = [8, 6, 1, 4, 6][index]
                if index == 1 { (setup.failures, setup.damages) = (0, 200) }
                if index == 3 { (setup.failures, setup.damages) = (50, 50) }
                var walk = ExpertCacheWalk(setup, seed: UInt64(slots))
                walk.run(operations: 14_000)
                walk.checkDrained()
                #expect(walk.violation == nil, "\(policy), \(slots) slots")
                operations += walk.operations
                failedSteps += walk.failedSteps
                for move in walk.moves.keys { seen[move.from, default: []].insert(move.to) }
            }
        }
        #expect(operations >= 200_000 && failedSteps > 100)
        // No other move, and each of them.
        #expect(seen == Self.moves)
    }

    // MARK: single promises

    private static let table = ExpertRecordTable(
        expertCount: 4, choices: [2, 2],
        places: (0..<8).map { ExpertRecordTable.Place(offset: $0 * 4096, byteCount: 4096, checksum: 0) }, path: "table")

    private static func state(slots: Int = 4) -> ExpertCacheState {
        var state = ExpertCacheState(table, slotCapacity: slots, policy: .lru)
        state.beginStep(rows: 1)
        return state
    }

    /// Reads what the action says.
    private static func read(_ action: CacheAction, _ state: inout ExpertCacheState, verifies: Bool) throws -> Record {
        guard case .read(let record, _) = action else { throw Unexpected(action: action) }
        #expect(state.bytesToRead(of: record, left: 4096) == 4096)
        _ = state.readFinished(record, bytes: 4096, verifies: verifies)
        return record
    }

    private struct Unexpected: Error { let action: CacheAction }

    @Test func theComputingThreadReadsASingleRecordItself() throws {
        var state = Self.state()
        #expect(state.request([Expert(2)], layer: 1) == [])
        #expect(state.isStarved)
        #expect(try Self.read(state.nextForTake(), &state, verifies: false) == Record(6))
        #expect(!state.isStarved)
        var given: [Record] = []
        #expect(!state.take { record, _ in given.append(record) })
        #expect(given == [Record(6)])
        // Two are the readers' work.
        state.beginStep(rows: 1)
        #expect(state.request([Expert(0), Expert(1)], layer: 0) == .readers)
        guard case .wait = state.nextForTake() else { return #expect(Bool(false), "it does not wait") }
    }

    @Test func aPredictionThatTurnsOutWrongEndsAtTheNextPiece() throws {
        var state = Self.state()
        #expect(state.prefetch([Expert(0), Expert(1)], layer: 1) == .readers)
        guard case .read(let record, _) = state.nextForReader() else { return #expect(Bool(false), "nothing is read") }
        #expect(record == Record(4) && state.records[Record(5)] == .queued(for: .prefetch))
        #expect(state.bytesToRead(of: record, left: 2 << 20) == ExpertCacheState.pieceBytes)
        // The layer chose others.
        _ = state.request([Expert(3)], layer: 1)
        #expect(state.bytesToRead(of: record, left: 1 << 20) == nil && state.records[Record(5)] == .absent)
        _ = state.readEnded(record, bytes: 1 << 20, error: nil)
        #expect(state.records[record] == .absent && state.statistics.reads == 0)
        #expect(state.statistics.bytesRead == 1 << 20)
    }

    /// The readers are still busy with a step that ended early when the next one begins.
    @Test func damageThatIsFoundLateIsNotTheNextStepsFailure() throws {
        var state = Self.state()
        _ = state.request([Expert(0), Expert(1)], layer: 0)
        let damaged = try Self.read(state.nextForReader(), &state, verifies: true)
        _ = state.take { _, _ in }
        #expect(state.awaited == 1)
        state.beginStep(rows: 1)
        _ = state.verificationFinished(damaged, damage: 1)
        #expect(state.failure == nil && state.awaited == 0 && state.records[damaged] == .absent)
        // Another one is given to both steps.
        _ = state.request([Expert(2)], layer: 0)
        let intact = try Self.read(state.nextForTake(), &state, verifies: false)
        _ = state.take { _, _ in }
        state.beginStep(rows: 1)
        _ = state.request([Expert(2)], layer: 0)
        _ = state.take { _, _ in }
        #expect(state.awaited == 1)
        guard case .verify(intact, _) = state.nextForConfirm() else {
            return #expect(Bool(false), "it is not verified")
        }
        _ = state.verificationFinished(intact, damage: nil)
        guard case .done = state.nextForConfirm() else { return #expect(Bool(false), "it is not confirmed") }
        #expect(state.statistics.hits == 1)
    }
}
