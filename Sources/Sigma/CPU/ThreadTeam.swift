import CSigma

/// The threads that compute, one team for a back end. Used by one thread at a time.
package final class ThreadTeam: @unchecked Sendable {
    private let team: OpaquePointer
    let memberCount: Int
    /// Whether the threads stay on the default processors; done by the thread that uses the team first, before it starts the others.
    private var keepsToProcessors: Bool

    /// - Parameter memberCount: nil: a member for each of the default processors, and only on these.
    /// - Throws: `SigmaError(.unavailable)` if so many threads cannot be had.
    init(memberCount: Int?) throws {
        keepsToProcessors = memberCount == nil
        let memberCount = memberCount ?? Self.availableProcessors
        guard let team = sigma_team_create(Int32(clamping: memberCount)) else {
            throw SigmaError(
                .unavailable, "the system does not give this process \(memberCount) threads",
                remedy: .lower(.threads))
        }
        self.team = team
        self.memberCount = Int(sigma_team_members(team))
        // The members' stacks count.
        try AvailableMemory.checkProcessLimits()
    }

    deinit { sigma_team_destroy(team) }

    /// Runs the operation on every member and returns when all have ended.
    func run(_ operation: TeamOperation) {
        if keepsToProcessors {
            sigma_keep_to_processors()
            keepsToProcessors = false
        }
        sigma_team_run(
            team,
            { context, member in
                Unmanaged<TeamOperation>.fromOpaque(context!)._withUnsafeGuaranteedRef { $0.perform(member) }
            },
            Unmanaged.passUnretained(operation).toOpaque())
    }

    /// Inside a body: waits for all members.
    func barrier(_ member: Int32) { sigma_team_barrier(team, member) }

    /// Inside a body: an item of `list` (0...7), or nil when all `count` are given out. A member gets successive items of its own share
    /// first, then helps the others from the ends of theirs.
    @inline(__always)
    func take(_ list: Int32, of count: Int, _ member: Int32) -> Int? {
        let item = Int(sigma_team_take(team, list, member, Int64(count)))
        return item < 0 ? nil : item
    }

    /// The first item that `take` gives to the member, while the list is whole.
    @inline(__always)
    func share(_ member: Int32, of count: Int) -> Int { Int(sigma_team_share(team, member, Int64(count))) }

    /// Inside a body, by one member while the others are between two barriers: `list` is whole again.
    func reset(_ list: Int32) { sigma_team_reset(team, list) }

    /// Performance cores that this process may use; on Linux those of one memory node.
    package static var availableProcessors: Int {
        #if os(macOS)
            return performanceCoreCount
        #else
            return max(1, Int(sigma_processor_count()))
        #endif
    }
}

/// Work that the members of a team do together: an object that holds its arguments while it runs.
package class TeamOperation {
    /// The member's part; called on every member at once.
    func perform(_ member: Int32) { preconditionFailure("an operation does something") }
}
