import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import ServiceLifecycle
import Sigma
import SigmaRequests
import Synchronization

/// An engine behind OpenAI's protocol over HTTP: docs/server.md.
package final class Server: Sendable {
    private let configuration: ServerConfiguration
    private let logger: Logger
    private let model = ServedModel()
    private let metrics = ServerMetrics()
    private let tasks = RunningTasks()
    private let connections = OpenConnections()
    private let shutdown = AsyncStream<Void>.makeStream()
    private let shutdownCalls = Atomic(0)

    package init(_ configuration: ServerConfiguration, logger: Logger) {
        self.configuration = configuration
        self.logger = logger
    }

    /// Where a server listens.
    package struct Place: Sendable {
        package var host: String
        package var port: Int

        package var url: String { "http://\(host.contains(":") ? "[\(host)]" : host):\(port)" }
    }

    /// Shuts down: new requests are refused, running ones have their time, then `run` returns. Where new requests are answered for a while first,
    /// a second call ends that. From any thread.
    package func shutDown() {
        shutdownCalls.add(1, ordering: .relaxed)
        shutdown.continuation.finish()
    }

    /// Serves until `shutDown`. While the model loads, the server says so.
    ///
    /// - Parameters:
    ///   - load: gives the engine.
    ///   - isReady: called once, when it can answer.
    /// - Throws: what `load` throws; `SigmaError(.unavailable)` if the port cannot be had.
    package func run(
        load: @escaping @Sendable () async throws -> Engine, isReady: @escaping @Sendable (Place) throws -> Void
    ) async throws {
        let (places, listening) = AsyncStream<Int>.makeStream()
        let application = application { listening.yield($0) }
        let services = ServiceGroup(configuration: .init(services: [application], logger: logger))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { [self] in
                do { try await services.run() } catch { throw unavailable(error) }
            }
            group.addTask { [self] in
                // A port that cannot be had is said before a model is loaded.
                guard let port = await places.first(where: { _ in true }) else { return }
                model.loaded(ModelHost(try await load(), configuration))
                try isReady(Place(host: configuration.host, port: port))
                try await Task.sleep(for: .seconds(1 << 40))
            }
            group.addTask { [self] in
                for await _ in shutdown.stream {}
                if Task.isCancelled { return }
                try await leave()
                await drain()
                await services.triggerGracefulShutdown()
                // Connections close by themselves; those that do not are cut off. Then the services end.
                try await Task.sleep(for: .seconds(configuration.closeSeconds))
                connections.close()
                try await Task.sleep(for: .seconds(1 << 40))
            }
            do {
                // The first to end is an error, or the end of the services.
                _ = try await group.next()
                group.cancelAll()
            } catch {
                group.cancelAll()
                throw error
            }
        }
    }

    private func application(isListening: @escaping @Sendable (_ port: Int) -> Void) -> some ApplicationProtocol {
        let router = Router(context: ServerContext.self, options: .autoGenerateHeadEndpoints)
        router.add(middleware: CrossOrigin(origins: configuration.origins))
        router.add(middleware: RequestLog(metrics: metrics))
        router.add(middleware: RequestGuard(configuration))
        Routes(configuration: configuration, model: model, metrics: metrics, tasks: tasks).add(to: router)
        let limits = ConnectionGuard.Limits(configuration)
        let connections = connections
        return Application(
            router: router,
            server: .http1(
                configuration: .init(
                    additionalChannelHandlers: [ConnectionGuard(limits, connections)],
                    httpDecoderConfiguration: .init(
                        maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 32 << 10, maxHeaderFieldCount: 100))),
            configuration: .init(
                address: .hostname(configuration.host, port: configuration.port), serverName: "sigma",
                availableConnectionsDelegate: MaximumAvailableConnections(configuration.connections)),
            onServerRunning: { isListening($0.localAddress?.port ?? 0) }, logger: logger)
    }

    private func unavailable(_ error: any Error) -> any Error {
        let place = "cannot listen on \(configuration.host) port \(configuration.port)"
        switch error {
        case let error as IOError:
            return SigmaError(
                .unavailable, "\(place): \(error.description)", remedy: "Choose another port, or 0 for a free one.")
        case is SocketAddressError, is SocketAddressError.UnknownHost:
            return SigmaError(
                .unavailable, "\(place): this machine does not know the host",
                remedy: "Name an address of this machine, for example 127.0.0.1.")
        default: return error
        }
    }

    /// New requests are answered, while /readyz already says no.
    private func leave() async throws {
        model.leave()
        let deadline = ContinuousClock.now + .seconds(configuration.leavingSeconds)
        while shutdownCalls.load(ordering: .relaxed) < 2, ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    /// Running requests have their time; what is left then is cancelled, and its clients are told.
    private func drain() async {
        model.drain()
        logger.info("draining")
        func wait(_ seconds: Double) async {
            let deadline = ContinuousClock.now + .seconds(seconds)
            while !tasks.isEmpty, ContinuousClock.now < deadline { try? await Task.sleep(for: .milliseconds(20)) }
        }
        await wait(configuration.drainSeconds)
        tasks.cancelAll()
        await wait(2)
    }
}
