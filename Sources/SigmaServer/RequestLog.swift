import HTTPTypes
import Hummingbird
import Logging
import SigmaRequests

/// Gives each request an id, makes every error an answer, and logs and counts each request when its answer has been sent.
struct RequestLog: RouterMiddleware {
    typealias Context = ServerContext

    let metrics: ServerMetrics

    func handle(
        _ request: Request, context: ServerContext, next: (Request, ServerContext) async throws -> Response
    ) async throws -> Response {
        let id = Self.given(request) ?? RequestID.make("req")
        let begin = ContinuousClock.now
        var response: Response
        var failure: Refusal?
        do {
            response = try await next(request, context)
        } catch {
            failure = Refusal(describing: error)
            response = failure!.response(to: request.uri.path)
        }
        response.headers[.requestID] = id
        let (status, inner) = (response.status.code, response.body)
        let (logger, method, path) = (context.logger, request.method.rawValue, request.uri.path)
        let (endpoint, message) = (context.endpointPath ?? "none", failure?.error.message)
        response.body = ResponseBody(contentLength: inner.contentLength) { [metrics] writer in
            func end(_ outcome: String?) {
                metrics.request(path: endpoint, status: status)
                var values: Logger.Metadata = [
                    "id": "\(id)", "method": "\(method)", "path": "\(path)", "status": "\(status)",
                    "ms": "\((ContinuousClock.now - begin) / .milliseconds(1))",
                ]
                if let outcome = outcome ?? context.observation.failure { values["error"] = "\(outcome)" }
                if let observer = context.observation.current {
                    let summary = observer.summary
                    metrics.requestSeconds.record(observer.seconds)
                    values["prompt_tokens"] = "\(summary.promptTokens)"
                    values["cached_tokens"] = "\(summary.cachedTokens)"
                    values["tokens"] = "\(summary.generatedTokens)"
                    if let first = summary.firstToken { values["first_token_ms"] = "\(Int(first * 1000))" }
                    if let finish = summary.finish { values["finish"] = "\(finish)" }
                }
                logger.info("request", metadata: values)
            }
            do {
                try await inner.write(writer)
                end(message)
            } catch {
                end(message ?? "the client has gone")
                throw error
            }
        }
        return response
    }

    /// The id that the client, or a proxy before us, gave.
    private static func given(_ request: Request) -> String? {
        guard let id = request.headers[.requestID], (1...128).contains(id.utf8.count),
            id.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
        else { return nil }
        return id
    }
}
