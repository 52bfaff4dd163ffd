import HTTPTypes
import Hummingbird

/// Lets pages of the allowed origins read whatever is answered, errors too.
struct CrossOrigin: RouterMiddleware {
    typealias Context = ServerContext

    let origins: [String]

    func handle(
        _ request: Request, context: ServerContext, next: (Request, ServerContext) async throws -> Response
    ) async throws -> Response {
        var response = try await next(request, context)
        guard !origins.isEmpty else { return response }
        response.headers[.vary] = "Origin"
        if let origin = request.headers[.origin], origins.contains(origin) {
            response.headers[.accessControlAllowOrigin] = origin
            response.headers[.accessControlExposeHeaders] = "x-request-id, retry-after"
        }
        return response
    }
}
