/// Which answers run and which wait for a place, as a value: transitions say who begins. `Admission` does the waiting.
///
/// A request enters with a ticket and asks for a place for each of its answers. Places go to the request that has the fewest, and of these to the
/// one that has waited longest: so one request with a thousand prompts does not keep others waiting, and none waits for ever.
package struct AdmissionQueue: Sendable {
    package struct Limits: Sendable, Equatable {
        /// Answers that run side by side.
        package var parallel: Int
        /// Requests without a place yet, and their prompts' tokens.
        package var requests: Int
        package var tokens: Int

        package init(parallel: Int, requests: Int, tokens: Int) {
            self.parallel = parallel
            self.requests = requests
            self.tokens = tokens
        }
    }

    private struct Ticket {
        var promptTokens: Int
        var hasBegun = false
        var running = 0
    }

    private struct Waiting {
        var place: Int
        var ticket: Int
        var positions: Int
    }

    package let limits: Limits
    private var tickets: [Int: Ticket] = [:]
    /// In the order in which they came.
    private var waiting: [Waiting] = []
    /// The ticket of each place that is taken.
    private var places: [Int: Int] = [:]
    private var lastNumber = 0

    package init(_ limits: Limits) { self.limits = limits }

    package var runningCount: Int { places.count }
    package var waitingCount: Int { waiting.count }
    /// Requests that have no place yet.
    package var queuedRequests: Int { tickets.values.count { !$0.hasBegun } }
    package var queuedTokens: Int { tickets.values.reduce(0) { $0 + ($1.hasBegun ? 0 : $1.promptTokens) } }
    package var isEmpty: Bool { tickets.isEmpty }

    /// A number for a ticket or a place.
    package mutating func nextNumber() -> Int {
        lastNumber += 1
        return lastNumber
    }

    // MARK: - Requests

    /// A request comes.
    /// - Returns: its ticket; nil: the queue is full.
    package mutating func enter(promptTokens: Int) -> Int? {
        let mustWait = places.count + queuedRequests >= limits.parallel
        if mustWait {
            guard queuedRequests < limits.requests + max(0, limits.parallel - places.count) else { return nil }
            guard queuedRequests == 0 || queuedTokens + promptTokens <= limits.tokens else { return nil }
        }
        let number = nextNumber()
        tickets[number] = Ticket(promptTokens: promptTokens)
        return number
    }

    /// The request has ended. Its places must have been given back.
    package mutating func leave(_ ticket: Int) { tickets[ticket] = nil }

    // MARK: - Places

    /// An answer of the request wants a place.
    ///
    /// - Parameters:
    ///   - place: a new number.
    ///   - positions: that its sequence must have room for.
    package mutating func wait(for place: Int, _ ticket: Int, positions: Int) {
        waiting.append(Waiting(place: place, ticket: ticket, positions: positions))
    }

    /// An answer wants its place no more, or has ended.
    package mutating func giveBack(_ place: Int) {
        waiting.removeAll { $0.place == place }
        if let ticket = places.removeValue(forKey: place) { tickets[ticket]?.running -= 1 }
    }

    /// Gives places.
    /// - Parameter hasRoom: whether memory has room for a sequence of so many positions beside those that run.
    /// - Returns: who has a place now.
    package mutating func begin(hasRoom: (_ positions: Int) -> Bool) -> [Int] {
        var begun: [Int] = []
        while places.count < limits.parallel {
            let fewest = waiting.indices.min { running(waiting[$0]) < running(waiting[$1]) }
            guard let index = fewest, places.isEmpty || hasRoom(waiting[index].positions) else { break }
            let next = waiting.remove(at: index)
            places[next.place] = next.ticket
            tickets[next.ticket]?.hasBegun = true
            tickets[next.ticket]?.running += 1
            begun.append(next.place)
        }
        return begun
    }

    private func running(_ waiting: Waiting) -> Int { tickets[waiting.ticket]?.running ?? 0 }
}
