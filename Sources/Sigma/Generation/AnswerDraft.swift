/// Guesses for one answer's next tokens: where they come from, and how they fare.
struct AnswerDraft {
    let mode: DraftMode
    private let prediction: [Int32]
    private let source: (any DraftSource)?
    private let tokenizer: Tokenizer?
    private let promptCount: Int
    private let planner: DraftPlanner
    /// Made with the first guess.
    private var lookup: DraftLookup?
    /// Tokens of the sequence that the lookup has.
    private var known = 0
    private var chances = DraftChances()
    /// The guesses for this step, computed or not; and room for another source's.
    private(set) var guess = Draft()
    private var other = Draft()

    /// Bytes that a constraint may force at once.
    private static let forcedBytes = 96

    init(_ request: GenerationRequest, _ engine: Engine) {
        mode = engine.backend.rowsAreIndependent && request.options.maximumTokens > 1 ? request.options.drafts : .off
        prediction = request.prediction
        source = request.draftSource
        tokenizer = engine.tokenizer
        promptCount = request.tokens.count
        planner = engine.draftPlanner
    }

    mutating func removeGuess() { guess.removeAll() }

    /// Guesses what follows the newest token.
    ///
    /// - Parameters:
    ///   - tokens: the sequence's, but for the newest.
    ///   - course: of the answer behind the newest.
    mutating func propose(after tokens: [Int32], newest: Int32, _ course: AnswerCourse) -> DraftPlanner.Candidate? {
        guess.removeAll()
        guard mode != .off else { return nil }
        let limit = DraftPlanner.guessLimit
        if let source {
            for token in source.guess(after: tokens, newest: newest, limit: limit) { guess.append(token, .given) }
        } else {
            read(tokens, newest, course)
            lookup!.guess(limit, into: &guess)
            if course.text.isAnswer {
                lookup!.predict(limit, into: &other)
                takeBetter()
                force(course, limit)
                takeBetter()
            }
        }
        guard !guess.tokens.isEmpty else { return nil }
        var candidate = DraftPlanner.Candidate(mode: mode, chances: [])
        chances.chances(of: guess, into: &candidate.chances)
        return candidate
    }

    private mutating func read(_ tokens: [Int32], _ newest: Int32, _ course: AnswerCourse) {
        if lookup == nil {
            lookup = DraftLookup(prediction: prediction)
            chances = planner.chances.inherited
        }
        for index in known..<tokens.count + 1 {
            lookup!.append(
                index < tokens.count ? tokens[index] : newest, isAnswer: index >= promptCount && course.text.isAnswer)
        }
        known = tokens.count + 1
    }

    private mutating func takeBetter() {
        if chances.expectation(of: other) > chances.expectation(of: guess) { swap(&guess, &other) }
    }

    /// What the constraint forces, as the tokenizer would write it.
    private mutating func force(_ course: AnswerCourse, _ limit: Int) {
        other.removeAll()
        guard let tokenizer, let bytes = course.guide?.forcedBytes(limit: Self.forcedBytes), !bytes.isEmpty else {
            return
        }
        for token in tokenizer.encode(bytes, recognizingSpecials: false).prefix(limit) {
            other.append(token, .constraint)
        }
    }

    /// The tokens that were chosen: guesses up to the first that was wrong count, computed or not.
    mutating func note(_ chosen: some Sequence<Int32>) {
        for ((guess, kind), token) in zip(zip(guess.tokens, guess.kinds), chosen) {
            chances.note(kind, held: guess == token)
            planner.chances.note(kind, held: guess == token)
            if guess != token { break }
        }
    }
}

/// Guesses from elsewhere: for measurements of a known acceptance.
package protocol DraftSource: Sendable {
    /// At most `limit` guesses for what follows a sequence, whose last token is `newest`. Called on the engine's thread.
    func guess(after tokens: [Int32], newest: Int32, limit: Int) -> [Int32]
}
