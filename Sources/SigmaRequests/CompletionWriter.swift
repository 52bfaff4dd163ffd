import Sigma

/// Writes the answer to a completion's body from the events of its choices: as one object, or as a stream of chunks that add up to it.
package struct CompletionWriter: Sendable {
    private let head: AnswerHead
    private let names: TokenNames
    private let choicesPerPrompt: Int
    private let wantsLogProbabilities: Bool
    private let includesUsage: Bool
    private var choices: [CompletionChoice]
    private var unfinished: Int
    package private(set) var usage = AnswerUsage()

    /// - Parameter requests: what the body resolved to, one for each choice.
    package init(
        _ head: AnswerHead, _ body: CompletionBody, _ requests: [GenerationRequest], in context: RequestContext
    ) {
        self.head = head
        names = TokenNames(context.tokenizer)
        let count = body.settings.choicesPerPrompt
        choicesPerPrompt = count
        let wantsLogProbabilities = body.settings.logProbabilityCount != nil
        self.wantsLogProbabilities = wantsLogProbabilities
        includesUsage = body.settings.includesUsage
        choices = []
        for (index, prompt) in body.prompts.enumerated() {
            let echoed =
                body.echoes
                ? EchoedPrompt(
                    prompt, tokens: requests[index * count].tokens, names, addsBos: context.tokenizer?.addsBos ?? false)
                : nil
            let choice = CompletionChoice(echoing: echoed, wantsLogProbabilities: wantsLogProbabilities)
            choices += Array(repeating: choice, count: count)
        }
        unfinished = choices.count
    }

    /// Whether all choices have finished.
    package var isFinished: Bool { unfinished == 0 }

    private mutating func delta(_ event: AnswerEvent, _ choice: Int) -> CompletionDelta {
        if case .finished(let statistics, _) = event {
            unfinished -= 1
            usage.add(statistics, countsPrompt: choice % choicesPerPrompt == 0)
        }
        return choices[choice].delta(event)
    }

    // MARK: - One object

    package mutating func take(_ event: AnswerEvent, choice: Int) {
        let delta = delta(event, choice)
        choices[choice].append(delta)
    }

    /// The `text_completion` of all events that were taken.
    package func answer() -> String {
        head.object(Self.kind) { json in
            json.array("choices") { json in
                for (index, choice) in choices.enumerated() { write(choice.whole, index, to: &json) }
            }
            usage.write(to: &json)
        }
    }

    // MARK: - A stream

    /// The chunks that the event gives rise to: text of whole characters, then why the choice finished; last, if it is wanted, the usage.
    package mutating func chunks(for event: AnswerEvent, choice: Int) -> [String] {
        var delta = delta(event, choice)
        let finish = delta.finish
        delta.finish = nil
        var chunks: [String] = []
        if delta != CompletionDelta() { chunks.append(chunk(delta, choice)) }
        if let finish {
            chunks.append(chunk(CompletionDelta(finish: finish), choice))
            if isFinished, includesUsage {
                chunks.append(
                    head.object(Self.kind) { json in
                        json.array("choices") { _ in }
                        usage.write(to: &json)
                    })
            }
        }
        return chunks
    }

    private static let kind = "text_completion"

    private func chunk(_ delta: CompletionDelta, _ choice: Int) -> String {
        head.object(Self.kind) { json in
            json.array("choices") { write(delta, choice, orNull: delta.tokens.isEmpty, to: &$0) }
            if includesUsage {
                json.key("usage")
                json.null()
            }
        }
    }

    // MARK: - Choices

    private func write(_ delta: CompletionDelta, _ index: Int, orNull isNull: Bool = false, to json: inout JSONWriter) {
        json.object { json in
            json.field("index", index)
            json.field("text", delta.text)
            json.key("logprobs")
            if wantsLogProbabilities, !isNull { write(delta.tokens, to: &json) } else { json.null() }
            json.field("finish_reason", orNull: delta.finish?.protocolName)
        }
    }

    private func write(_ tokens: [ScoredToken], to json: inout JSONWriter) {
        json.object { json in
            json.array("tokens") { json in for token in tokens { json.value(names.name(of: token.id)) } }
            json.array("token_logprobs") { json in
                for token in tokens {
                    if let value = token.logProbability { json.logProbability(value) } else { json.null() }
                }
            }
            json.array("top_logprobs") { json in for token in tokens { writeTop(token, to: &json) } }
            json.array("text_offset") { json in for token in tokens { json.value(token.offset) } }
        }
    }

    /// The likeliest tokens and the one that stands there.
    private func writeTop(_ token: ScoredToken, to json: inout JSONWriter) {
        guard let value = token.logProbability else { return json.null() }
        var tokens = token.top
        if !tokens.contains(where: { $0.id == token.id }) {
            tokens.append(TokenLogProbability(id: token.id, logProbability: value))
        }
        json.object { json in
            for (name, value) in names.named(tokens) {
                json.key(name)
                json.logProbability(value)
            }
        }
    }
}
