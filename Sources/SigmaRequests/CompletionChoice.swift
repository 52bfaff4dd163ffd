import Sigma

/// A token in a completion's log-probabilities.
struct ScoredToken: Equatable {
    var id: Int32
    /// Nil for a prompt's first token, which nothing comes before.
    var logProbability: Double?
    /// The likeliest tokens in its place.
    var top: [TokenLogProbability] = []
    /// Unicode scalars of the choice's text before it.
    var offset: Int
}

/// What an event adds to a choice.
struct CompletionDelta: Equatable {
    var text = ""
    var tokens: [ScoredToken] = []
    var finish: FinishReason?
}

/// A prompt that its answer begins with.
struct EchoedPrompt {
    let text: String
    let tokens: [Int32]
    /// [tokens]: Unicode scalars of the text before each.
    let offsets: [Int]

    init(_ prompt: CompletionBody.GivenPrompt, tokens: [Int32], _ names: TokenNames, addsBos: Bool) {
        self.tokens = tokens
        switch prompt {
        case .tokens: (text, offsets) = names.text(of: tokens)
        case .text(let given):
            // The client did not write the bos.
            let added = addsBos ? 1 : 0
            text = given
            offsets = Array(repeating: 0, count: added) + names.text(of: tokens.dropFirst(added)).offsets
        }
    }
}

/// One choice of a completion: what its events add up to.
struct CompletionChoice {
    private let wantsLogProbabilities: Bool
    /// Nil once it was given out, or if nobody wants it.
    private var prompt: EchoedPrompt?
    private var scalarCount = 0
    private(set) var whole = CompletionDelta()

    init(echoing prompt: EchoedPrompt?, wantsLogProbabilities: Bool) {
        self.prompt = prompt
        self.wantsLogProbabilities = wantsLogProbabilities
    }

    /// What the event adds.
    mutating func delta(_ event: AnswerEvent) -> CompletionDelta {
        var delta = CompletionDelta()
        echo(event, to: &delta)
        switch event {
        case .prefill, .promptLogProbabilities: break
        case .token(let token):
            score(token, to: &delta)
            add(token.text, to: &delta)
        case .closing(_, let text): add(text, to: &delta)
        case .finished(let statistics, let remainder):
            if let remainder { add(remainder.text, to: &delta) }
            // So there is a log-probability for everything that was generated, whatever came out.
            if let token = statistics.stopToken { score(token, to: &delta) }
            delta.finish = statistics.reason
        }
        return delta
    }

    private mutating func score(_ token: AnswerToken, to delta: inout CompletionDelta) {
        guard wantsLogProbabilities else { return }
        delta.tokens.append(
            ScoredToken(id: token.id, logProbability: token.logProbability, top: token.top, offset: scalarCount))
    }

    private mutating func add(_ text: String, to delta: inout CompletionDelta) {
        delta.text += text
        scalarCount += text.unicodeScalars.count
    }

    /// The prompt comes before anything else, and with its log-probabilities where they are wanted.
    private mutating func echo(_ event: AnswerEvent, to delta: inout CompletionDelta) {
        guard let prompt else { return }
        if wantsLogProbabilities {
            switch event {
            case .prefill: return
            case .promptLogProbabilities(let positions): delta.tokens = Self.scored(prompt, positions)
            case .token, .closing, .finished: break
            }
        }
        add(prompt.text, to: &delta)
        self.prompt = nil
    }

    /// A position says what follows it.
    private static func scored(_ prompt: EchoedPrompt, _ positions: [PromptPosition]) -> [ScoredToken] {
        var tokens: [ScoredToken] = []
        for (index, id) in prompt.tokens.enumerated() {
            var token = ScoredToken(id: id, offset: prompt.offsets[index])
            if index > 0, positions.indices.contains(index - 1) {
                token.logProbability = positions[index - 1].next?.logProbability
                token.top = positions[index - 1].top
            }
            tokens.append(token)
        }
        return tokens
    }

    /// Keeps what the event adds, for the whole answer.
    mutating func append(_ delta: CompletionDelta) {
        whole.text += delta.text
        whole.tokens += delta.tokens
        whole.finish = delta.finish ?? whole.finish
    }
}
