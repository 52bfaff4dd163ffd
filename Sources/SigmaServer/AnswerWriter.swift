import Sigma
import SigmaRequests

/// What makes JSON of a request's events: the writer of one protocol.
protocol AnswerWriter: Sendable {
    // MARK: One object

    mutating func take(_ event: AnswerEvent, choice: Int)
    func answer() -> String
    var isFinished: Bool { get }

    // MARK: A stream

    /// Whether a stream ends with all that was in it, so that this is kept.
    static var keepsStreams: Bool { get }
    /// What a stream begins with, before anything has happened.
    mutating func opening() -> [StreamEvent]
    mutating func events(for event: AnswerEvent, choice: Int) -> [StreamEvent]
    /// What a stream ends with that cannot go on: its status has been sent.
    mutating func failure(_ error: RequestError) -> [StreamEvent]
    /// What a stream ends with when all is said.
    static var end: String { get }
    /// What is sent where nothing comes for a while.
    static var signOfLife: String { get }
}

extension AnswerWriter {
    static var keepsStreams: Bool { false }
    mutating func opening() -> [StreamEvent] { [] }
    mutating func failure(_ error: RequestError) -> [StreamEvent] { [StreamEvent(data: error.json)] }
    static var end: String { "" }
    /// A comment.
    static var signOfLife: String { ": \n\n" }
}

extension ChatCompletionWriter: AnswerWriter {
    mutating func events(for event: AnswerEvent, choice: Int) -> [StreamEvent] {
        chunks(for: event, choice: choice).map { StreamEvent(data: $0) }
    }
    static var end: String { StreamEvent(data: "[DONE]").text }
}

extension CompletionWriter: AnswerWriter {
    mutating func events(for event: AnswerEvent, choice: Int) -> [StreamEvent] {
        chunks(for: event, choice: choice).map { StreamEvent(data: $0) }
    }
    static var end: String { StreamEvent(data: "[DONE]").text }
}

extension ResponsesWriter: AnswerWriter {
    static var keepsStreams: Bool { true }
    mutating func take(_ event: AnswerEvent, choice: Int) { take(event) }
    mutating func events(for event: AnswerEvent, choice: Int) -> [StreamEvent] { events(for: event) }
}

extension MessagesWriter: AnswerWriter {
    mutating func take(_ event: AnswerEvent, choice: Int) { take(event) }
    mutating func events(for event: AnswerEvent, choice: Int) -> [StreamEvent] { events(for: event) }
    mutating func failure(_ error: RequestError) -> [StreamEvent] {
        [StreamEvent(name: "error", data: error.messagesJSON)]
    }
    static var signOfLife: String { ping.text }
}

/// A writer that one request's tasks share.
actor AnswerCollector<Writer: AnswerWriter> {
    private var writer: Writer

    init(_ writer: Writer) { self.writer = writer }

    func take(_ event: AnswerEvent, _ choice: Int) { writer.take(event, choice: choice) }
    func answer() throws -> String {
        guard writer.isFinished else { throw CancellationError() }
        return writer.answer()
    }

    func opening() -> String { Self.text(writer.opening()) }
    func events(_ event: AnswerEvent, _ choice: Int) throws -> String {
        if case .finished(let statistics, _) = event, statistics.reason == .interrupted { throw CancellationError() }
        return Self.text(writer.events(for: event, choice: choice))
    }
    /// None after the last event.
    func signOfLife() -> String { writer.isFinished ? "" : Writer.signOfLife }
    func failure(_ error: RequestError) -> String { Self.text(writer.failure(error)) }

    private static func text(_ events: [StreamEvent]) -> String { events.map(\.text).joined() }
}
