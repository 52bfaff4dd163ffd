import Foundation
import SampleFiles
import Sigma
import SigmaConversion
import SigmaRequests
import SigmaServer
import Testing

/// A server on a free port of this machine, with the trained checkpoint of Models/demo.
final class LiveServer: Sendable {
    static let model = Result { () -> ModelFile in
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let output = FileManager.default.temporaryDirectory.path + "/sigma-server-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: output) }
        try Converter.convert(
            Converter.Options(
                input: root.path + "/Models/demo/checkpoint", output: output, type: .q8_0, overrides: try Overrides()))
        return try ModelFile(path: output)
    }

    static func makeEngine(threads: Int = 2, prefixCacheBytes: Int? = nil) throws -> Engine {
        let model = try model.get()
        return try Engine(
            model: model, backend: try CPUBackend(model: model, threadCount: threads),
            prefixCacheBytes: prefixCacheBytes)
    }

    let engine: Engine
    let port: Int
    private let server: Server

    /// Runs `body` beside a server, and shuts that down.
    static func with<Value>(
        _ change: (inout ServerConfiguration) -> Void = { _ in }, engine: Engine? = nil,
        _ body: (LiveServer) async throws -> Value
    ) async throws -> Value {
        let engine = try engine ?? makeEngine()
        var configuration = ServerConfiguration()
        configuration.port = 0
        configuration.alias = "demo"
        // Beside hundreds of other tests everything takes long.
        configuration.drainSeconds = 600
        change(&configuration)
        let log = ErrorLog()
        let server = Server(configuration, logger: log.logger())
        let (places, ready) = AsyncStream<Server.Place>.makeStream()
        let running = Task {
            defer { ready.finish() }
            try await server.run(load: { engine }, isReady: { ready.yield($0) })
        }
        guard let place = await places.first(where: { _ in true }) else {
            try await running.value
            throw CancellationError()
        }
        let result: Result<Value, any Error>
        do {
            result = .success(try await body(LiveServer(engine, place.port, server)))
        } catch { result = .failure(error) }
        server.shutDown()
        try await running.value
        // A client's faults are no errors of the server, nor is its end.
        #expect(log.messages.isEmpty)
        return try result.get()
    }

    private init(_ engine: Engine, _ port: Int, _ server: Server) {
        self.engine = engine
        self.port = port
        self.server = server
    }

    func shutDown() { server.shutDown() }

    // MARK: - Requests

    func get(_ path: String, headers: [String: String] = [:]) async throws -> HTTPReply {
        try await send("GET", path, headers: headers, body: nil)
    }

    func post(_ path: String, _ body: String, headers: [String: String] = [:]) async throws -> HTTPReply {
        try await send("POST", path, headers: ["content-type": "application/json"].merging(headers) { $1 }, body: body)
    }

    func send(_ method: String, _ path: String, headers: [String: String], body: String?) async throws -> HTTPReply {
        let port = port
        return try await onThread {
            let connection = try RawConnection(port: port)
            try connection.write(RawConnection.request(method, path, headers: headers, body: body))
            return try HTTPReply(connection.readToEnd())
        }
    }

    /// The whole text of an answer to a chat.
    func chat(_ members: String, _ question: String = "What is 347 + 586?") async throws -> JSONValue {
        let reply = try await post("/v1/chat/completions", Self.body(members, question))
        #expect(reply.status == 200, "\(reply.text)")
        return try reply.json()
    }

    static func body(_ members: String, _ question: String = "What is 347 + 586?") -> String {
        let more = members.isEmpty ? "" : "," + members
        return #"{"messages":[{"role":"user","content":"\#(question)"}]\#(more)}"#
    }
}

/// Runs blocking work on a thread of its own: tests of many connections must not use up the pool.
func onThread<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        let thread = Thread { continuation.resume(with: Result { try work() }) }
        thread.stackSize = 1 << 20
        thread.start()
    }
}
