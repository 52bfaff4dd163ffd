import Sigma

/// Writes the answer to a chat's body from the events of its choices: as one object, or as a stream of chunks that add up to it.
///
///     var writer = ChatCompletionWriter(head, body.settings, TokenNames(tokenizer))
///     for chunk in writer.chunks(for: event, choice: 0) { send(chunk) }     // or: writer.take(event, choice: 0)
///     let answer = writer.answer()                                          // after all events were taken
package struct ChatCompletionWriter: Sendable {
    private let head: AnswerHead
    private let names: TokenNames
    private let field: ReasoningField
    private let wantsLogProbabilities: Bool
    private let includesUsage: Bool
    private var choices: [ChatChoice]
    private var unfinished: Int
    package private(set) var usage = AnswerUsage()

    /// - Parameter requests: what the body resolved to; empty: not known.
    package init(
        _ head: AnswerHead, _ settings: AnswerSettings, _ names: TokenNames, _ requests: [GenerationRequest] = [],
        reasoning field: ReasoningField = .reasoningContent
    ) {
        self.head = head
        self.names = names
        self.field = field
        wantsLogProbabilities = settings.logProbabilityCount != nil
        includesUsage = settings.includesUsage
        choices = Array(
            repeating: ChatChoice(
                field, wantsLogProbabilities: wantsLogProbabilities, settings, requests.first?.constraint),
            count: settings.choicesPerPrompt)
        unfinished = settings.choicesPerPrompt
    }

    /// Whether all choices have finished.
    package var isFinished: Bool { unfinished == 0 }

    private mutating func delta(_ event: AnswerEvent, _ choice: Int) -> ChatDelta {
        if case .finished(let statistics, _) = event {
            unfinished -= 1
            usage.add(statistics, countsPrompt: choice == 0)
        }
        return choices[choice].delta(event)
    }

    // MARK: - One object

    package mutating func take(_ event: AnswerEvent, choice: Int) {
        let delta = delta(event, choice)
        choices[choice].append(delta)
    }

    /// The `chat.completion` of all events that were taken.
    package func answer() -> String {
        head.object("chat.completion") { json in
            json.array("choices") { json in
                for (index, choice) in choices.enumerated() {
                    let whole = choice.whole
                    json.object { json in
                        json.field("index", index)
                        json.object("message") { json in
                            json.field("role", "assistant")
                            json.field("content", whole.content)
                            if !whole.reasoning.isEmpty { json.field(field.rawValue, whole.reasoning) }
                            writeCalls(choice.calls, choice: index, to: &json)
                        }
                        writeLogProbabilities(whole.tokens, to: &json)
                        json.field("finish_reason", orNull: choice.finishName)
                    }
                }
            }
            usage.write(to: &json)
        }
    }

    // MARK: - A stream

    /// The `chat.completion.chunk`s that the event gives rise to: the role before anything else, then text of whole characters, then why the
    /// choice finished; last, if it is wanted, the usage.
    package mutating func chunks(for event: AnswerEvent, choice: Int) -> [String] {
        var chunks: [String] = []
        if !choices[choice].hasBegun {
            choices[choice].hasBegun = true
            chunks.append(
                chunk(choice) { json in
                    json.field("role", "assistant")
                    json.field("content", "")
                })
        }
        let delta = delta(event, choice)
        // What was sent is not kept.
        choices[choice].append(delta.withoutText)
        if !delta.reasoning.isEmpty || !delta.content.isEmpty || !delta.tokens.isEmpty {
            chunks.append(
                chunk(choice, tokens: delta.tokens) { json in
                    if !delta.reasoning.isEmpty { json.field(field.rawValue, delta.reasoning) }
                    if !delta.content.isEmpty || !delta.tokens.isEmpty { json.field("content", delta.content) }
                })
        }
        for piece in delta.calls where piece.name != nil || !piece.arguments.isEmpty {
            chunks.append(chunk(choice) { write(piece, choice: choice, to: &$0) })
        }
        if delta.finish != nil {
            chunks.append(chunk(choice, finish: choices[choice].finishName) { _ in })
            if isFinished, includesUsage {
                chunks.append(
                    head.object(Self.chunkKind) { json in
                        json.array("choices") { _ in }
                        usage.write(to: &json)
                    })
            }
        }
        return chunks
    }

    private func write(_ piece: CallPiece, choice: Int, to json: inout JSONWriter) {
        json.array("tool_calls") { json in
            json.object { json in
                json.field("index", piece.index)
                if piece.name != nil {
                    json.field("id", head.callID("call", choice: choice, piece.index))
                    json.field("type", "function")
                }
                json.object("function") { json in
                    if let name = piece.name { json.field("name", name) }
                    json.field("arguments", piece.arguments)
                }
            }
        }
    }

    private func writeCalls(_ calls: [AnsweredCall], choice: Int, to json: inout JSONWriter) {
        guard !calls.isEmpty else { return }
        json.array("tool_calls") { json in
            for (index, call) in calls.enumerated() {
                json.object { json in
                    json.field("id", head.callID("call", choice: choice, index))
                    json.field("type", "function")
                    json.object("function") { json in
                        json.field("name", call.name)
                        json.field("arguments", call.arguments)
                    }
                }
            }
        }
    }

    private static let chunkKind = "chat.completion.chunk"

    private func chunk(
        _ choice: Int, tokens: [AnswerToken] = [], finish: String? = nil, _ delta: (inout JSONWriter) -> Void
    ) -> String {
        head.object(Self.chunkKind) { json in
            json.array("choices") { json in
                json.object { json in
                    json.field("index", choice)
                    json.object("delta", delta)
                    writeLogProbabilities(tokens, orNull: tokens.isEmpty, to: &json)
                    json.field("finish_reason", orNull: finish)
                }
            }
            if includesUsage {
                json.key("usage")
                json.null()
            }
        }
    }

    // MARK: - Log-probabilities

    private func writeLogProbabilities(_ tokens: [AnswerToken], orNull isNull: Bool = false, to json: inout JSONWriter)
    {
        json.key("logprobs")
        guard wantsLogProbabilities, !isNull else { return json.null() }
        json.object { json in
            json.array("content") { names.writeScores(of: tokens, to: &$0) }
        }
    }
}
