import SampleFiles
import Sigma
import Testing

/// Turns: what is computed again, what becomes part of the conversation, and how it is changed.
@Suite struct ConversationTests {
    static let direct = GenerationOptions(temperature: 0, thinks: false)
    static let thinking = GenerationOptions(temperature: 0)

    /// Tokens that the turn computed of its prompt.
    static func computed(_ answer: Answer) throws -> Int {
        let statistics = try #require(answer.statistics)
        return statistics.promptTokens - statistics.reusedPromptTokens
    }

    /// Tokens between the end of an answer and the beginning of the next: the stop token that closes the turn, the message with its
    /// markup, the assistant's header and what opens the answer.
    static func ownTokens(_ engine: Engine, _ message: String, thinks: Bool) throws -> Int {
        let alone = try engine.prompt(turns: [Turn(.user, message)], system: "", thinks: thinks).tokens
        let nothing = try engine.prompt(
            turns: [], system: "", options: GenerationOptions(thinks: thinks), asksForAnswer: false)
        return alone.count - nothing.tokens.count
    }

    @Test func aSecondTurnComputesOnlyItsOwnTokens() async throws {
        let engine = try DemoModel.engine()
        let session = DemoModel.session(engine, options: Self.direct)
        let first = try await Answer(session, "What is 347 + 586?")
        #expect(first.statistics?.reusedPromptTokens == 0)
        let second = try await Answer(session, "What is 12 + 9?")
        // The answer's last token has been chosen but not computed, and the stop token stands behind it.
        let own = try Self.ownTokens(engine, "What is 12 + 9?", thinks: false)
        let computed = try Self.computed(second)
        #expect(computed == own + 1, "\(computed) tokens computed, \(own) in the turn")
        #expect(second.statistics!.promptTokens > 2 * own)

        // Nothing changes by it: the same history, computed from nothing.
        let fresh = DemoModel.session(try DemoModel.engine(), options: Self.direct)
        try fresh.setTurns(Array(session.turns.prefix(2)))
        let again = try await Answer(fresh, "What is 12 + 9?")
        #expect(again == second)
        #expect(again.statistics?.reusedPromptTokens == 0)
    }

    /// Sessions of one model share the beginning of their first prompts: instructions are computed once.
    @Test func firstPromptsShareTheirBeginning() async throws {
        let engine = try DemoModel.engine()
        let first = try await Answer(DemoModel.session(engine, options: Self.direct), "What is 12 + 30?")
        let second = try await Answer(DemoModel.session(engine, options: Self.direct), "What is 12 + 39?")
        let alone = try await Answer(DemoModel.session(DemoModel.engine(), options: Self.direct), "What is 12 + 39?")
        #expect(first.statistics?.reusedPromptTokens == 0)
        #expect(second == alone)
        #expect(second.statistics!.reusedPromptTokens > second.statistics!.promptTokens / 2)
    }

    @Test func earlierThinkingIsDroppedUnlessItIsKept() async throws {
        let engine = try DemoModel.engine()
        for keeps in [false, true] {
            var options = Self.thinking
            options.keepsThinking = keeps
            let session = DemoModel.session(engine, options: options)
            let first = try await Answer(session, "What is 347 + 586?")
            try #require(!first.reasoning.isEmpty)
            #expect(session.turns[1].reasoning == first.reasoning)
            let second = try await Answer(session, "What is 12 + 9?")
            let history = try engine.prompt(turns: session.turns, system: "", options: options, asksForAnswer: false)
            let text = String(
                decoding: engine.tokenizer!.decode(history.tokens, specials: .named), as: UTF8.self)
            let own = try Self.ownTokens(engine, "What is 12 + 9?", thinks: true)
            if keeps {
                #expect(text.contains("<think>" + first.reasoning + "</think>" + first.text))
                #expect(try Self.computed(second) == own + 1)
            } else {
                #expect(!text.contains(first.reasoning))
                #expect(text.contains("<think></think>" + first.text))
                #expect(try Self.computed(second) > own + 1)
            }
        }
    }

