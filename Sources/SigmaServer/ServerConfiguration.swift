import Sigma
import SigmaRequests
import SystemLibrary

/// How a server serves: docs/server.md.
package struct ServerConfiguration: Sendable {
    package var host = "127.0.0.1"
    /// 0: a free one.
    package var port = 8080
    /// What clients call the model; nil: the name in its file.
    package var alias: String?
    /// Keys, of which a request needs one; empty: it needs none.
    package var keys: [String] = []
    /// Origins whose pages may send requests, beside the server's own.
    package var origins: [String] = []
    package var reasoningField = ReasoningField.reasoningContent
    package var kvType = KVType.f16
    package var drafts = DraftMode.auto
    /// Answers that are made side by side, where memory has room for them.
    package var parallel = 16
    /// Requests that may wait, and tokens of their prompts.
    package var queuedRequests = 64
    package var queuedTokens = 1 << 20
    /// Seconds in which a server that shuts down still answers new requests, while /readyz already says 503.
    package var leavingSeconds = 0.0
    /// Seconds that running requests have when the server shuts down.
    package var drainSeconds = 30.0
    /// Seconds after which connections that have not closed by then are cut off.
    package var closeSeconds = 2.0
    package var connections = 1024
    /// Seconds in which a request's head and its body must have come, and that a connection may be idle.
    package var headSeconds = 10.0
    package var bodySeconds = 60.0
    package var idleSeconds = 75.0
    /// Seconds that a client may take nothing of its answer.
    package var unreadSeconds = 60.0
    /// Seconds without progress of the engine after which the server is not ready.
    package var stallSeconds = 120.0
    /// Seconds between the comments that keep a silent stream open.
    package var keepAliveSeconds = 5.0
    /// Whether prompts and answers are logged.
    package var logsText = false

    package init() {}

    /// Whether only this machine can connect.
    package var isLoopback: Bool { Self.isLoopback(host) }

    /// Whether a host is this machine itself: by a name that nobody can have lead elsewhere, or as an address. Names like 127.example.org are others'.
    static func isLoopback(_ host: String) -> Bool {
        if ["localhost", "::1", "[::1]"].contains(host) { return true }
        var address = in_addr()
        return inet_pton(AF_INET, host, &address) == 1 && UInt32(bigEndian: address.s_addr) >> 24 == 127
    }
}
