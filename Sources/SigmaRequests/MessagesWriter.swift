import Sigma

/// Writes the answer to a `MessagesBody` from its events: as one object, or as a stream of events that put it together.
package struct MessagesWriter: Sendable {
    /// The content block that a stream is at.
    private enum Block: String { case none, thinking, text }

    private let head: AnswerHead
    private let promptTokens: Int
    private var choice = ChatChoice(.reasoningContent, wantsLogProbabilities: false)
    private var block = Block.none
    /// Nil until the answer has ended.
    private var statistics: Statistics?

    /// - Parameter request: what the body resolved to.
    package init(_ head: AnswerHead, _ request: GenerationRequest) {
        self.head = head
        promptTokens = request.tokens.count
    }

    package var isFinished: Bool { statistics != nil }

    package mutating func take(_ event: AnswerEvent) { _ = delta(event) }

    private mutating func delta(_ event: AnswerEvent) -> ChatDelta {
        if case .finished(let statistics, _) = event { self.statistics = statistics }
        let delta = choice.delta(event)
        choice.append(delta)
        return delta
    }

    // MARK: - One object

    /// The `message` of all events that were taken.
    package func answer() -> String {
        var json = JSONWriter()
        json.object { json in
            writeHead(to: &json)
            json.array("content") { json in
                let whole = choice.whole
                if !whole.reasoning.isEmpty { json.object { write(.thinking, whole.reasoning, to: &$0) } }
                json.object { write(.text, whole.content, to: &$0) }
            }
            writeStop(to: &json)
            json.object("usage") { writeUsage(to: &$0) }
        }
        return json.text
    }

    private func writeHead(to json: inout JSONWriter) {
        json.field("id", head.id)
        json.field("type", "message")
        json.field("role", "assistant")
        json.field("model", head.model)
    }

    private func write(_ block: Block, _ text: String, to json: inout JSONWriter) {
        json.field("type", block.rawValue)
        json.field(block.rawValue, text)
        if block == .thinking { json.field("signature", text.isEmpty ? "" : Self.signature) }
    }

    /// Clients give thinking back with the signature that came with it. Nothing checks it here.
    private static let signature = "unsigned"

    private func writeStop(to json: inout JSONWriter) {
        let reason: String? =
            switch statistics?.reason {
            case .stop: statistics?.stopString == nil ? "end_turn" : "stop_sequence"
            case .length, .context: "max_tokens"
            case .interrupted, nil: nil
            }
        json.field("stop_reason", orNull: reason)
        json.field("stop_sequence", orNull: statistics?.stopString)
    }

    /// Tokens of the prompt that were found are not among the `input_tokens`.
    private func writeUsage(to json: inout JSONWriter) {
        let cachedTokens = statistics?.reusedPromptTokens ?? 0
        json.field("input_tokens", promptTokens - cachedTokens)
        json.field("cache_creation_input_tokens", 0)
        json.field("cache_read_input_tokens", cachedTokens)
        json.field("output_tokens", statistics?.generatedTokens ?? 0)
    }

    // MARK: - A stream

    /// What comes before anything has happened. How much of the prompt is found is not known yet.
    package func opening() -> [StreamEvent] {
        [
            event("message_start") { json in
                json.object("message") { json in
                    writeHead(to: &json)
                    json.array("content") { _ in }
                    writeStop(to: &json)
                    json.object("usage") { writeUsage(to: &$0) }
                }
            }
        ]
    }

    /// The events that `event` gives rise to. Blocks open and close one after the other: the thinking if there is any, then the text.
    package mutating func events(for event: AnswerEvent) -> [StreamEvent] {
        let delta = delta(event)
        var events: [StreamEvent] = []
        if !delta.reasoning.isEmpty {
            if block == .none { open(.thinking, &events) }
            events.append(change("thinking_delta", "thinking", delta.reasoning))
        }
        if !delta.content.isEmpty || delta.finish != nil {
            if block == .thinking {
                events.append(change("signature_delta", "signature", Self.signature))
                events.append(close())
            }
            if block != .text { open(.text, &events) }
        }
        if !delta.content.isEmpty { events.append(change("text_delta", "text", delta.content)) }
        if delta.finish != nil {
            events.append(close())
            events.append(
                self.event("message_delta") { json in
                    json.object("delta") { writeStop(to: &$0) }
                    json.object("usage") { writeUsage(to: &$0) }
                })
            events.append(self.event("message_stop") { _ in })
        }
        return events
    }

    /// A sign of life.
    package static let ping = StreamEvent(name: "ping", data: #"{"type":"ping"}"#)

    private var blockIndex: Int { block == .text && !choice.whole.reasoning.isEmpty ? 1 : 0 }

    private mutating func open(_ next: Block, _ events: inout [StreamEvent]) {
        block = next
        events.append(
            event("content_block_start") { json in
                json.field("index", blockIndex)
                json.object("content_block") { write(next, "", to: &$0) }
            })
    }

    private func change(_ type: String, _ key: String, _ text: String) -> StreamEvent {
        event("content_block_delta") { json in
            json.field("index", blockIndex)
            json.object("delta") { json in
                json.field("type", type)
                json.field(key, text)
            }
        }
    }

    private func close() -> StreamEvent { event("content_block_stop") { $0.field("index", blockIndex) } }

    private func event(_ type: String, _ body: (inout JSONWriter) -> Void) -> StreamEvent {
        var json = JSONWriter()
        json.object { json in
            json.field("type", type)
            body(&json)
        }
        return StreamEvent(name: type, data: json.text)
    }
}
