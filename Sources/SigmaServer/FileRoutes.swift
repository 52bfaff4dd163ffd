import CServerFiles
import HTTPTypes
import Hummingbird
import Sigma

/// What the server gives out as it is: the page at `/` and `/openapi.json`.
struct FileRoutes: Sendable {
    private let page: String
    private let description: ByteBuffer

    init() {
        page = String(decoding: Self.bytes(of: sigma_page()), as: UTF8.self)
        description = ByteBuffer(bytes: Self.bytes(of: sigma_openapi()))
    }

    private static func bytes(of file: sigma_server_file) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: file.bytes, count: file.count)
    }

    /// The page may run and show only what carries the nonce of this response, and may talk only to this server.
    func index() -> Response {
        let nonce = RequestID.make("n")
        let policy = [
            "default-src 'none'", "script-src 'nonce-\(nonce)'", "style-src 'nonce-\(nonce)'", "connect-src 'self'",
            "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
            "require-trusted-types-for 'script'", "trusted-types 'none'",
        ]
        return Response(
            status: .ok,
            headers: [
                .contentType: "text/html; charset=utf-8", .contentSecurityPolicy: policy.joined(separator: "; "),
                .xContentTypeOptions: "nosniff", .referrerPolicy: "no-referrer", .cacheControl: "no-store",
            ],
            body: ResponseBody(
                byteBuffer: ByteBuffer(
                    string: page.replacing(#"nonce="NONCE""#, with: #"nonce="\#(nonce)""#))))
    }

    func openAPI() -> Response {
        Response(
            status: .ok, headers: [.contentType: "application/json; charset=utf-8"],
            body: ResponseBody(byteBuffer: description))
    }
}

extension HTTPField.Name {
    fileprivate static let referrerPolicy = HTTPField.Name("referrer-policy")!
}