    @Test func aPrewarmedTurnComputesOnlyItsOwnTokens() async throws {
        let engine = try DemoModel.engine()
        let session = DemoModel.session(engine, options: Self.thinking)
        let other = DemoModel.session(engine, options: Self.thinking)
        for session in [session, other] { _ = try await Answer(session, "What is 347 + 586?") }
        try await session.prewarm()
        let warm = try await Answer(session, "What is 12 + 9?")
        let cold = try await Answer(other, "What is 12 + 9?")
        #expect(warm == cold)
        #expect(try Self.computed(warm) == Self.ownTokens(engine, "What is 12 + 9?", thinks: true))
        #expect(try Self.computed(cold) > Self.computed(warm))
        // A second time there is nothing to do.
        try await session.prewarm()
        let cached = session.cachedTokens.count
        try await session.prewarm()
        #expect(session.cachedTokens.count == cached && cached > 0)
    }

    @Test func aRequestTakesThePlaceOfPrewarming() async throws {
        let engine = try DemoModel.engine(rowLimit: 4)
        let reference = DemoModel.session(engine)
        let session = DemoModel.session(engine)
        for session in [reference, session] { _ = try await Answer(session, "What is 347 + 586?") }
        let expected = try await Answer(reference, "What is 12 + 9?")
        async let warming: Void = session.prewarm()
        for _ in 0..<3 { await Task.yield() }
        #expect(try await Answer(session, "What is 12 + 9?") == expected)
        try await warming
        #expect(session.turns == reference.turns)
    }

    @Test func anEditedTurnReusesTheCommonBeginning() async throws {
        let engine = try DemoModel.engine()
        let session = DemoModel.session(engine, options: Self.direct)
        for question in ["What is 1 + 2?", "What is 3 + 4?", "What is 5 + 6?"] {
            _ = try await Answer(session, question)
        }
        let before = session.turns
        #expect(before.count == 6)
        try session.rewind(to: 2)
        let edited = try await Answer(session, "What is 30 + 4?")
        #expect(session.turns.count == 4 && Array(session.turns.prefix(2)) == Array(before.prefix(2)))
        // Up to the edited number everything was there: the first turn, and the second's beginning.
        let first = try engine.prompt(
            turns: Array(before.prefix(2)), system: "", options: Self.direct, asksForAnswer: false)
        #expect(try #require(edited.statistics).reusedPromptTokens > first.tokens.count)
        let fresh = DemoModel.session(engine, options: Self.direct)
        try fresh.setTurns(Array(before.prefix(2)))
        #expect(try await Answer(fresh, "What is 30 + 4?") == edited)
    }

    @Test func historiesAreChecked() async throws {
        let session = DemoModel.session(try DemoModel.engine())
        for turns in [[Turn(.assistant, "a")], [Turn(.user, "a")], [Turn(.user, "a"), Turn(.user, "b")]] {
            #expect(throws: SigmaError.self) { try session.setTurns(turns) }
        }
        #expect(throws: SigmaError.self) { try session.rewind(to: 1) }
        #expect(throws: SigmaError.self) { try session.rewind(to: -1) }
        try session.setTurns([Turn(.user, "What is 1 + 1?"), Turn(.assistant, "2")])
        #expect(session.turns.count == 2)
        let stream = session.stream(to: "What is 2 + 2?")
        for change in [{ try session.clear() }, { try session.rewind(to: 0) }, { try session.setTurns([]) }] {
            #expect(throws: SigmaError.self) { try change() }
        }
        for try await _ in stream {}
        try session.clear()
        #expect(session.turns.isEmpty && session.cachedTokens == (0, 0))
    }

