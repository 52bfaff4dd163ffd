import Synchronization

/// What is asked of one generation.
package struct GenerationRequest: Sendable {
    package var tokens: [Int32]
    /// Where the text begins; `.answer` for raw prompts, which have no thinking.
    package var start: ThinkingSplitter.State
    package var options: GenerationOptions
    /// Log-probabilities of this many tokens at each step; nil: none. With no tokens to generate, of every prompt position.
    package var logProbabilityCount: Int?
    /// Sees how the tokens are routed, on the engine's thread; nil: nothing is recorded.
    package var routingObserver: (any RoutingObserver)?

    package init(
        tokens: [Int32], start: ThinkingSplitter.State, options: GenerationOptions, logProbabilityCount: Int? = nil,
        routingObserver: (any RoutingObserver)? = nil
    ) {
        self.tokens = tokens
        self.start = start
        self.options = options
        self.logProbabilityCount = logProbabilityCount
        self.routingObserver = routingObserver
    }
}

package struct GeneratedToken: Sendable {
    package enum Phase: String, Sendable { case thinking, answer }
    package var id: Int32
    package var phase: Phase
    /// What became certain with this token, without tags and stop strings. Valid UTF-8; may be empty.
    package var text: String
    package var logProbability: Double?
    package var top: [TokenLogProbability] = []
}

/// A prompt position's distribution over what follows it.
package struct PromptPosition: Sendable {
    /// The token that follows and its log-probability; nil at the last position.
    package var next: TokenLogProbability?
    package var top: [TokenLogProbability]
}

package enum GenerationEvent: Sendable {
    case prefill(done: Int, total: Int)
    case promptLogProbabilities([PromptPosition])
    case token(GeneratedToken)
    /// The thinking budget has ended: these tokens were put in.
    case closing(ids: [Int32], text: String)
    /// The end, with text that was held back until now (it could have become a tag or a stop string).
    case finished(Statistics, remainder: GeneratedToken?)
}

/// A sequence's tokens and key-value state. Exclusive: one generation uses it at a time.
package final class Timeline: @unchecked Sendable {
    package let sequence: any SequenceState
    /// Tells the sequences of a process apart.
    package let number = Timeline.count.add(1, ordering: .relaxed).oldValue
    private static let count = Atomic<Int>(0)
    /// Tokens whose keys and values are stored; as many as `sequence.length`.
    package internal(set) var tokens: [Int32] = []

    package init(_ sequence: any SequenceState) { self.sequence = sequence }

    /// Takes over what was put into the sequence from outside: `tokens` are those whose keys and values it holds.
    func adopt(_ tokens: [Int32]) {
        precondition(tokens.count == sequence.length)
        self.tokens = tokens
    }

    /// Forgets the tokens from position `count` on.
    func truncate(to count: Int) {
        sequence.truncate(to: count)
        tokens.removeLast(tokens.count - count)
    }
}

