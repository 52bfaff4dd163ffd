import Synchronization

/// What is asked of one generation.
package struct GenerationRequest: Sendable {
    package var tokens: [Int32]
    /// Where the text begins; `.answer` for raw prompts, which have no thinking.
    package var start: ThinkingSplitter.State
    package var options: GenerationOptions
    /// Log-probabilities of this many tokens at each step; nil: none. With no tokens to generate, of every prompt position.
    package var logProbabilityCount: Int?
    /// Whether the log-probabilities are also those of every prompt position, before the answer's.
    package var scoresPrompt: Bool
    /// With whom beginnings are shared; nil: with nobody, and none is kept.
    package var sharing: PrefixSharing?
    /// What of it is kept for others.
    package var keeping = PrefixKeeping.promptAndAnswer
    /// Sees how the tokens are routed, on the engine's thread; nil: nothing is recorded.
    package var routingObserver: (any RoutingObserver)?
    /// What the answer, behind its thinking, must be; nil: anything.
    package var constraint: TokenConstraint?

    package init(
        tokens: [Int32], start: ThinkingSplitter.State, options: GenerationOptions, logProbabilityCount: Int? = nil,
        scoresPrompt: Bool = false, sharing: PrefixSharing? = nil, routingObserver: (any RoutingObserver)? = nil,
        constraint: TokenConstraint? = nil
    ) {
        self.tokens = tokens
        self.start = start
        self.options = options
        self.logProbabilityCount = logProbabilityCount
        self.scoresPrompt = scoresPrompt
        self.sharing = sharing
        self.routingObserver = routingObserver
        self.constraint = constraint
    }
}