    @Test func aChangedTextIsReadAgain() throws {
        let engine = try DemoModel.engine()
        var turn = Turn(.assistant, "12")
        turn.written = .init(
            opening: engine.tokenizer!.encode("<think></think>", recognizingSpecials: false), generated: [7])
        let generated = try engine.prompt(turns: [Turn(.user, "q"), turn], system: "", thinks: false).tokens
        turn.text = "13"
        #expect(turn.written == nil)
        #expect(try engine.prompt(turns: [Turn(.user, "q"), turn], system: "", thinks: false).tokens != generated)
    }

    @Test func otherInstructionsCountFromTheNextRequest() async throws {
        let engine = try DemoModel.engine()
        let session = DemoModel.session(engine, options: Self.direct)
        _ = try await Answer(session, "What is 1 + 2?")
        session.instructions = "You count."
        let answer = try await Answer(session, "What is 3 + 4?")
        let prompt = try engine.prompt(
            turns: Array(session.turns.prefix(2)) + [Turn(.user, "What is 3 + 4?")], system: "You count.", thinks: false
        )
        #expect(answer.statistics?.promptTokens == prompt.tokens.count)
        // Nothing but bos is in common.
        #expect(try #require(answer.statistics).reusedPromptTokens <= 1)
    }

    // MARK: - Ends

    @Test func stoppedAnswersStayIfTheyHadBegun() async throws {
        let engine = try DemoModel.engine()
        let whole = try await Answer(
            DemoModel.session(engine, options: engine.endless(1000, temperature: 0)), "What is 347 + 586?")
        let session = DemoModel.session(engine, options: Self.direct)
        var (text, reason) = ("", FinishReason?.none)
        for try await update in session.stream(
            to: "What is 347 + 586?", options: engine.endless(1_000_000, temperature: 0))
        {
            switch update {
            case .text(let piece):
                text += piece
                session.stop()
            case .finished(let statistics): reason = statistics.reason
            case .prefill, .reasoning: break
            }
        }
        #expect(reason == .interrupted && whole.text.hasPrefix(text) && text != whole.text)
        #expect(session.turns.map(\.text) == ["What is 347 + 586?", text])
        session.stop()
        let turns = session.turns
        let second = try await Answer(session, "What is 1 + 1?")
        let fresh = DemoModel.session(engine, options: Self.direct)
        try fresh.setTurns(turns)
        #expect(try await Answer(fresh, "What is 1 + 1?") == second)
        #expect(second.statistics?.reason == .stop)

        // While it thinks there is no answer yet.
        let thinking = DemoModel.session(engine)
        for try await update in thinking.stream(to: "What is 347 + 586?") {
            if case .reasoning = update { thinking.stop() }
        }
        #expect(thinking.turns.isEmpty)
    }

    @Test func theContextLimitIsAnEvent() async throws {
        // Before the answer: nothing is made, and nothing is forgotten.
        let tiny = DemoModel.session(try DemoModel.engine(context: 5))
        let answer = try await Answer(tiny, "What is 347 + 586?")
        #expect(answer.statistics?.reason == .context && answer.statistics?.generatedTokens == 0)
        #expect(try #require(answer.statistics).promptTokens > 5)
        #expect(tiny.turns.isEmpty)
        let error = await #expect(throws: SigmaError.self) { try await tiny.respond(to: "What is 347 + 586?") }
        #expect(error?.kind == .usage && error?.message.contains("context") == true)

        // In the middle of a conversation: turns go on until one does not fit.
        let engine = try DemoModel.engine(context: 100)
        let session = DemoModel.session(engine, options: Self.direct)
        var ends: [FinishReason] = []
        for index in 0..<20 where ends.last != .context {
            let answer = try await Answer(session, "What is \(index) + 586?")
            ends.append(try #require(answer.statistics).reason)
        }
        #expect(ends.count > 2 && ends.last == .context && ends.dropLast().allSatisfy { $0 == .stop })
        try session.rewind(to: 0)
        #expect(try await Answer(session, "What is 1 + 1?").statistics?.reason == .stop)
    }
}
