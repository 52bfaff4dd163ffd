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
        router.get("/health") { _, _ in Response.json(#"{"status":"ok"}"#) }
        router.get("/readyz") { _, _ in try ready() }
        router.get("/metrics") { _, _ in
            Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: metrics.render(model.anyHost))))
        }
        let files = FileRoutes()
        router.get("/") { _, _ in files.index() }
        router.get("/openapi.json") { _, _ in files.openAPI() }
        let models = ModelRoutes(model: model)
        router.get("/v1/models") { _, _ in try models.list() }
        router.get("/v1/models/**") { _, context in
            try models.one(context.parameters.getCatchAll().joined(separator: "/"))
        }
        let tokens = TokenRoutes(model: model)
        for root in ["", "/v1"] {
            router.get("\(root)/tokenizer_info") { _, _ in try tokens.information() }
            router.post("\(root)/tokenize") { request, _ in try await tokens.tokenize(request) }
            router.post("\(root)/detokenize") { request, _ in try await tokens.detokenize(request) }
        }
        let answers = AnswerRoutes(configuration: configuration, model: model, metrics: metrics, tasks: tasks)
        router.post("/v1/chat/completions") { request, context in try await answers.chat(request, context) }
        router.post("/v1/completions") { request, context in try await answers.completion(request, context) }
        router.post("/v1/responses") { request, context in try await answers.responses(request, context) }
        router.post("/v1/messages") { request, context in try await answers.messages(request, context) }
        router.post("/v1/messages/count_tokens") { request, _ in try await answers.countTokens(request) }
    }

    /// Whether a new request would be answered.
    private func ready() throws -> Response {
        let host = try model.host()
        let stalled = host.engine.gauge.stalledSeconds
        guard stalled < configuration.stallSeconds else {
            throw Refusal(status: 503, "the engine has made no progress for \(Int(stalled)) s", code: "stalled")
        }
        return Response.json(#"{"status":"ready"}"#)
    }
}
