import HTTPTypes
import Hummingbird
import Sigma
import SigmaRequests
import SystemLibrary

/// `/v1/chat/completions` and `/v1/completions`.
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
            writer: ChatCompletionWriter(head("chatcmpl", host), body.settings, names, reasoning: field))
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

    private func checkModel(_ settings: AnswerSettings, _ host: ModelHost) throws {
        if let name = settings.model, !host.names.contains(name) { throw RequestError.unknownModel(name) }
    }

    private func head(_ prefix: String, _ host: ModelHost) -> AnswerHead {
        AnswerHead(id: RequestID.make(prefix), created: Int(time(nil)), model: host.name)
    }

    // MARK: - The answer

    private func answer(
        _ settings: AnswerSettings, _ requests: [GenerationRequest], _ host: ModelHost, _ context: ServerContext,
        writer: some AnswerWriter
    ) async throws -> Response {
        let promptTokens = stride(from: 0, to: requests.count, by: settings.choicesPerPrompt)
            .reduce(0) { $0 + requests[$1].tokens.count }
        let observer = RequestObserver(metrics)
        let run = AnswerRun(
            host: host, ticket: try host.admission.enter(promptTokens: promptTokens), requests: requests,
            choicesPerPrompt: settings.choicesPerPrompt, observer: observer)
        context.observation.set(observer)
        if settings.streams { return stream(run, writer, context) }
        let text = try await context.whileConnected(tasks) {
            let collector = Collector(writer)
            try await run.run(silence: nil) { item in
                if case .event(let event, let choice) = item { await collector.take(event, choice) }
            }
            return try await collector.answer()
        }
        return Response.json(text)
    }

    /// Server-sent events: what comes is sent at once, and a comment where nothing comes for a while.
    private func stream(_ run: AnswerRun, _ writer: some AnswerWriter, _ context: ServerContext) -> Response {
        let silence = Duration.seconds(configuration.keepAliveSeconds)
        let body = ResponseBody { output in
            let sink = StreamSink(output)
            let collector = Collector(writer)
            do {
                try await context.whileConnected(tasks) {
                    try await run.run(silence: silence) { item in
                        switch item {
                        case .silence: try await sink.write(": \n\n")
                        case .event(let event, let choice):
                            let chunks = try await collector.chunks(event, choice)
                            if !chunks.isEmpty { try await sink.write(chunks.map { "data: \($0)\n\n" }.joined()) }
                        }
                    }
                }
                try await sink.write("data: [DONE]\n\n")
            } catch {
                // The status has been sent: the error is the stream's last event.
                try await sink.write("data: \(Refusal(describing: error).error.json)\n\n")
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

/// What makes JSON of events: a chat's writer or a completion's.
protocol AnswerWriter: Sendable {
    mutating func take(_ event: AnswerEvent, choice: Int)
    func answer() -> String
    mutating func chunks(for event: AnswerEvent, choice: Int) -> [String]
    var isFinished: Bool { get }
}

extension ChatCompletionWriter: AnswerWriter {}
extension CompletionWriter: AnswerWriter {}

/// A writer that one request's tasks share.
private actor Collector<Writer: AnswerWriter> {
    private var writer: Writer

    init(_ writer: Writer) { self.writer = writer }

    func take(_ event: AnswerEvent, _ choice: Int) { writer.take(event, choice: choice) }
    func chunks(_ event: AnswerEvent, _ choice: Int) throws -> [String] {
        if case .finished(let statistics, _) = event, statistics.reason == .interrupted { throw CancellationError() }
        return writer.chunks(for: event, choice: choice)
    }
    func answer() throws -> String {
        guard writer.isFinished else { throw CancellationError() }
        return writer.answer()
    }
}

/// A response's body that one task at a time writes.
private final class StreamSink: @unchecked Sendable {
    private var writer: any ResponseBodyWriter

    init(_ writer: any ResponseBodyWriter) { self.writer = writer }

    func write(_ text: String) async throws { try await writer.write(ByteBuffer(string: text)) }
    func finish() async throws { try await writer.finish(nil) }
}
