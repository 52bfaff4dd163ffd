import HTTPTypes
import Hummingbird
import Sigma
import SigmaRequests

/// Why a request gets no answer: an error, and headers.
struct Refusal: Error {
    var error: RequestError
    var headers: HTTPFields = [:]

    init(_ error: RequestError, headers: HTTPFields = [:]) {
        self.error = error
        self.headers = headers
    }

    init(status: Int, _ message: String, code: String? = nil, param: String? = nil) {
        self.init(RequestError(status: status, message, code: code, param: param))
    }

    static func busy(retryAfter seconds: Int) -> Refusal {
        Refusal(
            RequestError(status: 429, "too many requests are waiting; try again in \(seconds) s", code: "queue_full"),
            headers: [.retryAfter: String(seconds)])
    }

    static func method(allowed: String) -> Refusal {
        Refusal(
            RequestError(status: 405, "this path answers \(allowed) only", code: "method_not_allowed"),
            headers: [.allow: allowed])
    }

    static let loading = Refusal(
        RequestError(status: 503, "the model is loading", code: "loading"), headers: [.retryAfter: "2"])
    static let draining = Refusal(
        RequestError(status: 503, "the server is shutting down", code: "draining"),
        headers: [.connection: "close", .retryAfter: "2"])

    /// What any error looks like from outside.
    init(describing error: any Error) {
        switch error {
        case let refusal as Refusal: self = refusal
        case let error as RequestError: self.init(error)
        case let error as SigmaError: self.init(RequestError(error))
        case is CancellationError: self.init(status: 503, "the request was cancelled", code: "cancelled")
        case let error as HTTPError where error.status.code < 500:
            self.init(status: error.status.code, error.body ?? error.status.reasonPhrase.lowercased())
        default: self.init(status: 500, "the server failed")
        }
    }

    /// In the form of the protocol that the path belongs to.
    func response(to path: String) -> Response {
        let isAnthropic = path == "/v1/messages" || path.hasPrefix("/v1/messages/")
        return Response.json(
            isAnthropic ? error.messagesJSON : error.json, status: .init(code: error.status), headers: headers)
    }
}

extension Response {
    /// A JSON text.
    static func json(_ text: String, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response {
        var headers = headers
        headers[.contentType] = "application/json; charset=utf-8"
        return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
    }
}
