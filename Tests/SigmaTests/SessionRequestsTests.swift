import Sigma
import Testing

/// The state machine of a session's requests, driven without threads through random orders of what can happen, beside a model that
/// says in the plainest way what must hold.
@Suite struct SessionRequestsTests {
    @Test(arguments: 1...8) func everyOrderOfEventsKeepsTheRules(seed: UInt64) {
        var walk = Walk(seed: seed)
        // Eight times 50 walks of 1,000 operations. A session is idle again at the end of each.
        for number in 0..<50 {
            for _ in 0..<1000 where walk.failure == nil { walk.step() }
            walk.finish()
            if let failure = walk.failure {
                Issue.record("walk \(number) of seed \(seed): \(failure)")
                return
            }
        }
        // What the walks are for has happened in them.
        #expect(walk.count.begun > 1000 && walk.count.refused > 1000 && walk.count.waited > 1000)
        #expect(walk.count.turns > 500 && walk.count.stoppedTurns > 100 && walk.count.discarded > 500)
    }

    /// A session as its user sees it.
    private struct Walk {
        enum Work: Equatable {
            case answer(Int)
            case prewarming
            case change
        }

        private var machine = SessionRequests()
        private var random: SplitMix64
        /// What has the session, whether somebody wants it, and the request that waits for its end.
        private var work: Work?
        private var isWanted = true
        private var waiting: Int?
        private var stopped: Set<Int> = []
        private var abandoned: Set<Int> = []
        private var numbers: Set<Int> = []
        private var newest = 0
        private var begun: Set<Int> = []
        private(set) var failure: String?
        private(set) var count = (begun: 0, refused: 0, waited: 0, turns: 0, stoppedTurns: 0, discarded: 0)

        init(seed: UInt64) { random = SplitMix64(state: seed) }

        private mutating func require(_ condition: Bool, _ message: @autoclosure () -> String) {
            if !condition, failure == nil { failure = "\(message()) (state \(machine.state))" }
        }

        mutating func step() {
            switch random.next() % 16 {
            case 0...4: request()
            case 5...6: abandon()
            case 7...8: stop()
            case 9...12: end()
            case 13...14:
                let began = machine.beginPrewarming()
                require(began == (work == nil), "prewarming began on a busy session, or did not on an idle one")
                if began { take(.prewarming) }
            default:
                let began = machine.beginChange()
                require(began == (work == nil), "a change began on a busy session, or did not on an idle one")
                if began { take(.change) }
            }
            require(machine.isIdle == (work == nil), "idle, or not, against what has the session")
            if case .answer(let number)? = work {
                require(
                    machine.mustCancel(number) == (!isWanted || stopped.contains(number)),
                    "\(number) must be cancelled exactly if it was stopped or abandoned")
            }
        }

        /// Ends whatever goes on.
        mutating func finish() {
            while work != nil, failure == nil { end() }
            require(machine.isIdle, "nothing waits and nothing works, but the session is busy")
        }

        private mutating func take(_ new: Work) {
            require(work == nil, "\(new) has the session, which other work has")
            work = new
            isWanted = true
        }

        private mutating func begin(_ number: Int) {
            require(numbers.contains(number), "\(number) began, and was refused or never came")
            require(begun.insert(number).inserted, "\(number) began twice")
            require(!abandoned.contains(number), "\(number) began, and nobody wants it")
            count.begun += 1
            take(.answer(number))
        }

        private mutating func request() {
            let (number, action) = machine.request()
            let isFree = work == nil
            let mayWait = waiting == nil && (work == .prewarming || (work != nil && !isWanted))
            guard isFree || mayWait else {
                require(action == .refuse, "a busy session must refuse a request, and did \(action)")
                count.refused += 1
                return
            }
            require(numbers.insert(number).inserted && number > 0, "the number \(number) comes twice")
            newest = number
            if isFree {
                require(action == .begin(number), "an idle session must begin a request, and did \(action)")
                return begin(number)
            }
            let expected: SessionRequests.Action = isWanted ? .cancel : .nothing
            require(action == expected, "a request that waits must lead to \(expected), and led to \(action)")
            isWanted = false
            waiting = number
            count.waited += 1
        }

        private mutating func abandon() {
            // Mostly the newest; now and then one of long ago, one that was refused, or one that never was.
            let number =
                random.next() % 4 > 0 ? newest : Int(random.next() % UInt64(newest + 2))
            let action = machine.abandon(number)
            if work == .answer(number), isWanted {
                require(action == .cancel, "abandoned work must be cancelled")
                isWanted = false
            } else {
                require(action == .nothing, "abandoning \(number), which has nothing, led to \(action)")
                if waiting == number { waiting = nil }
            }
            if numbers.contains(number) { abandoned.insert(number) }
        }

        private mutating func stop() {
            let action = machine.stop()
            if case .answer(let number)? = work, isWanted {
                require(action == .cancel, "a stopped answer must be cancelled")
                stopped.insert(number)
            } else {
                require(action == .nothing, "there is no answer to stop")
                if let waiting { stopped.insert(waiting) }
            }
        }

        private mutating func end() {
            guard let ended = work else { return }
            let (answered, action) = machine.end()
            if case .answer(let number) = ended, isWanted {
                require(answered?.number == number, "the answer \(number) is wanted and became no turn")
                require(!abandoned.contains(number), "an abandoned answer became a turn")
                require(answered?.isStopped == stopped.contains(number), "stopped, or not, in error")
                count.turns += 1
                if stopped.contains(number) { count.stoppedTurns += 1 }
            } else {
                require(answered == nil, "work that nobody wants became a turn")
                count.discarded += 1
            }
            work = nil
            if let next = waiting {
                require(action == .begin(next), "\(next) waits for this end and does not begin: \(action)")
                waiting = nil
                begin(next)
            } else {
                require(action == .nothing, "nothing waits, and \(action) came")
            }
        }
    }
}
