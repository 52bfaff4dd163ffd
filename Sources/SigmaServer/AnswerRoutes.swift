import HTTPTypes
import Hummingbird
import Sigma
import SigmaRequests
import SystemLibrary

/// What answers: `/v1/chat/completions`, `/v1/completions`, `/v1/responses` and `/v1/messages`.
struct AnswerRoutes: Sendable {
    let configuration: ServerConfiguration
    let model: ServedModel
    let metrics: ServerMetrics
    let tasks: RunningTasks

    func chat(_ request: Request, _ context: ServerContext) async throws -> Response {
        let host = try model.host()
        let field = configuration.reasoningField
        let (body, requests) = try await request.read { bytes in
            let body = try ChatCompletionBody(bytes: bytes)
            try checkModel(body.settings, host)
            return (body, try body.resolve(in: host.context))
        }
        let names = TokenNames(host.context.tokenizer)
        return try await answer(
            body.settings, requests, host, context,
            writer: ChatCompletionWriter(head("chatcmpl", host), body.settings, names, requests, reasoning: field))
    }

    func completion(_ request: Request, _ context: ServerContext) async throws -> Response {
        let host = try model.host()
        let head = head("cmpl", host)
        let (body, requests, writer) = try await request.read { bytes in
            let body = try CompletionBody(bytes: bytes)
            try checkModel(body.settings, host)
            let requests = try body.resolve(in: host.context)
            return (body, requests, CompletionWriter(head, body, requests, in: host.context))
        }
        return try await answer(body.settings, requests, host, context, writer: writer)
    }

    func responses(_ request: Request, _ context: ServerContext) async throws -> Response {
        let host = try model.host()
        let (body, requests) = try await request.read { bytes in
            let body = try ResponsesBody(bytes: bytes)
            try checkModel(body.chat.settings, host)
            return (body, try body.resolve(in: host.context))
        }
        let names = TokenNames(host.context.tokenizer)
        return try await answer(
            body.chat.settings, requests, host, context,
            writer: ResponsesWriter(head("resp", host, separator: "_"), body, names, requests))
    }

    func messages(_ request: Request, _ context: ServerContext) async throws -> Response {
        let host = try model.host()
        let (settings, requests) = try await request.read { bytes in
            let body = try MessagesBody(bytes: bytes)
            try checkModel(body.chat.settings, host)
            return (body.chat.settings, try body.resolve(in: host.context))
        }
        return try await answer(
            settings, requests, host, context,
            writer: MessagesWriter(head("msg", host, separator: "_"), settings, requests[0]))
    }

    /// How many tokens a request to `/v1/messages` would have as its prompt.
    func countTokens(_ request: Request) async throws -> Response {
        let host = try model.host()
        return try await request.read { bytes in
            let body = try MessagesBody(bytes: bytes)
            try checkModel(body.chat.settings, host)
            return Response.json(#"{"input_tokens":\#(try body.promptTokens(in: host.context))}"#)
        }
    }

    private func checkModel(_ settings: AnswerSettings, _ host: ModelHost) throws {
        if let name = settings.model, !host.names.contains(name) { throw RequestError.unknownModel(name) }
    }

    private func head(_ prefix: String, _ host: ModelHost, separator: String = "-") -> AnswerHead {
        AnswerHead(id: RequestID.make(prefix, separator), created: Int(time(nil)), model: host.name)
    }

    // MARK: - The answer

    private func answer(
        _ settings: AnswerSettings, _ requests: [GenerationRequest], _ host: ModelHost, _ context: ServerContext,
        writer: some AnswerWriter
    ) async throws -> Response {
        try host.context.checkWhole(requests, keepsAnswers: !settings.streams || type(of: writer).keepsStreams)
        let promptTokens = stride(from: 0, to: requests.count, by: settings.choicesPerPrompt)
            .reduce(0) { $0 + requests[$1].tokens.count }
        let observer = RequestObserver(metrics)
        let run = AnswerRun(
            host: host, ticket: try host.admission.enter(promptTokens: promptTokens), requests: requests,
            choicesPerPrompt: settings.choicesPerPrompt, observer: observer)
        context.observation.set(observer)
        if settings.streams { return stream(run, writer, context) }
        let text = try await context.whileConnected(tasks) {
            let collector = AnswerCollector(writer)
            try await run.run(silence: nil) { item in
                if case .event(let event, let choice) = item { await collector.take(event, choice) }
            }
            return try await collector.answer()
        }
        return Response.json(text)
    }

    /// Server-sent events: what comes is sent at once, and a comment where nothing comes for a while.
    private func stream<Writer: AnswerWriter>(_ run: AnswerRun, _ writer: Writer, _ context: ServerContext) -> Response
    {
        let silence = Duration.seconds(configuration.keepAliveSeconds)
        let body = ResponseBody { output in
            let sink = StreamSink(output)
            let collector = AnswerCollector(writer)
            do {
                try await context.whileConnected(tasks) {
                    try await sink.write(await collector.opening())
                    try await run.run(silence: silence) { item in
                        switch item {
                        case .silence: try await sink.write(await collector.signOfLife())
                        case .event(let event, let choice): try await sink.write(await collector.events(event, choice))
                        }
                    }
                }
                try await sink.write(Writer.end)
            } catch {
                // The status has been sent: the error is the stream's last event.
                let error = Refusal(describing: error).error
                context.observation.fail(error.message)
                try await sink.write(await collector.failure(error))
            }
            try await sink.finish()
        }
        return Response(
            status: .ok,
            headers: [
                .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache", .accelBuffering: "no",
            ], body: body)
    }
}

/// A response's body that one task at a time writes.
private final class StreamSink: @unchecked Sendable {
    private var writer: any ResponseBodyWriter

    init(_ writer: any ResponseBodyWriter) { self.writer = writer }

    func write(_ text: String) async throws {
        if !text.isEmpty { try await writer.write(ByteBuffer(string: text)) }
    }
    func finish() async throws { try await writer.finish(nil) }
}