/// One answer in the making: a state machine that the scheduler moves one step at a time, beside others in the same batch.
package final class Generation: StepWork, @unchecked Sendable {
    private let engine: Engine
    let timeline: Timeline
    private let request: GenerationRequest
    private let onEvent: @Sendable (GenerationEvent) -> Void
    private let cancelled = Atomic<Bool>(false)

    // From here on the engine thread's.
    private var sampler: Sampler
    private var decoder: StreamingDecoder?
    private var splitter: ThinkingSplitter
    private var stopMatcher: StopMatcher
    /// Tokens of the sequence that have no keys and values yet.
    private var pending: ArraySlice<Int32> = []
    /// What the current step processes of `pending`, and the token that it chose.
    private var piece: ArraySlice<Int32> = []
    private var next: GeneratedToken?
    private var hasStarted = false
    /// Answer text that arrived together with the end of thinking.
    private var carried = ""
    /// Tokens whose phase is not known yet: at most the newest, unless the model has still to decide about thinking.
    private var undecided: [GeneratedToken] = []
    private var hasChosen = false
    private var hasEnded = false
    /// Whether a stop string ended it: the text then ends before its tokens. Read when the generation has ended.
    private(set) var endedAtStopString = false
    private var promptPositions: [PromptPosition] = []
    private var statistics = Statistics()
    private var startTime = 0.0
    private var diskBytesBefore = 0
    private var expertsBefore = ExpertStatistics()
    private var headBefore = HeadStatistics()

    /// - Throws: `SigmaError(.usage)` for a prompt that is empty, too long, or has ids outside the vocabulary, and for options that make
    ///   no sense.
    package init(
        _ request: GenerationRequest, on timeline: Timeline, engine: Engine,
        onEvent: @escaping @Sendable (GenerationEvent) -> Void
    ) throws {
        try request.options.check()
        guard !request.tokens.isEmpty else {
            throw SigmaError(.usage, "the prompt is empty: there is nothing to continue")
        }
        try engine.checkVocabulary(request.tokens)
        guard request.tokens.count <= engine.contextLength else {
            throw SigmaError(
                .usage, "the prompt has \(request.tokens.count) tokens and the context is \(engine.contextLength)",
                remedy: .anyOf(["Shorten the prompt.", .raise(.contextLength, least: nil)]))
        }
        if let room = engine.backend.positionLimit(kvType: timeline.sequence.kvType), request.tokens.count > room {
            throw SigmaError(
                .unavailable,
                "the prompt has \(request.tokens.count) tokens, and the memory budget has room for the keys and values of \(room)",
                remedy: .anyOf(
                    [.raise(.memory, least: nil), "Shorten the prompt."]
                        + (timeline.sequence.kvType == .q8_0 ? [] : [.set(.kvType, to: "q8_0")])))
        }
        self.engine = engine
        self.timeline = timeline
        self.request = request
        self.onEvent = onEvent
        // A number that JSON readers which hold doubles get exactly.
        statistics.seed = request.options.seed ?? UInt64.random(in: 0..<1 << 53)
        sampler = Sampler(options: request.options, seed: statistics.seed)
        decoder = engine.tokenizer.map(StreamingDecoder.init)
        splitter = ThinkingSplitter(request.start)
        stopMatcher = StopMatcher(request.options.stopStrings)
    }

    /// Ends the generation before its next step, with reason `interrupted`. From any thread.
    package func cancel() { cancelled.store(true, ordering: .relaxed) }
    var isCancelled: Bool { cancelled.load(ordering: .relaxed) }

    // MARK: - Steps

    /// The tokens of the next step, a piece of the prompt or one token: at most `limit`, at least one.
    /// - Returns: nil if the generation has ended.
    func takePiece(limit: Int) -> ArraySlice<Int32>? {
        if !hasStarted { start() }
        if hasEnded { return nil }
        if isCancelled {
            endInterrupted()
            return nil
        }
        piece = pending.prefix(limit)
        next = nil
        // What the next token needs is more than the memory budget has: the sequence has come to its end.
        if hasChosen, !engine.backend.hasRoom(for: piece.count, in: timeline.sequence) {
            _ = finish(.context)
            return nil
        }
        return piece
    }

    /// What the next token needs of the logits of the piece's last row.
    var wantedLogits: WantedLogits {
        guard piece.count == pending.count && request.options.maximumTokens > 0 else { return .none }
        guard let count = sampler.logitCount else { return .all }
        return request.logProbabilityCount == nil ? .largest(count) : .compared(count)
    }

    func readLargest(_ largest: UnsafeBufferPointer<TokenLogit>) {
        // Others in the step may have asked for more.
        let mine = UnsafeBufferPointer(rebasing: largest.prefix(sampler.logitCount ?? largest.count))
        next = sampler.sample(largest: mine).map { GeneratedToken(id: $0, phase: .answer, text: "") }
    }

    /// Chooses the next token from `logits` [vocabulary].
    func readLogits(_ logits: UnsafeBufferPointer<Float>) {
        guard let id = sampler.sample(logits, allowed: engine.allowedTokens) else { return }
        var token = GeneratedToken(id: id, phase: .answer, text: "")
        if let count = request.logProbabilityCount {
            let logProbabilities = LogProbabilities(logits)
            token.logProbability = logProbabilities[id]
            token.top = logProbabilities.top(count)
        }
        next = token
    }

    var wantsEveryRow: Bool { wantsPromptPositions }

    var observesRouting: Bool { request.routingObserver != nil }

    /// Shows the observer how the piece was routed; before the step's result is taken in.
    func observeRouting(_ record: RoutingRecord, firstRow: Int) {
        request.routingObserver?.observe(
            RoutedTokens(
                record: record, rows: firstRow..<(firstRow + piece.count), tokens: piece, sequence: timeline.number,
                position: timeline.tokens.count))
    }

    func showProgress(share: Double) {
        guard !hasChosen else { return }
        let done = timeline.tokens.count + Int(share * Double(piece.count))
        onEvent(.prefill(done: min(done, statistics.promptTokens), total: statistics.promptTokens))
    }

    /// Takes the step's result into the sequence.
    ///
    /// - Parameters:
    ///   - seconds: what the step took.
    ///   - bytes: weights and cache that it read.
    /// - Returns: whether there is more to do.
    /// - Throws: `SigmaError(.damaged)` if no token could be chosen.
    func finishStep(seconds: Double, bytes: Int) throws -> Bool {
        let isPrompt = !hasChosen
        let isLast = piece.count == pending.count
        timeline.tokens += piece
        pending = pending.dropFirst(piece.count)
        if isPrompt {
            statistics.promptTime += seconds
            statistics.promptPieces += 1
            let total = statistics.promptTokens
            onEvent(.prefill(done: min(timeline.tokens.count, total), total: total))
        } else {
            statistics.generationTime += seconds
            statistics.generationSteps += 1
            statistics.generationBytes += bytes
        }
        guard isLast else { return true }
        if isPrompt {
            statistics.timeToFirstToken = monotonicTime() - startTime
            statistics.promptExpertReads = (engine.backend.expertStatistics - expertsBefore).reads
        }
        if request.options.maximumTokens == 0 {
            if wantsPromptPositions { onEvent(.promptLogProbabilities(promptPositions)) }
            return finish(.length)
        }
        if timeline.tokens.count >= engine.contextLength { return finish(.context) }
        guard let next else {
            throw SigmaError(
                .damaged, "no token can be chosen: the logits are not finite numbers, or no row has a token",
                path: engine.modelPath, remedy: "Check the model file with: sigma-convert --inspect FILE --verify")
        }
        return accept(next)
    }

    /// The end of a generation that was cancelled before or in a step.
    func endInterrupted() { _ = finish(.interrupted) }

    private func start() {
        hasStarted = true
        startTime = monotonicTime()
        diskBytesBefore = ProcessUsage.diskBytes
        expertsBefore = engine.backend.expertStatistics
        headBefore = engine.backend.headStatistics
        statistics.promptTokens = request.tokens.count
        // The last token's logits are needed, so at least that one is processed; all of them where every position is asked for.
        var common = 0
        if !wantsPromptPositions {
            let limit = min(timeline.tokens.count, request.tokens.count - 1)
            while common < limit && timeline.tokens[common] == request.tokens[common] { common += 1 }
        }
        timeline.truncate(to: common)
        statistics.reusedPromptTokens = common
        onEvent(.prefill(done: common, total: request.tokens.count))
        pending = request.tokens[common...]
        if splitter.state == .thinking && request.options.thinkingBudget == 0 && request.options.maximumTokens > 0 {
            if !closeThinking() { _ = finish(.context) }
        }
    }

    private var wantsPromptPositions: Bool {
        request.options.maximumTokens == 0 && request.logProbabilityCount != nil
    }

    /// Reads the distributions of all rows of the piece, whose first row in the step is `firstRow`.
    func readEveryRow(_ backend: any Backend, firstRow: Int) {
        backend.forEachRow(of: firstRow..<(firstRow + piece.count)) { row, logits in
            let distribution = LogProbabilities(logits)
            let index = piece.startIndex + row - firstRow + 1
            let next = index < request.tokens.count ? request.tokens[index] : nil
            promptPositions.append(
                PromptPosition(
                    next: next.map { TokenLogProbability(id: $0, logProbability: distribution[$0]) },
                    top: distribution.top(request.logProbabilityCount ?? 0)))
        }
    }

    // MARK: - Tokens and text

    /// Tokens of white space after which a model that was to decide about thinking is taken to be answering.
    private static let undecidedLimit = 16

    /// Takes the chosen token into the sequence and decides how it goes on.
    private func accept(_ chosen: GeneratedToken) -> Bool {
        hasChosen = true
        if engine.stopTokens.contains(chosen.id) { return finish(.stop) }
        let before = splitter.state
        var (thinking, answer) = splitter.append(decoder?.append(chosen.id) ?? "")
        undecided.append(chosen)
        let limit = min(Self.undecidedLimit, request.options.maximumTokens)
        if splitter.state == .undetermined, undecided.count >= limit { answer = beginAnswer() }
        let isStopped: Bool
        (answer, isStopped) = stopMatcher.append(answer)
        if splitter.state != .undetermined {
            // The token that completes `</think>` still counts as thinking; answer text in it goes to the next token.
            let isThinking = before == .thinking || (before == .undetermined && splitter.hasThought)
            carried += answer
            give(isThinking ? .thinking : .answer, isThinking ? thinking : takeCarried())
        }
        pending = [chosen.id]

        if isStopped { return finish(.stop, atStopString: true) }
        if statistics.answerTokens >= request.options.maximumTokens { return finish(.length) }
        if timeline.tokens.count + 1 >= engine.contextLength { return finish(.context) }
        if splitter.state == .thinking && statistics.thinkingTokens >= request.options.thinkingBudget {
            return closeThinking() || finish(.context)
        }
        return true
    }

    /// Gives out the tokens since the last, now that their phase is known; the text belongs to the newest.
    private func give(_ phase: GeneratedToken.Phase, _ text: String) {
        for index in undecided.indices {
            undecided[index].phase = phase
            if index == undecided.indices.last { undecided[index].text = text }
            if phase == .answer { statistics.answerTokens += 1 } else { statistics.thinkingTokens += 1 }
            onEvent(.token(undecided[index]))
        }
        undecided.removeAll(keepingCapacity: true)
    }

    private func takeCarried() -> String {
        defer { carried = "" }
        return carried
    }

    /// The model has not said that it thinks: what is held back is its answer.
    private func beginAnswer() -> String {
        splitter.beginAnswer()
        return splitter.finish()
    }

    /// Puts the closing phrase and `</think>` (paper, 4.3) behind what is pending, as one text.
    /// - Returns: false, and nothing is changed, if the context has no room for them and a token of the answer.
    private func closeThinking() -> Bool {
        guard let tokenizer = engine.tokenizer else { return false }
        let phrase = request.options.closingPhrase ?? engine.chatFormat?.closingPhrase ?? ""
        let ids = tokenizer.encode(phrase + "</think>", recognizingSpecials: false)
        guard timeline.tokens.count + pending.count + ids.count < engine.contextLength else { return false }
        let held = splitter.finish() + (decoder?.finish() ?? "")
        splitter.beginAnswer()
        statistics.thinkingWasCut = true
        pending += ids
        onEvent(.closing(ids: ids, text: held + phrase))
        return true
    }

    private func finish(_ reason: FinishReason, atStopString: Bool = false) -> Bool {
        hasEnded = true
        endedAtStopString = atStopString
        statistics.reason = reason
        statistics.diskBytes = ProcessUsage.diskBytes - diskBytesBefore
        statistics.setExperts(engine.backend.expertStatistics - expertsBefore)
        statistics.setHead(engine.backend.headStatistics - headBefore)
        statistics.peakMemoryBytes = ProcessUsage.peakMemory
        if splitter.state == .undetermined { carried += stopMatcher.append(beginAnswer()).text }
        give(.answer, "")
        // Held back text counts after all, unless it lies behind a stop string.
        var phase = GeneratedToken.Phase.answer
        var text = carried
        if !atStopString {
            let (thinking, answer) = splitter.append(decoder?.finish() ?? "")
            let rest = splitter.finish()
            if splitter.state == .thinking {
                phase = .thinking
                text = thinking + rest
            } else {
                text += stopMatcher.append(answer + rest).text + stopMatcher.finish()
            }
        }
        let remainder = text.isEmpty ? nil : GeneratedToken(id: -1, phase: phase, text: text)
        onEvent(.finished(statistics, remainder: remainder))
        return false
    }
}
