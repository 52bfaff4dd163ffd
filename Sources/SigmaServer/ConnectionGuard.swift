import HTTPTypes
import NIOCore
import NIOHTTPTypes
import Synchronization

/// Stands in a connection's pipeline: closes it when a request does not come in time, and tells who works for it when the client has gone.
final class ConnectionGuard: ChannelDuplexHandler, RemovableChannelHandler, Sendable {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    struct Limits: Sendable {
        /// Of a request's head, from the connection's begin; of its body; between requests; in which a client takes nothing of its answer.
        var head: TimeAmount
        var body: TimeAmount
        var idle: TimeAmount
        var unread: TimeAmount

        init(_ configuration: ServerConfiguration) {
            func amount(_ seconds: Double) -> TimeAmount { .milliseconds(Int64(seconds * 1000)) }
            head = amount(configuration.headSeconds)
            body = amount(configuration.bodySeconds)
            idle = amount(configuration.idleSeconds)
            unread = amount(configuration.unreadSeconds)
        }
    }

    private struct State {
        var isGone = false
        var watchers: [Int: @Sendable () -> Void] = [:]
        var lastWatcher = 0
    }

    private let limits: Limits
    private let connections: OpenConnections
    private let state = Mutex(State())
    private let deadline = Mutex<Scheduled<Void>?>(nil)
    /// Requests whose response has not ended, and whether one is being read: with pipelining the next begins before the last has its answer.
    private let exchange = Mutex<(open: Int, isReading: Bool)>((0, false))
    /// While the socket takes no more.
    private let unreadDeadline = Mutex<Scheduled<Void>?>(nil)

    init(_ limits: Limits, _ connections: OpenConnections) {
        self.limits = limits
        self.connections = connections
    }

    // MARK: - Who works for the connection

    /// Runs `body`; calls `onGone`, from any thread, if the client goes away meanwhile or has gone.
    func watching<Value>(
        onGone: @escaping @Sendable () -> Void, _ body: () async throws -> Value
    ) async rethrows -> Value {
        let number = state.withLock { state -> Int? in
            guard !state.isGone else { return nil }
            state.lastWatcher += 1
            state.watchers[state.lastWatcher] = onGone
            return state.lastWatcher
        }
        if number == nil { onGone() }
        defer { if let number { state.withLock { $0.watchers[number] = nil } } }
        return try await body()
    }

    private func clientHasGone() {
        let watchers = state.withLock { state in
            state.isGone = true
            defer { state.watchers = [:] }
            return Array(state.watchers.values)
        }
        for watcher in watchers { watcher() }
    }

    // MARK: - Time limits

    private func allow(_ time: TimeAmount?, _ context: ChannelHandlerContext) { close(after: time, deadline, context) }

    /// A request may take its time to come, and so may the next one; an answer may take as long as it does.
    private func follow(_ context: ChannelHandlerContext, _ change: (inout (open: Int, isReading: Bool)) -> Void) {
        let now = exchange.withLock { exchange in
            change(&exchange)
            return exchange
        }
        allow(now.isReading ? limits.body : now.open > 0 ? nil : limits.idle, context)
    }

    /// In the place of what the deadline was; nil: never.
    private func close(
        after time: TimeAmount?, _ deadline: borrowing Mutex<Scheduled<Void>?>, _ context: ChannelHandlerContext
    ) {
        let channel = context.channel
        let next = time.map { context.eventLoop.scheduleTask(in: $0) { channel.close(promise: nil) } }
        let last = deadline.withLock { deadline in
            defer { deadline = next }
            return deadline
        }
        last?.cancel()
    }

    // MARK: - Events

    func handlerAdded(context: ChannelHandlerContext) {
        connections.add(context.channel)
        if context.channel.isActive { allow(limits.head, context) }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        connections.remove(context.channel)
        allow(nil, context)
        close(after: nil, unreadDeadline, context)
        clientHasGone()
    }

    func channelActive(context: ChannelHandlerContext) {
        allow(limits.head, context)
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        allow(nil, context)
        close(after: nil, unreadDeadline, context)
        clientHasGone()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let request):
            follow(context) { $0 = ($0.open + 1, true) }
            if request.headerFields[.expect]?.lowercased() == "100-continue" {
                context.writeAndFlush(wrapOutboundOut(.head(HTTPResponse(status: .continue))), promise: nil)
            }
        case .body: break
        case .end: follow(context) { $0.isReading = false }
        }
        context.fireChannelRead(data)
    }

    /// A client that does not read keeps its place and its keys and values: not for ever.
    func channelWritabilityChanged(context: ChannelHandlerContext) {
        close(after: context.channel.isWritable ? nil : limits.unread, unreadDeadline, context)
        context.fireChannelWritabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // The client sends no more: like other servers, take it for gone.
        if case ChannelEvent.inputClosed = event { clientHasGone() }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        clientHasGone()
        context.fireErrorCaught(error)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) { follow(context) { $0.open -= 1 } }
        context.write(data, promise: promise)
    }
}

/// A server's connections, for its end.
final class OpenConnections: Sendable {
    private let channels = Mutex<[ObjectIdentifier: any Channel]>([:])

    func add(_ channel: any Channel) { channels.withLock { $0[ObjectIdentifier(channel)] = channel } }
    func remove(_ channel: any Channel) { channels.withLock { $0[ObjectIdentifier(channel)] = nil } }

    /// Cuts off all that are open.
    func close() {
        for channel in channels.withLock({ Array($0.values) }) { channel.close(promise: nil) }
    }
}
