// The conversation that a session holds: reading and changing it.

extension Session {
    /// The conversation so far, oldest first.
    public var turns: [Turn] { state.withLock { $0.turns } }

    /// How answers are made, unless a request says otherwise. A change counts from the next request on.
    public var options: GenerationOptions {
        get { state.withLock { $0.options } }
        set { state.withLock { $0.options = newValue } }
    }

    /// The system prompt; empty: none. A change counts from the next request on, which then reads the whole conversation again.
    public var instructions: String {
        get { state.withLock { $0.instructions } }
        set { state.withLock { $0.instructions = newValue } }
    }

    /// Tokens whose keys and values are held, and the bytes that this takes (in blocks of 256 tokens).
    public var cachedTokens: (count: Int, bytes: Int) {
        // Not while they grow: the engine's thread owns them then.
        state.withLock { state in
            guard state.requests.isIdle, let timeline = state.timeline, timeline.tryToUse() else { return (0, 0) }
            defer { timeline.endUse() }
            return (timeline.sequence.length, timeline.sequence.byteCount)
        }
    }

    /// Drops the turns from index `count` on. The next request computes what differs from what is in the cache.
    /// - Throws: `SigmaError(.usage)` while the session makes an answer, or has no `count` turns.
    public func rewind(to count: Int) throws {
        try change { state in
            guard (0...state.turns.count).contains(count) else {
                throw SigmaError(.usage, "the conversation has \(state.turns.count) turns, and not \(count)")
            }
            state.turns.removeSubrange(count...)
        }
    }

    /// Puts another history in the place of this one. What both have in common at their beginning is not computed again.
    /// - Throws: `SigmaError(.usage)` while the session makes an answer, or unless questions and answers alternate and an answer comes last.
    public func setTurns(_ turns: [Turn]) throws {
        for (index, turn) in turns.enumerated() where turn.role != (index % 2 == 0 ? .user : .assistant) {
            throw SigmaError(
                .usage,
                "turn \(index) is the \(turn.role.rawValue)'s: a history begins with a question, and questions and answers alternate"
            )
        }
        guard turns.count % 2 == 0 else {
            throw SigmaError(
                .usage, "the history ends with a question", remedy: "Leave it out, and ask it with stream(to:).")
        }
        try change { $0.turns = turns }
    }

    /// Forgets the conversation and frees its key-value cache; instructions and options stay.
    /// - Throws: `SigmaError(.usage)` while the session makes an answer.
    public func clear() throws {
        try change { state in
            state.turns = []
            state.timeline = nil
        }
    }

    /// Takes out of the cache what the history no longer says in any form: what was taken back is not saved.
    func forgetWhatIsGone(_ state: inout State) {
        guard let timeline = state.timeline else { return }
        timeline.beginUse()
        defer { timeline.endUse() }
        let common = [false, true].map { keepsThinking in
            var options = state.options
            options.keepsThinking = keepsThinking
            // A model that cannot make the prompt has no conversation.
            let history = try? engine.prompt(
                turns: state.turns, system: state.instructions, options: options, asksForAnswer: false)
            return zip(timeline.tokens, history?.tokens ?? []).prefix { $0 == $1 }.count
        }
        timeline.truncate(to: common.max() ?? 0)
    }

    private func change(_ body: (inout State) throws -> Void) throws {
        try state.withLock { state in
            guard state.requests.isIdle else { throw Self.busy }
            try body(&state)
        }
    }

    /// Keeps requests away while `body` works outside the lock.
    /// - Throws: `SigmaError(.usage)` while the session is busy; what `body` throws.
    func whileChanging<Result>(_ body: () throws -> Result) throws -> Result {
        try state.withLock { state in
            guard state.requests.beginChange() else { throw Self.busy }
        }
        defer { _ = state.withLock { $0.requests.end() } }
        return try body()
    }
}
