import ArgumentParser
import Logging
import Sigma
import SigmaCommand
import SigmaRequests
import SigmaServer

extension ReasoningField: ExpressibleByArgument {}
extension Logger.Level: @retroactive ExpressibleByArgument {}

struct ServeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sigma-serve",
        abstract: "Serves a Sigma model over HTTP: OpenAI's and Anthropic's protocols, and a page to chat with.",
        discussion: """
            It prints "listening on http://HOST:PORT" when it can answer. Logs go to standard error. Ctrl-C and SIGTERM end it after \
            the running requests; a second one ends it at once.

            Only this machine can connect, unless --host says otherwise; then a key is needed. There is no TLS: put a proxy in front, as \
            docs/server.md describes.

            EXAMPLES:
              sigma-serve
              sigma-serve --model sigma.gguf --memory 6GiB --port 8081 --alias sigma
              sigma-serve --host 0.0.0.0 --api-key-file key.txt
              curl http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' \
            -d '{"messages":[{"role":"user","content":"What is 347 + 586?"}]}'

            ENVIRONMENT:
              SIGMA_MODEL     the model file, if --model does not name one
              SIGMA_API_KEY   the key, if no option gives one

            EXIT CODES:
              0    shut down
              64   wrong usage
              65   a damaged or wrong file
              66   no such file
              69   the port or something else is not available
              74   an I/O error
            """,
        version: sigmaVersion)

    @OptionGroup(title: "Server") var server: ServerArguments
    @OptionGroup(title: "Engine") var engine: EngineArguments

    mutating func run() throws {
        try engine.compute.check()
        let configuration = try server.configuration(kvType: engine.compute.kvType)
        var logger = Logger(label: "sigma-serve", factory: { StreamLogHandler.standardError(label: $0) })
        logger.logLevel = server.logLevel
        let load = try engine.loader(prefixCache: server.prefixCache)
        let server = Server(configuration, logger: logger)
        Interrupt.install(secondEndsProcess: true)
        Interrupt.onRequest { server.shutDown() }
        try waitForTask {
            try await server.run {
                try await onThread(load)
            } isReady: { place in
                try StandardOutput.write("listening on \(place.url)\n")
                try StandardOutput.flush()
            }
        }
    }
}

/// Runs work that waits on a thread of its own.
private func onThread<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        do {
            try NativeThread { continuation.resume(with: Result { try work() }) }.detach()
        } catch { continuation.resume(throwing: error) }
    }
}
