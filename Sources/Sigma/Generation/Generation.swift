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
    /// What the answer will probably repeat: a source of drafts.
    package var prediction: [Int32] = []
    /// Guesses instead of what the engine finds; nil: those.
    package var draftSource: (any DraftSource)?

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
    private var course: AnswerCourse
    private var draft: AnswerDraft
    /// Tokens of the sequence that have no keys and values yet.
    private var pending: ArraySlice<Int32> = []
    /// What the current step processes of `pending`, with the guesses behind it.
    private var piece: ArraySlice<Int32> = []
    /// A row from which a token is chosen: the last of `pending`, then those of the guesses.
    private struct Choice {
        var mask: TokenMask
        var additions: LogitAdditions
        var token: AnswerToken?
    }
    private var choices: [Choice] = []
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
        statistics.hasPrediction = !request.prediction.isEmpty
        sampler = Sampler(options: request.options, seed: statistics.seed)
        course = AnswerCourse(request, engine, positionLimit: positionLimit)
        draft = AnswerDraft(request, engine)
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
        choices.removeAll(keepingCapacity: true)
        draft.removeGuess()
        if count == pending.count, request.options.maximumTokens > 0 {
            choices.append(Choice(mask: course.mask(), additions: course.additions))
        }
        return piece
    }

    func proposeDraft() -> DraftPlanner.Candidate? {
        guard hasChosen, pending.count == 1, let newest = pending.first else { return nil }
        return draft.propose(after: timeline.tokens, newest: newest, course)
    }

    /// Guesses up to the first that may not be chosen, or behind which the answer would not simply go on: what ends an answer, or its thinking, is
    /// never computed ahead.
    func takeDraft(_ count: Int) -> ArraySlice<Int32> {
        var walk = course
        for token in draft.guess.tokens.prefix(count) {
            guard token >= 0, token < engine.vocabularySize, choices[choices.count - 1].mask.allows(Int(token)) else {
                break
            }
            let next = walk.append(
                AnswerToken(id: token, phase: .answer, text: ""), position: timeline.tokens.count + choices.count
            ) { _ in }
            guard next == .token else { break }
            choices.append(Choice(mask: walk.mask(), additions: walk.additions))
        }
        piece = (pending + draft.guess.tokens.prefix(choices.count - 1))[...]
        return piece
    }

    /// Whether every row of the prompt, which is not read yet, has its distribution shown.
    private var wantsPromptPositions: Bool {
        !hasChosen && request.logProbabilityCount != nil
            && (request.scoresPrompt || request.options.maximumTokens == 0)
    }

    /// Row of the first choice.
    private var firstChoice: Int { pending.count - 1 }

    /// All rows where every prompt position is asked for, else those from which a token is chosen.
    var wishedRows: Range<Int> {
        if wantsPromptPositions { return 0..<piece.count }
        return choices.isEmpty ? 0..<0 : firstChoice..<firstChoice + choices.count
    }

    func wish(row: Int) -> (wish: LogitRequest.Wish, mask: TokenMask) {
        guard !choices.isEmpty, row >= firstChoice else { return (.all, engine.choosable) }
        let choice = choices[row - firstChoice]
        return (
            sampler.wish(choice.additions, mask: choice.mask, showsAll: request.logProbabilityCount != nil), choice.mask
        )
    }

    func take(row: Int, _ logits: RowLogits) {
        if wantsPromptPositions { takePromptPosition(row, logits) }
        guard !choices.isEmpty, row >= firstChoice else { return }
        let index = row - firstChoice
        guard
            let id = sampler.sample(
                logits, mask: choices[index].mask, additions: choices[index].additions, ahead: index)
        else { return }
        var token = AnswerToken(id: id, phase: .answer, text: "")
        if let count = request.logProbabilityCount, case .all(let all) = logits {
            let logProbabilities = LogProbabilities(all)
            token.logProbability = logProbabilities[id]
            token.top = logProbabilities.top(count)
        }
        choices[index].token = token
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

    /// Guesses that the step computes, and those of them that equal what was chosen in their place.
    private var guessCount: Int { max(0, choices.count - 1) }
    private var rightGuesses: Int {
        let guesses = piece.suffix(guessCount)
        return zip(guesses, choices).prefix { $0 == $1.token?.id }.count
    }

    var keptRows: Int { piece.count - guessCount + rightGuesses }

    func showProgress(share: Double) {
        guard !hasChosen else { return }
        let done = timeline.tokens.count + Int(share * Double(piece.count))
        onEvent(.prefill(done: min(done, statistics.promptTokens), total: statistics.promptTokens))
    }

    /// - Throws: `SigmaError(.damaged)` if no token could be chosen.
    func finishStep(_ cost: StepCost) throws -> Bool {
        let isPrompt = !hasChosen
        let right = rightGuesses
        let isLast = piece.count - guessCount == pending.count
        pending = pending.dropFirst(piece.count - guessCount)
        if isPrompt {
            statistics.promptTime += cost.seconds
            statistics.promptPieces += 1
            let total = statistics.promptTokens
            onEvent(.prefill(done: min(timeline.tokens.count, total), total: total))
        } else {
            statistics.generationTime += cost.seconds
            statistics.generationSteps += 1
            statistics.generationBytes += cost.bytes
            statistics.draftedTokens += guessCount
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
        draft.note(choices.prefix(right + 1).lazy.compactMap { $0.token?.id })
        return try accept(choices.prefix(right + 1), from: timeline.tokens.count - right)
    }

    /// Takes the chosen tokens in, one by one as if each had had its own step.
    /// - Parameter position: of the first in the sequence. The sequence has all of them but the last.
    private func accept(_ chosen: ArraySlice<Choice>, from position: Int) throws -> Bool {
        for (index, choice) in chosen.enumerated() {
            if index > 0 {
                if isCancelled {
                    timeline.truncate(to: position + index - 1)
                    return true
                }
                statistics.acceptedDraftTokens += 1
            }
            if position + index >= positionLimit { return finish(.context) }
            guard let token = choice.token else {
                if choice.mask.count == 0, course.guide != nil { throw Self.deadEnd }
                throw SigmaError(
                    .damaged, "no token can be chosen: the logits are not finite numbers, or no row has a token",
                    path: engine.modelPath,
                    remedy: "Check the model file with: sigma-convert --inspect FILE --verify")
            }
            let goesOn = accept(token, position: position + index)
            precondition(goesOn || index == chosen.count - 1, "a draft ended an answer")
            if !goesOn { return false }
        }
        return true
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
        if course.text.isThinking && request.options.thinkingBudget == 0 && request.options.maximumTokens > 0 {
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
        guard let sharing = request.sharing, timeline.sequence.length == timeline.tokens.count,
            timeline.restoredLength == 0
        else { return }
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
    private func accept(_ chosen: AnswerToken, position: Int) -> Bool {
        hasChosen = true
        sampler.advance(by: 1)
        let next = course.append(chosen, position: position) { onEvent(.token($0)) }
        if engine.stopTokens.contains(chosen.id) { statistics.stopToken = chosen } else { pending = [chosen.id] }
        switch next {
        case .token: return true
        case .closing: return closeThinking() || finish(.context)
        case .end(let reason, let atStopString): return finish(reason, atStopString: atStopString)
        }
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
        onEvent(.closing(ids: ids, text: course.closeThinking() + phrase))
        return true
    }

    private func finish(_ reason: FinishReason, atStopString: Bool = false) -> Bool {
        hasEnded = true
        // What it generated can be the beginning of the conversation's next request.
        if hasChosen, request.keeping == .promptAndAnswer { keepPrefix() }
        endedAtStopString = atStopString
        statistics.reason = reason
        let remainder = course.finish(atStopString: atStopString) { onEvent(.token($0)) }
        if atStopString { statistics.stopString = course.text.stopString }
        statistics.thinkingTokens = course.thinkingTokens
        statistics.answerTokens = course.answerTokens
        if let meter { statistics.engine = meter.activity(promptExpertReads: promptExpertReads) }
        onEvent(.finished(statistics, remainder: remainder))
        return false
    }
}
