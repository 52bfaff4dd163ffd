import ArgumentParser
import Logging
import Sigma
import SigmaCommand
import SigmaRequests
import SigmaServer
import SystemLibrary

/// Who may connect, and how requests are served.
struct ServerArguments: ParsableArguments {
    @Option(help: ArgumentHelp("Address to listen on.", valueName: "address"))
    var host = "127.0.0.1"

    @Option(parsing: .unconditional, help: ArgumentHelp("Port to listen on; 0 takes a free one.", valueName: "n"))
    var port = 8080

    @Option(help: ArgumentHelp("What clients call the model (default: the name in its file).", valueName: "name"))
    var alias: String?

    @Option(
        help: ArgumentHelp(
            "A key that requests must have. Other users can see it in the list of processes.", valueName: "key"))
    var apiKey: [String] = []

    @Option(help: ArgumentHelp("A file with a key on each line.", valueName: "file"))
    var apiKeyFile: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Answers to generate side by side, if memory has room.", valueName: "n")
    )
    var parallel = 16

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Requests that may wait; more are refused with 429.", valueName: "n"))
    var queue = 64

    @Option(
        help: ArgumentHelp(
            "Field for the thinking: reasoning_content, reasoning, or none (thinking stays in the text).",
            valueName: "name"))
    var reasoningField: ReasoningField = .reasoningContent

    @Option(help: ArgumentHelp("An origin whose pages may send requests; repeatable.", valueName: "url"))
    var corsOrigin: [String] = []

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Seconds to go on answering new requests after a signal to shut down, while /readyz already says 503.",
            valueName: "s"))
    var drainDelay = 0.0

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Seconds to let running requests finish when the server shuts down.", valueName: "s"))
    var drainTimeout = 30.0

    @Option(
        help: ArgumentHelp(
            "Memory for prefixes of earlier requests, such as 1GiB (default: a part of the budget).",
            valueName: "size"))
    var prefixCache: ByteSize?

    @Option(
        help: ArgumentHelp(
            "Guess the next tokens from the text so far and verify several in one step: auto (if measured costs say that it pays), on or off. Changes only the speed.",
            valueName: "mode"))
    var drafts: DraftMode = .auto

    @Option(help: ArgumentHelp("The least severe level to log.", valueName: "level"))
    var logLevel: Logger.Level = .info

    /// - Throws: `SigmaError`: `.usage` for what makes no sense, `.noInput` for a key file that is not there.
    func configuration(kvType: KVType) throws -> ServerConfiguration {
        guard (0...65535).contains(port) else { throw usageError("--port must be from 0 to 65535, and is \(port)") }
        guard (1...1024).contains(parallel) else {
            throw usageError("--parallel must be from 1 to 1024, and is \(parallel)")
        }
        guard (0...1_000_000).contains(queue) else {
            throw usageError("--queue must be from 0 to 1000000, and is \(queue)")
        }
        guard (0...86400).contains(drainTimeout) else {
            throw usageError("--drain-timeout must be from 0 to 86400, and is \(drainTimeout)")
        }
        guard (0...86400).contains(drainDelay) else {
            throw usageError("--drain-delay must be from 0 to 86400, and is \(drainDelay)")
        }
        var configuration = ServerConfiguration()
        configuration.host = host
        configuration.port = port
        configuration.alias = alias
        configuration.keys = try keys()
        configuration.origins = corsOrigin
        configuration.reasoningField = reasoningField
        configuration.kvType = kvType
        configuration.drafts = drafts
        configuration.parallel = parallel
        configuration.queuedRequests = queue
        configuration.leavingSeconds = drainDelay
        configuration.drainSeconds = drainTimeout
        guard configuration.isLoopback || !configuration.keys.isEmpty else {
            throw usageError(
                "--host \(host) can be reached from other machines, and there is no key",
                remedy: "Give one with --api-key-file or SIGMA_API_KEY.")
        }
        return configuration
    }

    private func keys() throws -> [String] {
        var keys = apiKey
        if let apiKeyFile {
            let bytes = try InputFile.bytes(of: apiKeyFile, limit: .init("a file of keys can have") { 1 << 16 })
            keys += String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline)
                .map { String($0.drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed()) }
                .filter { !$0.isEmpty }
        }
        if keys.isEmpty, let key = getenv("SIGMA_API_KEY") { keys = [String(cString: key)] }
        guard keys.allSatisfy({ !$0.isEmpty }), apiKeyFile == nil || !keys.isEmpty else {
            throw usageError("an API key is empty")
        }
        return keys
    }
}
