/// Where a record is, and who needs it.
///
///     absent ──▶ queued ──▶ reading ──▶ ready ◀──▶ idle
///        ▲                     │          │          │
///        └─────────────────────┴──────────┴──────────┘
///
/// docs/expert-cache.md has the table of transitions.
package enum RecordState: Equatable, Sendable, BitwiseCopyable {
    /// Not in memory, and nobody asked for it.
    case absent
    /// Waits for a thread and a slot.
    case queued(for: Purpose)
    /// A thread reads it into the slot. Without a purpose the read ends at the next piece.
    case reading(Slot, for: Purpose?)
    /// Whole, in the slot. It stays there while it has a holder, and until it has been verified.
    case ready(Slot, heldBy: Holder, Verification)
    /// Verified and held by nobody. The only state in which the policy orders a record, so the only one it can be evicted from.
    case idle(Slot)

    /// Why a record is read.
    package enum Purpose: Equatable, Sendable, BitwiseCopyable {
        /// The layer that is computed now asked for it. The use is what the policy is told when the record becomes idle.
        case request(RecordUse)
        /// A layer to come will probably ask for it.
        case prefetch
    }

    /// Who needs a record that is in memory.
    package enum Holder: Equatable, Sendable, BitwiseCopyable {
        /// The current request: not given out yet.
        case request(RecordUse)
        /// The computing thread: given out, not released yet.
        case computation(RecordUse)
        /// A layer to come.
        case prefetch
        /// Nobody: it only waits to be verified.
        case nobody(RecordUse)
    }

    package enum Verification: Equatable, Sendable, BitwiseCopyable {
        /// Waits for a thread that computes its checksum. `awaitedBy`: the newest step that was given it before.
        case due(awaitedBy: StepNumber?)
        /// A thread computes its checksum.
        case running(awaitedBy: StepNumber?)
        case intact
        /// Only while the current request or the computing thread holds it: it leaves the cache afterwards.
        case damaged
    }

    package typealias StepNumber = UInt32

    /// The slot that it occupies.
    package var slot: Slot? {
        switch self {
        case .absent, .queued: nil
        case .reading(let slot, _), .ready(let slot, _, _), .idle(let slot): slot
        }
    }
}
