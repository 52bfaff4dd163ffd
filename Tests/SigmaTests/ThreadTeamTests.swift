import CSigma
import Foundation
import Testing

/// Fork, join, barriers and lists of the thread team, with fewer and with more members than processors.
@Suite struct ThreadTeamTests {
    /// What the bodies see: counters in C memory.
    private final class Shared {
        let team: OpaquePointer
        let members: Int
        /// [members]: how far each has come.
        let steps: UnsafeMutablePointer<Int>
        /// [members]: the least that a member saw of the others behind a barrier.
        let seen: UnsafeMutablePointer<Int>
        /// [items]: how often each was given out.
        let given: UnsafeMutablePointer<Int>
        static let items = 1000

        init(_ members: Int) throws {
            team = try #require(sigma_team_create(Int32(members)))
            self.members = members
            (steps, seen, given) = (
                .allocate(capacity: members), .allocate(capacity: members), .allocate(capacity: Self.items)
            )
            steps.initialize(repeating: 0, count: members)
            seen.initialize(repeating: .max, count: members)
            given.initialize(repeating: 0, count: Self.items)
        }

        deinit {
            sigma_team_destroy(team)
            for pointer in [steps, seen, given] { pointer.deallocate() }
        }

        func run(_ body: sigma_team_body) { sigma_team_run(team, body, Unmanaged.passUnretained(self).toOpaque()) }
        static func of(_ context: UnsafeMutableRawPointer?) -> Shared {
            Unmanaged.fromOpaque(context!).takeUnretainedValue()
        }
    }

    @Test(arguments: [1, 2, 3, 5, 16, 40]) func everyMemberWorksAndBarriersHold(members: Int) throws {
        let shared = try Shared(members)
        #expect(Int(sigma_team_members(shared.team)) == members)
        for round in 1...30 {
            shared.run { context, member in
                let shared = Shared.of(context)
                let member = Int(member)
                for _ in 0..<3 {
                    shared.steps[member] += 1
                    sigma_team_barrier(shared.team, Int32(member))
                    // Everyone has come so far, and nobody farther.
                    for other in 0..<shared.members where shared.steps[other] != shared.steps[member] {
                        shared.seen[member] = min(shared.seen[member], shared.steps[other])
                    }
                    sigma_team_barrier(shared.team, Int32(member))
                }
            }
            for member in 0..<members { #expect(shared.steps[member] == 3 * round && shared.seen[member] == .max) }
        }
    }

    @Test(arguments: [1, 2, 7]) func everyItemIsGivenOnce(members: Int) throws {
        let shared = try Shared(members)
        for round in 1...20 {
            shared.run { context, member in
                let shared = Shared.of(context)
                while true {
                    let item = Int(sigma_team_take(shared.team, 3, member, Int64(Shared.items)))
                    if item < 0 { break }
                    shared.given[item] += 1
                }
            }
            #expect((0..<Shared.items).allSatisfy { shared.given[$0] == round })
        }
    }

    /// The members sleep after a while, and wake again.
    @Test func pausesBetweenRounds() throws {
        let shared = try Shared(3)
        for round in 1...4 {
            usleep(20_000)
            shared.run { context, member in Shared.of(context).steps[Int(member)] += 1 }
            #expect((0..<3).allSatisfy { shared.steps[$0] == round })
        }
    }

    /// No threads are left behind.
    @Test func teamsEndTheirThreads() throws {
        func threads() -> Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").count) ?? 0 }
        let before = threads()
        for _ in 0..<50 { _ = try Shared(8) }
        // Tests beside this one have threads, too, but not hundreds.
        #expect(threads() < before + 200)
    }

    @Test func sizesOutOfRange() throws {
        for (wanted, found) in [(0, 1), (-5, 1), (1, 1), (300, 256)] as [(Int32, Int32)] {
            // A machine may not give so many threads.
            guard let team = sigma_team_create(wanted) else { continue }
            #expect(sigma_team_members(team) == found)
            sigma_team_destroy(team)
        }
        sigma_team_destroy(nil)
    }
}
