import HTTPTypes
import Hummingbird
import Sigma
import SigmaRequests

/// Refuses requests that may not be here: a strange host, a page of another origin, a missing key, a body that is not JSON.
struct RequestGuard: RouterMiddleware {
    typealias Context = ServerContext

    private let configuration: ServerConfiguration
    private let keys: [[UInt8]]
    /// What anyone may ask: whether the server is there, and the page, in which a key can be entered.
    private static let openPaths: Set<String> = ["/", "/health", "/readyz"]

    init(_ configuration: ServerConfiguration) {
        self.configuration = configuration
        keys = configuration.keys.map { Array($0.utf8) }
    }

    func handle(
        _ request: Request, context: ServerContext, next: (Request, ServerContext) async throws -> Response
    ) async throws -> Response {
        let path = request.uri.path
        try checkHost(request)
        let isOthers = try isOfAllowedPage(request)
        if isOthers, request.method == .options {
            return Response(status: .noContent, headers: Self.preflight(request))
        }
        if !Self.openPaths.contains(path) { try checkKey(request) }
        if request.method == .post { try checkContentType(request) }
        return try await next(request, context)
    }

    // MARK: - Host

    /// A page that has its own name lead to this machine must not reach a server that only this machine may use (DNS rebinding).
    private func checkHost(_ request: Request) throws {
        guard configuration.isLoopback else { return }
        let host = Self.name(inAuthority: request.head.authority ?? "")
        guard host == configuration.host || ServerConfiguration.isLoopback(host) else {
            throw Refusal(
                status: 403, "the host '\(SigmaError.printable(host))' is not this server", code: "host_not_allowed")
        }
    }

    /// The host's name without its port.
    static func name(inAuthority authority: String) -> String {
        if authority.hasPrefix("["), let end = authority.firstIndex(of: "]") { return String(authority[...end]) }
        return String(authority.prefix { $0 != ":" }).lowercased()
    }

    // MARK: - Origin

    /// Whether the request comes from a page of another origin, which may send it.
    private func isOfAllowedPage(_ request: Request) throws -> Bool {
        guard let origin = request.headers[.origin] else { return false }
        if configuration.origins.contains(origin) { return true }
        guard origin == "http://\(request.head.authority ?? "")" else {
            throw Refusal(
                status: 403, "pages of '\(SigmaError.printable(origin))' may not use this server",
                code: "origin_not_allowed")
        }
        return false
    }

    /// Clients have headers of their own, which do no harm: those that are asked for are allowed.
    private static func preflight(_ request: Request) -> HTTPFields {
        [
            .accessControlAllowMethods: "GET, POST",
            .accessControlAllowHeaders: request.headers[.accessControlRequestHeaders]
                ?? "authorization, content-type, x-api-key, x-request-id, x-session-id",
            .accessControlMaxAge: "600",
        ]
    }

    // MARK: - Key

    private func checkKey(_ request: Request) throws {
        guard !keys.isEmpty else { return }
        let bearer = request.headers[.authorization].flatMap { value in
            value.lowercased().hasPrefix("bearer ") ? String(value.dropFirst(7)) : nil
        }
        // Anthropic's clients have a header of their own.
        let given = Array((bearer ?? request.headers[.apiKey] ?? "").utf8)
        // All are compared, so that the time says nothing.
        var isKnown = false
        for key in keys where Self.areEqual(key, given) { isKnown = true }
        guard isKnown else {
            throw Refusal(
                RequestError(status: 401, "a valid API key is needed", code: "invalid_api_key"),
                headers: [.wwwAuthenticate: "Bearer"])
        }
    }

    /// In a time that depends on the given bytes' number alone.
    static func areEqual(_ key: [UInt8], _ given: [UInt8]) -> Bool {
        guard !key.isEmpty else { return false }
        var difference: UInt8 = key.count == given.count ? 0 : 1
        for index in given.indices { difference |= given[index] ^ key[index % key.count] }
        return difference == 0
    }

    // MARK: - Content type

    /// A form of another page can send anything but JSON.
    private func checkContentType(_ request: Request) throws {
        let type = request.headers[.contentType]?.lowercased() ?? ""
        guard type.prefix(while: { $0 != ";" && $0 != " " }) == "application/json" else {
            throw Refusal(
                status: 415, "the content type must be application/json, and is '\(SigmaError.printable(type))'",
                code: "unsupported_media_type")
        }
    }
}

extension HTTPField.Name {
    static let apiKey = HTTPField.Name("x-api-key")!
    static let requestID = HTTPField.Name("x-request-id")!
    static let accelBuffering = HTTPField.Name("x-accel-buffering")!
}
