import Sigma

/// Writes the answer to a `MessagesBody` from its events: as one object, or as a stream of events that put it together.
package struct MessagesWriter: Sendable {
    /// The content block that a stream is at.
    private enum Block: Equatable {
        case none, thinking, text
        case call(Int)
    }

    private let head: AnswerHead
    private let promptTokens: Int
    private var choice: ChatChoice
    private var block = Block.none
    /// The open block's place, or that of the next.
    private var blockIndex = 0
    /// Nil until the answer has ended.
    private var statistics: Statistics?

    /// - Parameter request: what the body resolved to.
    package init(_ head: AnswerHead, _ settings: AnswerSettings, _ request: GenerationRequest) {
        self.head = head
        choice = ChatChoice(.reasoningContent, wantsLogProbabilities: false, settings, request.constraint)
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
                if !whole.reasoning.isEmpty { json.object { writeThinking(whole.reasoning, to: &$0) } }
                if choice.hasMessage { json.object { writeText(whole.content, to: &$0) } }
                for (index, call) in choice.calls.enumerated() {
                    json.object { write(call, index, input: call.arguments, to: &$0) }
                }
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

    private func writeThinking(_ text: String, to json: inout JSONWriter) {
        json.field("type", "thinking")
        json.field("thinking", text)
        json.field("signature", text.isEmpty ? "" : Self.signature)
    }

    private func writeText(_ text: String, to json: inout JSONWriter) {
        json.field("type", "text")
        json.field("text", text)
    }

    /// - Parameter input: JSON.
    private func write(_ call: AnsweredCall, _ index: Int, input: String, to json: inout JSONWriter) {
        json.field("type", "tool_use")
        json.field("id", head.callID("toolu", index))
        json.field("name", call.name)
        json.key("input")
        json.json(input)
    }

    /// Clients give thinking back with the signature that came with it. Nothing checks it here.
    private static let signature = "unsigned"

    private func writeStop(to json: inout JSONWriter) {
        let reason: String? =
            switch statistics?.reason {
            case .stop where statistics?.stopString != nil: "stop_sequence"
            case .stop: choice.calls.isEmpty ? "end_turn" : "tool_use"
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

    /// The events that `event` gives rise to. Blocks open and close one after the other: the thinking if there is any, then the text, then the
    /// calls. A call within which the answer ends has its block closed, and is no block of the whole answer.
    package mutating func events(for event: AnswerEvent) -> [StreamEvent] {
        let delta = delta(event)
        var events: [StreamEvent] = []
        if !delta.reasoning.isEmpty {
            if block == .none { open(.thinking, JSONWriter.object { writeThinking("", to: &$0) }, &events) }
            events.append(change("thinking_delta", "thinking", delta.reasoning))
        }
        if block != .text, !delta.content.isEmpty || delta.finish != nil && !choice.hasBegunCall {
            close(&events)
            open(.text, JSONWriter.object { writeText("", to: &$0) }, &events)
        }
        if !delta.content.isEmpty { events.append(change("text_delta", "text", delta.content)) }
        for piece in delta.calls {
            if piece.name != nil {
                close(&events)
                let call = choice.call(piece.index)
                let begun = JSONWriter.object { write(call, piece.index, input: "{}", to: &$0) }
                open(.call(piece.index), begun, &events)
            }
            if !piece.arguments.isEmpty {
                events.append(change("input_json_delta", "partial_json", piece.arguments))
            }
            if piece.isEnd { close(&events) }
        }
        if delta.finish != nil {
            close(&events)
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

    /// - Parameter begun: the block's JSON, without what deltas bring.
    private mutating func open(_ next: Block, _ begun: String, _ events: inout [StreamEvent]) {
        block = next
        events.append(
            event("content_block_start") { json in
                json.field("index", blockIndex)
                json.key("content_block")
                json.json(begun)
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

    /// Closes the open block, if there is one.
    private mutating func close(_ events: inout [StreamEvent]) {
        guard block != .none else { return }
        if block == .thinking { events.append(change("signature_delta", "signature", Self.signature)) }
        events.append(event("content_block_stop") { $0.field("index", blockIndex) })
        block = .none
        blockIndex += 1
    }

    private func event(_ type: String, _ body: (inout JSONWriter) -> Void) -> StreamEvent {
        var json = JSONWriter()
        json.object { json in
            json.field("type", type)
            body(&json)
        }
        return StreamEvent(name: type, data: json.text)
    }
}
