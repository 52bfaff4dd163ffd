/// What a thread of the cache is to do next, outside of the state.
package enum CacheAction {
    case read(Record, into: Slot)
    case verify(Record, in: Slot)
    /// The slot's bytes are not needed any more: the system gets their pages.
    case releasePages(of: Slot)
    /// Nothing can be done before another thread has done something: wait to be woken.
    case wait
    /// The call has what it needs.
    case done
}

/// Threads that may find something to do after a transition.
package struct Wakeups: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// There is something to read or to verify.
    package static let readers = Wakeups(rawValue: 1)
    /// The computing thread may go on.
    package static let computation = Wakeups(rawValue: 2)
}

/// Why a record cannot be used.
package enum RecordFailure {
    case unreadable(Record, any Error)
    case damaged(Record, found: UInt32)
}
