import HTTPTypes
import Hummingbird
import Sigma
import SigmaRequests

/// Every endpoint of a server.
struct Routes: Sendable {
    let configuration: ServerConfiguration
    let model: ServedModel
    let metrics: ServerMetrics
    let tasks: RunningTasks

    func add(to router: Router<ServerContext>) {
        get("/health", router) { _, _ in Response.json(#"{"status":"ok"}"#) }
        get("/readyz", router) { _, _ in try ready() }
        get("/metrics", router) { _, _ in
            Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: metrics.render(model.anyHost))))
        }
        let files = FileRoutes()
        get("/", router) { _, _ in files.index() }
        get("/openapi.json", router) { _, _ in files.openAPI() }
        let models = ModelRoutes(model: model)
        get("/v1/models", router) { _, _ in try models.list() }
        get("/v1/models/**", router) { _, context in
            try models.one(context.parameters.getCatchAll().joined(separator: "/"))
        }
        let tokens = TokenRoutes(model: model)
        for root in ["", "/v1"] {
            get("\(root)/tokenizer_info", router) { _, _ in try tokens.information() }
            post("\(root)/tokenize", router) { request, _ in try await tokens.tokenize(request) }
            post("\(root)/detokenize", router) { request, _ in try await tokens.detokenize(request) }
        }
        let answers = AnswerRoutes(configuration: configuration, model: model, metrics: metrics, tasks: tasks)
        post("/v1/chat/completions", router) { request, context in try await answers.chat(request, context) }
        post("/v1/completions", router) { request, context in try await answers.completion(request, context) }
        post("/v1/responses", router) { request, context in try await answers.responses(request, context) }
        post("/v1/messages", router) { request, context in try await answers.messages(request, context) }
        post("/v1/messages/count_tokens", router) { request, _ in try await answers.countTokens(request) }
    }

    private typealias Handler = @Sendable (Request, ServerContext) async throws -> Response

    /// A page. The router answers `HEAD`, too.
    private func get(_ path: String, _ router: Router<ServerContext>, _ handler: @escaping Handler) {
        router.get(RouterPath(path), use: handler)
        refuse([.post, .put, .patch, .delete], path, router, allowed: "GET, HEAD")
    }

    private func post(_ path: String, _ router: Router<ServerContext>, _ handler: @escaping Handler) {
        router.post(RouterPath(path), use: handler)
        refuse([.get, .head, .put, .patch, .delete], path, router, allowed: "POST")
    }

    /// Other methods are refused by name: a path that is there is not one that is not found.
    private func refuse(
        _ methods: [HTTPRequest.Method], _ path: String, _ router: Router<ServerContext>, allowed: String
    ) {
        let refusal = Refusal.method(allowed: allowed)
        for method in methods { router.on(RouterPath(path), method: method) { _, _ -> Response in throw refusal } }
    }

    /// Whether a new request would be answered.
    private func ready() throws -> Response {
        let host = try model.host()
        if model.isLeaving { throw Refusal.draining }
        let stalled = host.engine.gauge.stalledSeconds
        guard stalled < configuration.stallSeconds else {
            throw Refusal(status: 503, "the engine has made no progress for \(Int(stalled)) s", code: "stalled")
        }
        return Response.json(#"{"status":"ready"}"#)
    }
}
