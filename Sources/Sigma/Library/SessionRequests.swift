/// Who has a session, as a value: every transition says what is to be done. `Session` does it.
///
/// One piece of work at a time has the session: an answer, the history computed ahead, or a change by its owner. Work that nobody wants any more
/// still has it until its step ends; one request may wait for that.
package struct SessionRequests: Equatable, Sendable {
    package enum State: Equatable, Sendable {
        case idle
        /// The request's answer is being made. Once stopped, what there is of it stays.
        case answering(Request)
        /// The history is computed ahead: any request takes its place.
        case prewarming
        /// Work that nobody wants ends with its step; a request may wait for that.
        case ending(next: Request?)
        /// The conversation is changed, saved or restored.
        case changing
    }

    /// Requests have numbers, so that a stream that ends late cannot be taken for another.
    package struct Request: Equatable, Sendable {
        package var number: Int
        package var isStopped = false
    }

    package enum Action: Equatable, Sendable {
        case nothing
        /// Refuse: the session is busy.
        case refuse
        /// Begin the request.
        case begin(Int)
        /// Cancel the work that has the session.
        case cancel
    }

    package private(set) var state = State.idle
    private var lastNumber = 0

    package init() {}

    package var isIdle: Bool { state == .idle }

    // MARK: - Requests

    /// A request comes.
    /// - Returns: its number, and what to do. A request that neither begins nor is refused waits for the end of what is cancelled.
    package mutating func request() -> (number: Int, action: Action) {
        switch state {
        case .idle:
            lastNumber += 1
            state = .answering(Request(number: lastNumber))
            return (lastNumber, .begin(lastNumber))
        case .prewarming:
            lastNumber += 1
            state = .ending(next: Request(number: lastNumber))
            return (lastNumber, .cancel)
        case .ending(next: nil):
            lastNumber += 1
            state = .ending(next: Request(number: lastNumber))
            return (lastNumber, .nothing)
        case .answering, .ending, .changing: return (0, .refuse)
        }
    }

    /// Nobody reads the request's answer any more.
    package mutating func abandon(_ number: Int) -> Action {
        switch state {
        case .answering(let request) where request.number == number:
            state = .ending(next: nil)
            return .cancel
        case .ending(let next?) where next.number == number:
            state = .ending(next: nil)
            return .nothing
        default: return .nothing
        }
    }

    /// The owner stops the newest request: what there is of its answer stays.
    package mutating func stop() -> Action {
        switch state {
        case .answering(var request):
            request.isStopped = true
            state = .answering(request)
            return .cancel
        case .ending(var next?):
            next.isStopped = true
            state = .ending(next: next)
            return .nothing
        case .idle, .prewarming, .ending, .changing: return .nothing
        }
    }

    /// Whether the request that begins was stopped, or abandoned, before it could be cancelled.
    package func mustCancel(_ number: Int) -> Bool {
        if case .answering(let request) = state, request.number == number { return request.isStopped }
        return true
    }

    // MARK: - Ends

    /// The work that had the session has ended.
    /// - Returns: the request whose answer it was, if somebody still wants it; and the request that begins now.
    package mutating func end() -> (answered: Request?, action: Action) {
        switch state {
        case .answering(let request):
            state = .idle
            return (request, .nothing)
        case .ending(let next?):
            state = .answering(next)
            return (nil, .begin(next.number))
        case .prewarming, .ending, .changing:
            state = .idle
            return (nil, .nothing)
        case .idle: preconditionFailure("nothing had the session")
        }
    }

    // MARK: - Other work

    /// - Returns: false on a busy session.
    package mutating func beginPrewarming() -> Bool { take(.prewarming) }
    package mutating func beginChange() -> Bool { take(.changing) }

    private mutating func take(_ new: State) -> Bool {
        guard state == .idle else { return false }
        state = new
        return true
    }
}