/// One answer in the making: a state machine that the scheduler moves one step at a time, beside others in the same batch.
package final class Generation: StepWork, @unchecked Sendable {
    private let engine: Engine
    let timeline: Timeline
    private let request: GenerationRequest
    private let onEvent: @Sendable (AnswerEvent) -> Void
    /// Whether whoever takes the events can take more.
    private let hasReader: @Sendable () -> Bool
    private let cancelled = Atomic<Bool>(false)
    /// Tokens that the sequence may have: the context, or what memory has room for.
    private let positionLimit: Int

    // From here on the engine thread's.
    private var sampler: Sampler
    private var text: AnswerText
    private var guide: AnswerGuide?
    private var additions = LogitAdditions()
    /// Generated tokens and how often, where penalties want to know.
    private var counts: [Int32: Int] = [:]
    /// Tokens of the sequence that have no keys and values yet.
    private var pending: ArraySlice<Int32> = []
    /// What the current step processes of `pending`, and the token that it chose.
    private var piece: ArraySlice<Int32> = []
    private var next: AnswerToken?
    private var hasStarted = false
    private var hasChosen = false
    private var hasEnded = false
    /// Whether a stop string ended it: the text then ends before its tokens. Read when the generation has ended.
    package private(set) var endedAtStopString = false
    private var promptPositions: [PromptPosition?] = []
    private var statistics = Statistics()
    private var startTime = 0.0
    private var meter: ActivityMeter?
    private var promptExpertReads = 0

    /// - Parameters:
    ///   - onEvent: called on the engine's thread: it must be quick.
    ///   - hasReader: asked there before every step; without a reader that can take more, there is none.
    /// - Throws: `SigmaError(.usage)` for a prompt that is empty, too long, or has ids outside the vocabulary, and for options that make
    ///   no sense; `.unavailable` for a prompt that the memory budget has no room for.
    package init(
        _ request: GenerationRequest, on timeline: Timeline, engine: Engine,
        hasReader: @escaping @Sendable () -> Bool = { true }, onEvent: @escaping @Sendable (AnswerEvent) -> Void
    ) throws {
        try request.options.check()
        guard !request.tokens.isEmpty else {
            throw SigmaError(.usage, "the prompt is empty: there is nothing to continue")
        }
        try engine.checkVocabulary(request.tokens)
        positionLimit = try engine.positionLimit(
            kvType: timeline.sequence.kvType, promptTokens: request.tokens.count)
        self.engine = engine
        self.timeline = timeline
        self.request = request
        self.onEvent = onEvent
        self.hasReader = hasReader
        // A number that JSON readers which hold doubles get exactly.
        statistics.seed = request.options.seed ?? UInt64.random(in: 0..<1 << 53)
        sampler = Sampler(options: request.options, seed: statistics.seed)
        text = AnswerText(request, engine.tokenizer)
        guide = request.constraint.map { AnswerGuide($0, start: request.start.forGuide) }
        for (id, bias) in request.options.logitBias { additions.add(Float(bias), to: id) }
    }

    /// Ends the generation before its next step, with reason `interrupted`. From any thread.
    package func cancel() {
        cancelled.store(true, ordering: .relaxed)
        engine.wake()
    }
    var isCancelled: Bool { cancelled.load(ordering: .relaxed) }
    var isPaused: Bool { !hasReader() }
    var routingObserver: (any RoutingObserver)? { request.routingObserver }
    var isGenerating: Bool { hasChosen }

    // MARK: - Steps

    func pendingCount() -> Int {
        if !hasStarted { start() }
        return hasEnded ? 0 : pending.count
    }

    func takePiece(_ count: Int) -> ArraySlice<Int32> {
        piece = pending.prefix(count)
        next = nil
        return piece
    }

    /// Whether every row of the prompt, which is not read yet, has its distribution shown.
    private var wantsPromptPositions: Bool {
        !hasChosen && request.logProbabilityCount != nil
            && (request.scoresPrompt || request.options.maximumTokens == 0)
    }

    /// All rows where every prompt position is asked for, else the last one, once it has all tokens before it.
    var wishedRows: Range<Int> {
        if wantsPromptPositions { return 0..<piece.count }
        guard piece.count == pending.count, request.options.maximumTokens > 0 else { return 0..<0 }
        return piece.count - 1..<piece.count
    }

    func wish(row: Int) -> (wish: LogitRequest.Wish, mask: TokenMask) {
        if wantsPromptPositions, !isChosenFrom(row) { return (.all, engine.choosable) }
        let mask = mask
        return (sampler.wish(additions, mask: mask, showsAll: request.logProbabilityCount != nil), mask)
    }

    /// What may be chosen next.
    private var mask: TokenMask { guide?.mask() ?? engine.choosable }

    func take(row: Int, _ logits: RowLogits) {
        if wantsPromptPositions { takePromptPosition(row, logits) }
        guard isChosenFrom(row) else { return }
        guard let id = sampler.sample(logits, mask: mask, additions: additions) else { return }
        var token = AnswerToken(id: id, phase: .answer, text: "")
        if let count = request.logProbabilityCount, case .all(let all) = logits {
            let logProbabilities = LogProbabilities(all)
            token.logProbability = logProbabilities[id]
            token.top = logProbabilities.top(count)
        }
        next = token
    }

    /// Whether a token is chosen from the row of the piece: it has all tokens before it.
    private func isChosenFrom(_ row: Int) -> Bool {
        request.options.maximumTokens > 0 && row == pending.count - 1
    }

    /// Reads the distribution of what follows a row of the prompt.
    private func takePromptPosition(_ row: Int, _ logits: RowLogits) {
        guard case .all(let all) = logits else { return }
        let distribution = LogProbabilities(all)
        let index = piece.startIndex + row
        // Rows behind the prompt's are what was put in to end the thinking.
        guard index < request.tokens.count else { return }
        let next = index + 1 < request.tokens.count ? request.tokens[index + 1] : nil
        if promptPositions.isEmpty { promptPositions = Array(repeating: nil, count: request.tokens.count) }
        promptPositions[index] = PromptPosition(
            next: next.map { TokenLogProbability(id: $0, logProbability: distribution[$0]) },
            top: distribution.top(request.logProbabilityCount ?? 0))
    }

    var keptRows: Int { piece.count }

    func showProgress(share: Double) {
        guard !hasChosen else { return }
        let done = timeline.tokens.count + Int(share * Double(piece.count))
        onEvent(.prefill(done: min(done, statistics.promptTokens), total: statistics.promptTokens))
    }

    /// - Throws: `SigmaError(.damaged)` if no token could be chosen.
    func finishStep(_ cost: StepCost) throws -> Bool {
        let isPrompt = !hasChosen
        let isLast = piece.count == pending.count
        pending = pending.dropFirst(piece.count)
        if isPrompt {
            statistics.promptTime += cost.seconds
            statistics.promptPieces += 1
            let total = statistics.promptTokens
            onEvent(.prefill(done: min(timeline.tokens.count, total), total: total))
        } else {
            statistics.generationTime += cost.seconds
            statistics.generationSteps += 1
            statistics.generationBytes += cost.bytes
        }
        guard isLast else { return true }
        if isPrompt {
            statistics.timeToFirstToken = monotonicTime() - startTime
            promptExpertReads = meter?.expertReads ?? 0
        }
        if isPrompt, request.keeping != .nothing { keepPrefix() }
        if wantsPromptPositions {
            onEvent(.promptLogProbabilities(promptPositions.compactMap { $0 }))
            promptPositions = []
        }
        if request.options.maximumTokens == 0 { return finish(.length) }
        if timeline.tokens.count >= positionLimit { return finish(.context) }
        guard let next else {
            if mask.count == 0, guide != nil { throw Self.deadEnd }
            throw SigmaError(
                .damaged, "no token can be chosen: the logits are not finite numbers, or no row has a token",
                path: engine.modelPath, remedy: "Check the model file with: sigma-convert --inspect FILE --verify")
        }
        return accept(next)
    }

    /// An intersection or complement of expressions whose emptiness was too hard to find out.
    private static var deadEnd: SigmaError {
        SigmaError(
            .usage, "the constraint allows no token behind what was generated, and not the end",
            remedy: "Write the constraint with fewer intersections and complements of patterns.")
    }

    func endInterrupted() { if !hasEnded { _ = finish(.interrupted) } }

    func endForWantOfMemory() throws {
        guard hasChosen else { throw engine.noRoom(for: request.tokens.count, timeline.sequence.kvType) }
        _ = finish(.context)
    }

    private func start() {
        hasStarted = true
        startTime = monotonicTime()
        meter = ActivityMeter(engine.backend)
        statistics.promptTokens = request.tokens.count
        // The last token's logits are needed, so at least that one is processed; all of them where every position is asked for.
        var common = 0
        if !wantsPromptPositions {
            let limit = min(timeline.tokens.count, request.tokens.count - 1)
            while common < limit && timeline.tokens[common] == request.tokens[common] { common += 1 }
        }
        timeline.truncate(to: common)
        takePrefix()
        common = timeline.tokens.count
        statistics.reusedPromptTokens = timeline.sequence.length
        onEvent(.prefill(done: timeline.sequence.length, total: request.tokens.count))
        pending = request.tokens[common...]
        if text.isThinking && request.options.thinkingBudget == 0 && request.options.maximumTokens > 0 {
            if !closeThinking() { _ = finish(.context) }
        }
    }

    // MARK: - Shared beginnings

    /// Begins with what another request has computed, where that is more than the timeline has.
    private func takePrefix() {
        guard let sharing = request.sharing, timeline.tokens.count < request.tokens.count - 1,
            let match = engine.prefixes.longest(
                of: request.tokens, kvType: timeline.sequence.kvType, sharing: sharing,
                topCount: wantsPromptPositions ? request.logProbabilityCount : nil),
            match.prefix.length > timeline.sequence.length
        else { return }
        timeline.begin(with: match.prefix, of: request.tokens)
        guard wantsPromptPositions else { return }
        promptPositions = match.positions
        promptPositions += Array(repeating: nil, count: request.tokens.count - match.positions.count)
    }

    /// Keeps what the timeline has for other requests: when the prompt was read, and at the end.
    private func keepPrefix() {
        guard let sharing = request.sharing, timeline.sequence.length == timeline.tokens.count else { return }
        var scores: PrefixCache.Scores?
        if wantsPromptPositions, let topCount = request.logProbabilityCount {
            scores = PrefixCache.Scores(positions: promptPositions.compactMap { $0 }, topCount: topCount)
        }
        engine.prefixes.insert(
            timeline.tokens, timeline.sequence.prefix(timeline.sequence.length), kvType: timeline.sequence.kvType,
            sharing: sharing, scores: scores)
    }

    // MARK: - Tokens

    /// Takes the chosen token into the sequence and decides how it goes on.
    private func accept(_ chosen: AnswerToken) -> Bool {
        hasChosen = true
        if engine.stopTokens.contains(chosen.id) {
            statistics.stopToken = chosen
            return finish(.stop)
        }
        penalize(chosen.id)
        let isStopped = text.append(chosen) { give($0) }
        pending = [chosen.id]
        guide?.append(chosen.id)
        if text.isAnswer { guide?.beginAnswer() }

        if isStopped { return finish(.stop, atStopString: true) }
        if guide?.mustEnd() == true { return finish(.stop) }
        if statistics.answerTokens >= request.options.maximumTokens { return finish(.length) }
        if timeline.tokens.count + 1 >= positionLimit { return finish(.context) }
        if text.isThinking && statistics.thinkingTokens >= request.options.thinkingBudget {
            return closeThinking() || finish(.context)
        }
        return true
    }

    private func give(_ token: AnswerToken) {
        if token.phase == .answer { statistics.answerTokens += 1 } else { statistics.thinkingTokens += 1 }
        onEvent(.token(token))
    }

    private func penalize(_ id: Int32) {
        let options = request.options
        guard options.frequencyPenalty != 0 || options.presencePenalty != 0 else { return }
        let before = counts[id, default: 0]
        counts[id] = before + 1
        additions.add(Float(-options.frequencyPenalty - (before == 0 ? options.presencePenalty : 0)), to: id)
    }

    /// Puts the closing phrase and `</think>` (paper, 4.3) behind what is pending, as one text.
    /// - Returns: false, and nothing is changed, if the context has no room for them and a token of the answer.
    private func closeThinking() -> Bool {
        guard let tokenizer = engine.tokenizer else { return false }
        let phrase = request.options.closingPhrase ?? engine.chatFormat?.closingPhrase ?? ""
        let ids = tokenizer.encode(phrase + "</think>", recognizingSpecials: false)
        guard timeline.tokens.count + pending.count + ids.count < positionLimit else { return false }
        statistics.thinkingWasCut = true
        pending += ids
        guide?.endThinking()
        onEvent(.closing(ids: ids, text: text.closeThinking() + phrase))
        return true
    }

    private func finish(_ reason: FinishReason, atStopString: Bool = false) -> Bool {
        hasEnded = true
        // What it generated can be the beginning of the conversation's next request.
        if hasChosen, request.keeping == .promptAndAnswer { keepPrefix() }
        endedAtStopString = atStopString
        statistics.reason = reason
        let remainder = text.finish(atStopString: atStopString) { give($0) }
        if atStopString { statistics.stopString = text.stopString }
        if let meter { statistics.engine = meter.activity(promptExpertReads: promptExpertReads) }
        onEvent(.finished(statistics, remainder: remainder))
        return false
    }
}

extension ThinkingSplitter.State {
    /// The same in a constraint's words.
    fileprivate var forGuide: AnswerGuide.Start {
        switch self {
        case .undetermined: .undetermined
        case .thinking: .thinking
        case .answer: .answer
        }
    }
}
