import Sigma
import SigmaServer
import Testing

@Suite struct AdmissionQueueTests {
    private static func queue(parallel: Int = 2, requests: Int = 3, tokens: Int = 1000) -> AdmissionQueue {
        AdmissionQueue(.init(parallel: parallel, requests: requests, tokens: tokens))
    }

    private static func begin(_ queue: inout AdmissionQueue, hasRoom: Bool = true) -> [Int] {
        queue.begin { _ in hasRoom }
    }

    private static func enter(_ count: Int, _ queue: inout AdmissionQueue, promptTokens: Int = 1) throws -> [Int] {
        var tickets: [Int] = []
        for _ in 0..<count {
            let ticket = queue.enter(promptTokens: promptTokens)
            tickets.append(try #require(ticket))
        }
        return tickets
    }

    /// Who begins now.
    private static func expect(_ places: [Int], _ queue: inout AdmissionQueue, hasRoom: Bool = true) {
        let begun = begin(&queue, hasRoom: hasRoom)
        #expect(begun == places)
    }

    @discardableResult
    private static func ask(_ queue: inout AdmissionQueue, _ ticket: Int) -> Int {
        let place = queue.nextNumber()
        queue.wait(for: place, ticket, positions: 10)
        return place
    }

    @Test func asManyAsThereArePlacesBegin() throws {
        var queue = Self.queue()
        let tickets = try Self.enter(3, &queue)
        let places = tickets.map { Self.ask(&queue, $0) }
        Self.expect(Array(places[..<2]), &queue)
        #expect(queue.runningCount == 2 && queue.waitingCount == 1 && queue.queuedRequests == 1)
        queue.giveBack(places[0])
        Self.expect([places[2]], &queue)
    }

    /// With two places and three in the queue five requests are there at once, and the sixth is one too many.
    @Test func theRequestBeyondTheLimitIsRefused() throws {
        var queue = Self.queue()
        for _ in 0..<5 {
            let ticket = try Self.enter(1, &queue)[0]
            Self.ask(&queue, ticket)
            _ = Self.begin(&queue)
        }
        let refused = queue.enter(promptTokens: 1)
        #expect(refused == nil)
    }

    @Test func promptsInTheQueueAreCounted() throws {
        var queue = Self.queue(parallel: 1, requests: 10, tokens: 100)
        let first = try Self.enter(1, &queue, promptTokens: 5000)[0]
        Self.ask(&queue, first)
        _ = Self.begin(&queue)
        _ = try Self.enter(1, &queue, promptTokens: 5000)
        // An empty queue takes any; now it is full.
        let refused = queue.enter(promptTokens: 1)
        #expect(refused == nil)
    }

    /// A request of many answers gets a place while there is one, and no second before others have their first.
    @Test func manyAnswersDoNotKeepOthersWaiting() throws {
        var queue = Self.queue()
        let tickets = try Self.enter(2, &queue)
        let (large, small) = (tickets[0], tickets[1])
        let many = (0..<10).map { _ in Self.ask(&queue, large) }
        let one = Self.ask(&queue, small)
        Self.expect([many[0], one], &queue)
    }

    @Test func whoHasNoRoomWaits() throws {
        var queue = Self.queue()
        let tickets = try Self.enter(2, &queue)
        let places = tickets.map { Self.ask(&queue, $0) }
        Self.expect([places[0]], &queue, hasRoom: false)
        Self.expect([], &queue, hasRoom: false)
        queue.giveBack(places[0])
        Self.expect([places[1]], &queue, hasRoom: false)
    }

    /// Random orders of everything: no more places than there are, nobody is lost, and in the end nothing is left.
    @Test func randomOrders() throws {
        var random = SplitMix64(state: 4)
        for _ in 0..<200 {
            var queue = Self.queue(parallel: 1 + Int(random.next() % 4), requests: Int(random.next() % 6))
            var waiting: [Int] = []
            var running: [Int] = []
            var tickets: [Int: Int] = [:]
            for _ in 0..<200 {
                switch random.next() % 4 {
                case 0, 1:
                    guard let ticket = queue.enter(promptTokens: Int(random.next() % 300)) else { continue }
                    let place = Self.ask(&queue, ticket)
                    tickets[place] = ticket
                    waiting.append(place)
                case 2 where !running.isEmpty:
                    let place = running.remove(at: Int(random.next() % UInt64(running.count)))
                    queue.giveBack(place)
                    queue.leave(tickets[place]!)
                case 3 where !waiting.isEmpty:
                    let place = waiting.remove(at: Int(random.next() % UInt64(waiting.count)))
                    queue.giveBack(place)
                    queue.leave(tickets[place]!)
                default: break
                }
                let begun = Self.begin(&queue)
                waiting.removeAll { begun.contains($0) }
                running += begun
                #expect(running.count <= queue.limits.parallel && queue.runningCount == running.count)
                #expect(queue.waitingCount == waiting.count)
                #expect(waiting.isEmpty || running.count == queue.limits.parallel)
            }
            for place in waiting + running {
                queue.giveBack(place)
                queue.leave(tickets[place]!)
            }
            #expect(queue.isEmpty && queue.runningCount == 0)
        }
    }
}
