/// The text of an answer as its tokens come: thinking apart from the answer, without tags and stop strings.
struct AnswerText {
    private var decoder: StreamingDecoder?
    private var splitter: ThinkingSplitter
    private var stopMatcher: StopMatcher
    private let maximumTokens: Int
    private let dropsFirstLineEnds: Bool
    /// Answer text that arrived together with the end of thinking.
    private var carried = ""
    /// Whether anything but line ends has followed the thinking.
    private var answerHasBegun = false
    /// Tokens whose phase is not known yet: at most the newest, unless the model has still to decide about thinking.
    private var undecided: [AnswerToken] = []
    /// Tokens of white space after which a model that was to decide about thinking is taken to be answering.
    private static let undecidedLimit = 16

    init(_ request: GenerationRequest, _ tokenizer: Tokenizer?) {
        decoder = tokenizer.map(StreamingDecoder.init)
        splitter = ThinkingSplitter(request.start)
        stopMatcher = StopMatcher(request.options.stopStrings)
        maximumTokens = request.options.maximumTokens
        dropsFirstLineEnds = request.constraint?.dropsFirstLineEnds ?? true
    }

    var isThinking: Bool { splitter.state == .thinking }
    /// The stop string that is complete.
    var stopString: String? { stopMatcher.match }
    /// Whether the answer has begun, or its thinking ended.
    var isAnswer: Bool { splitter.state == .answer }

    /// Takes a token in, and gives out those whose phase is known now.
    /// - Returns: whether a stop string is complete.
    mutating func append(_ token: AnswerToken, _ give: (AnswerToken) -> Void) -> Bool {
        let before = splitter.state
        var (thinking, answer) = splitter.append(decoder?.append(token.id) ?? "")
        undecided.append(token)
        if splitter.state == .undetermined, undecided.count >= min(Self.undecidedLimit, maximumTokens) {
            answer = beginAnswer()
        }
        let isStopped: Bool
        (answer, isStopped) = stopMatcher.append(withoutFirstLineEnds(answer))
        if splitter.state != .undetermined {
            // The token that completes `</think>` still counts as thinking; answer text in it goes to the next token.
            let isThinking = before == .thinking || (before == .undetermined && splitter.hasThought)
            carried += answer
            giveOut(isThinking ? .thinking : .answer, isThinking ? thinking : takeCarried(), give)
        }
        return isStopped
    }

    /// Gives out the tokens since the last, now that their phase is known; the text belongs to the newest.
    private mutating func giveOut(_ phase: AnswerToken.Phase, _ text: String, _ give: (AnswerToken) -> Void) {
        for index in undecided.indices {
            undecided[index].phase = phase
            if index == undecided.indices.last { undecided[index].text = text }
            give(undecided[index])
        }
        undecided.removeAll(keepingCapacity: true)
    }

    /// Line ends between thinking and answer are no part of the answer, unless a constraint's texts may begin with them.
    private mutating func withoutFirstLineEnds(_ answer: String) -> String {
        guard splitter.hasThought, !answerHasBegun, dropsFirstLineEnds else { return answer }
        let scalars = answer.unicodeScalars.drop { $0 == "\n" || $0 == "\r" }
        answerHasBegun = !scalars.isEmpty
        return String(scalars)
    }

    private mutating func takeCarried() -> String {
        defer { carried = "" }
        return carried
    }

    /// The model has not said that it thinks: what is held back is its answer.
    private mutating func beginAnswer() -> String {
        splitter.beginAnswer()
        return splitter.finish()
    }

    /// The thinking ends by decision.
    /// - Returns: what of it was held back.
    mutating func closeThinking() -> String {
        defer { splitter.beginAnswer() }
        return splitter.finish() + (decoder?.finish() ?? "")
    }

    /// The end: gives out the tokens that still waited.
    ///
    /// - Returns: text that was held back and counts after all, unless it lies behind a stop string.
    mutating func finish(atStopString: Bool, _ give: (AnswerToken) -> Void) -> AnswerToken? {
        if splitter.state == .undetermined { carried += stopMatcher.append(beginAnswer()).text }
        giveOut(.answer, "", give)
        var phase = AnswerToken.Phase.answer
        var text = carried
        if !atStopString {
            let (thinking, answer) = splitter.append(decoder?.finish() ?? "")
            let rest = splitter.finish()
            if splitter.state == .thinking {
                phase = .thinking
                text = thinking + rest
            } else {
                text += stopMatcher.append(withoutFirstLineEnds(answer + rest)).text + stopMatcher.finish()
            }
        }
        return text.isEmpty ? nil : AnswerToken(id: -1, phase: phase, text: text)
    }
}
