import Sigma

/// Writes the answer to a `ResponsesBody` from its events: as one object, or as a stream of events that put it together.
package struct ResponsesWriter: Sendable {
    /// The item that a stream is at.
    private enum Item: Equatable {
        case none, reasoning, message
        case call(Int)
    }

    private let object: ResponseObject
    private let names: TokenNames
    private var choice: ChatChoice
    private var item = Item.none
    /// The open item's place, or that of the next.
    private var outputIndex = 0
    private var sequence = 0
    package private(set) var isFinished = false
    private var usage = AnswerUsage()

    /// - Parameter requests: what the body resolved to; empty: not known.
    package init(
        _ head: AnswerHead, _ body: ResponsesBody, _ names: TokenNames, _ requests: [GenerationRequest] = []
    ) {
        object = ResponseObject(head: head, body: body, names: names)
        self.names = names
        choice = ChatChoice(
            .reasoningContent, wantsLogProbabilities: body.chat.settings.logProbabilityCount != nil,
            body.chat.settings, requests.first?.constraint)
    }

    package mutating func take(_ event: AnswerEvent) { _ = delta(event) }

    private mutating func delta(_ event: AnswerEvent) -> ChatDelta {
        if case .finished(let statistics, _) = event {
            isFinished = true
            usage.add(statistics, countsPrompt: true)
        }
        let delta = choice.delta(event)
        choice.append(delta)
        return delta
    }

    // MARK: - One object

    /// The `response` of all events that were taken.
    package func answer() -> String {
        var json = JSONWriter()
        json.object { object.write(choice, usage, to: &$0) }
        return json.text
    }

    // MARK: - A stream

    /// What comes before anything has happened.
    package mutating func opening() -> [StreamEvent] {
        var events = Events(sequence)
        for type in ["response.created", "response.in_progress"] {
            events.add(type) { json in json.object("response") { object.write(to: &$0) } }
        }
        return taken(events)
    }

    /// The events that `event` gives rise to. Items open and close one after the other: the reasoning if there is any, then the message, then the
    /// calls. A call within which the answer ends stays open, and is no item of the whole answer.
    package mutating func events(for event: AnswerEvent) -> [StreamEvent] {
        let delta = delta(event)
        var events = Events(sequence)
        if !delta.reasoning.isEmpty {
            if item == .none { open(.reasoning, &events) }
            add("response.reasoning_text.delta", &events) { $0.field("delta", delta.reasoning) }
        }
        let hasText = !delta.content.isEmpty || !delta.tokens.isEmpty
        if item != .message, hasText || delta.finish != nil && !choice.hasBegunCall {
            close(&events)
            open(.message, &events)
        }
        if hasText {
            add("response.output_text.delta", &events) { json in
                json.field("delta", delta.content)
                json.array("logprobs") { names.writeScores(of: delta.tokens, to: &$0) }
            }
        }
        for piece in delta.calls { add(piece, &events) }
        if delta.finish != nil {
            close(&events)
            events.add(object.status(of: choice.whole) == "incomplete" ? "response.incomplete" : "response.completed") {
                json in json.object("response") { object.write(choice, usage, to: &$0) }
            }
        }
        return taken(events)
    }

    /// The end of a stream that cannot go on.
    package mutating func failure(_ error: RequestError) -> [StreamEvent] {
        var events = Events(sequence)
        events.add("response.failed") { json in json.object("response") { object.write(error, to: &$0) } }
        return taken(events)
    }

    private mutating func open(_ next: Item, _ events: inout Events) {
        item = next
        events.add("response.output_item.added") { json in
            json.field("output_index", outputIndex)
            json.object("item") { json in
                switch next {
                case .reasoning: object.writeReasoning(nil, to: &json)
                case .call(let index):
                    object.writeCall(index, AnsweredCall(name: choice.call(index).name), to: &json)
                case .message, .none: object.writeMessage(nil, to: &json)
                }
            }
        }
        // A call has no parts.
        if case .call = next { return }
        add("response.content_part.added", &events) { json in
            json.object("part") { json in
                if next == .reasoning {
                    object.writeReasoningPart("", to: &json)
                } else {
                    object.writeTextPart(ChatDelta(), to: &json)
                }
            }
        }
    }

    private mutating func add(_ piece: CallPiece, _ events: inout Events) {
        let id = object.callItemID(piece.index)
        if piece.name != nil {
            close(&events)
            open(.call(piece.index), &events)
        }
        if !piece.arguments.isEmpty {
            events.add("response.function_call_arguments.delta") { json in
                json.field("item_id", id)
                json.field("output_index", outputIndex)
                json.field("delta", piece.arguments)
            }
        }
        guard piece.isEnd else { return }
        let call = choice.call(piece.index)
        events.add("response.function_call_arguments.done") { json in
            json.field("item_id", id)
            json.field("output_index", outputIndex)
            json.field("name", call.name)
            json.field("arguments", call.arguments)
        }
        closeItem(JSONWriter.object { object.writeCall(piece.index, call, to: &$0) }, &events)
    }

    /// Closes the reasoning or the message. Calls close themselves.
    private mutating func close(_ events: inout Events) {
        switch item {
        case .reasoning: closeReasoning(&events)
        case .message: closeMessage(&events)
        case .none, .call: break
        }
    }

    /// - Parameter whole: the item's JSON.
    private mutating func closeItem(_ whole: String, _ events: inout Events) {
        events.add("response.output_item.done") { json in
            json.field("output_index", outputIndex)
            json.key("item")
            json.json(whole)
        }
        item = .none
        outputIndex += 1
    }

    private mutating func closeReasoning(_ events: inout Events) {
        let text = choice.whole.reasoning
        add("response.reasoning_text.done", &events) { $0.field("text", text) }
        add("response.content_part.done", &events) { json in
            json.object("part") { object.writeReasoningPart(text, to: &$0) }
        }
        closeItem(JSONWriter.object { object.writeReasoning(text, to: &$0) }, &events)
    }

    private mutating func closeMessage(_ events: inout Events) {
        let whole = choice.whole
        add("response.output_text.done", &events) { json in
            json.field("text", whole.content)
            json.array("logprobs") { names.writeScores(of: whole.tokens, to: &$0) }
        }
        add("response.content_part.done", &events) { json in
            json.object("part") { object.writeTextPart(whole, to: &$0) }
        }
        closeItem(JSONWriter.object { object.writeMessage(choice, to: &$0) }, &events)
    }

    /// An event of the open item's only part.
    private func add(_ type: String, _ events: inout Events, _ body: (inout JSONWriter) -> Void) {
        events.add(type) { json in
            json.field("item_id", item == .reasoning ? object.reasoningID : object.messageID)
            json.field("output_index", outputIndex)
            json.field("content_index", 0)
            body(&json)
        }
    }

    private mutating func taken(_ events: Events) -> [StreamEvent] {
        sequence = events.sequence
        return events.list
    }

    /// Events in a row, numbered.
    private struct Events {
        var list: [StreamEvent] = []
        var sequence: Int

        init(_ sequence: Int) { self.sequence = sequence }

        mutating func add(_ type: String, _ body: (inout JSONWriter) -> Void) {
            var json = JSONWriter()
            json.object { json in
                json.field("type", type)
                json.field("sequence_number", sequence)
                body(&json)
            }
            list.append(StreamEvent(name: type, data: json.text))
            sequence += 1
        }
    }
}
