import Dispatch
import Sigma
import SigmaCommand
import SigmaTerminal
import Synchronization
import SystemLibrary

/// A conversation at the terminal. `docs/chat.md` says what it promises.
final class Chat {
    struct Options {
        var generation: GenerationOptions
        var system: String
        var thinking: AnswerView.Thinking
        var sessionPath: String?
        var showsStatistics: Bool
    }

    private static let prompt = "> "
    private static let continuation = ". "
    /// Ctrl-C so often while one answer is stopped leaves the chat; presses closer to each other than so many seconds are one.
    private static let patience = 3
    private static let pressTime = 0.5

    private let model: SigmaModel
    private let session: Session
    private let device: TerminalDevice
    private let editor: LineEditor
    private var thinking: AnswerView.Thinking
    /// Where the conversation is kept; nil: nowhere yet.
    private var file: ConversationFile?
    private let showsStatistics: Bool
    private var lastAnswer: AnswerView?
    private var warming: Task<Void, Never>?
    private var isLeaving = false
    /// The conversation could not be saved when the person wanted to leave; the next time the chat ends nevertheless.
    private var hasStayed = false

    /// - Parameter observer: sees how the tokens are routed.
    /// - Throws: `SigmaError` if the session's file is there and cannot be restored, or if its place cannot be written.
    init(_ model: SigmaModel, on device: TerminalDevice, options: Options, observer: (any RoutingObserver)?) throws {
        self.model = model
        self.device = device
        session = model.makeSession(instructions: options.system, options: options.generation, observer: observer)
        thinking = options.thinking
        file = options.sessionPath.map { ConversationFile(path: $0) }
        showsStatistics = options.showsStatistics
        editor = LineEditor(device, history: InputHistory(path: InputHistory.defaultPath()))
        editor.keys = ["o"]
        editor.completions = ChatInput.completions
        try file?.tryPlace()
        if let file, file.exists {
            try session.restore(from: file.path)
            // A system prompt that was asked for takes the saved one's place.
            if !options.system.isEmpty, options.system != session.instructions { session.instructions = options.system }
        }
        // A model without a chat format is refused before anything is typed.
        _ = try model.engine.prompt(turns: [], system: options.system, options: options.generation)
    }

    /// Until the person leaves.
    /// - Throws: `SigmaError` if the conversation cannot be saved at the end, and the person leaves nevertheless or is gone.
    func run() throws {
        device.enter()
        defer { device.leave() }
        greet()
        repeat {
            switch editor.read(prompt: Self.prompt, continuation: Self.continuation) {
            case .text(let text): handle(ChatInput(text))
            case .interrupted: say("Ctrl-D leaves; /help lists the commands.")
            case .key: showLastThinking()
            case .ended: isLeaving = true
            }
        } while try !isLeaving || !saveAtTheEnd()
    }

    /// - Returns: false if the conversation could not be saved and the chat goes on.
    private func saveAtTheEnd() throws -> Bool {
        stopWarming()
        guard let file else { return true }
        do {
            // The terminal is gone, so nobody can be asked for another name.
            let isLost = device.hasEnded && file.hasChanged
            try write(to: isLost ? ConversationFile(path: file.otherPath) : file)
            say("The conversation is in \(self.file?.path ?? file.path).")
            return true
        } catch let error as SigmaError where !hasStayed && !device.hasEnded {
            show(error)
            say(
                "The chat is still open: /save FILE keeps the conversation elsewhere. Ctrl-D or /quit leaves without it."
            )
            isLeaving = false
            hasStayed = true
            return false
        }
    }

    /// Writes the conversation, and keeps it there from now on.
    /// - Throws: `SigmaError` as `Session.save`; `.inputOutput` if somebody else has written the file.
    private func write(to place: ConversationFile) throws {
        var place = place
        guard !place.hasChanged else { throw place.changed }
        try session.save(to: place.path)
        place.remember()
        file = place
        hasStayed = false
    }

    private func greet() {
        say("\(model.name.isEmpty ? "sigma-run" : model.name) - \(model.contextLength) tokens of context - /help")
        if let file, file.exists { noteKVType() }
        if !session.turns.isEmpty { showResumed() }
    }

    private func handle(_ input: ChatInput) {
        do {
            switch input {
            case .message(let text): try answer(text)
            case .command(let command): try perform(command)
            case .misunderstood(let text): say("There is no \(text). /help lists the commands.")
            }
        } catch let error as SigmaError {
            show(error)
        } catch {
            device.write(Terminal.red("error: ") + DisplayText.printable("\(error)") + "\n")
        }
    }

    private func show(_ error: SigmaError) {
        device.write(Terminal.red("error: ") + DisplayText.printable(error.report) + "\n")
    }

    // MARK: - Answers

    /// How the reading of a stream ended.
    private final class Outcome: Sendable {
        private struct State {
            var isOver = false
            var error: (any Error)?
        }
        private let state = Mutex(State())

        var isOver: Bool { state.withLock { $0.isOver } }
        var error: (any Error)? { state.withLock { $0.error } }
        func end(_ error: (any Error)?) { state.withLock { $0 = State(isOver: true, error: error) } }
    }

    private func answer(_ text: String) throws {
        let view = AnswerView(device, thinking: thinking)
        let outcome = Outcome()
        let stream = session.stream(to: text, options: nil) { event in
            if case .token(let token) = event, token.phase == .thinking { view.countThought() }
        }
        Task { [device] in
            var failure: (any Error)?
            do { for try await update in stream { view.take(update) } } catch { failure = error }
            view.end()
            outcome.end(failure)
            device.wake()
        }
        watchKeyboard(view, until: { outcome.isOver })
        lastAnswer = view
        thinking = view.thinking
        if let error = outcome.error { throw error }
        guard let statistics = view.statistics else { return }
        noteEnd(statistics)
        if showsStatistics {
            device.write(statisticsTable(statistics, engine: model.engine, kvType: session.cachedKVType))
        }
        if statistics.reason != .context, !isLeaving { prewarm() }
    }

    /// Keys while an answer is made: Ctrl-C stops it, Ctrl-O folds and unfolds its thinking, and what else is typed waits for the prompt.
    private func watchKeyboard(_ view: AnswerView, until isOver: () -> Bool) {
        var stops = 0
        var lastStop = -Double.infinity
        func stop() {
            let now = monotonicTime()
            guard now - lastStop >= Self.pressTime else { return }
            lastStop = now
            stops += 1
            if stops >= Self.patience { leaveAtOnce() }
            session.stop()
        }
        // What came with the question.
        if editor.takeInterrupt() { stop() }
        var typed: [UInt8] = []
        while !isOver() {
            switch device.next() {
            case .bytes(let bytes):
                for byte in bytes {
                    switch byte {
                    case 0x03: stop()
                    case 0x0f: view.toggle()
                    case 0x1a: device.suspend()
                    default: typed.append(byte)
                    }
                }
            case .interrupted: stop()
            case .ended:
                isLeaving = true
                session.stop()
                // The terminal may have gone, and would say so for ever.
                while !isOver() { usleep(10_000) }
            case .woken, .resized, .continued, .timedOut: break
            }
        }
        editor.type(ahead: typed)
    }

    /// In the middle of an answer, whose step may take minutes: the conversation before it is saved, without its keys and values.
    private func leaveAtOnce() -> Never {
        if let file {
            let place = file.hasChanged ? file.otherPath : file.path
            let outcome = Result { try session.saveTurns(to: place) }
            device.leave()
            switch outcome {
            case .success: note("The conversation is in \(place), without this question.")
            case .failure(let error): note("The conversation could not be saved: \(error)")
            }
        } else {
            device.leave()
        }
        endProcess(SigmaError.Kind.interrupted.exitCode)
    }

    private func noteEnd(_ statistics: Statistics) {
        switch statistics.reason {
        case .stop where statistics.answerTokens == 0 && statistics.thinkingTokens > 0:
            say("There is no answer: the model ended its turn while it was thinking.")
        case .stop: break
        case .length: say("The answer reached its limit of \(statistics.answerTokens) tokens (--max-tokens).")
        case .interrupted where session.turns.last?.text.isEmpty ?? true || statistics.answerTokens == 0:
            say("Stopped before the answer: the question is not part of the conversation.")
        case .interrupted: say("Stopped.")
        case .context:
            let room = model.engine.positionLimit(kvType: session.cachedKVType)
            let limit =
                room < model.contextLength
                ? "what the memory budget has room for, \(room) tokens"
                : "the context limit of \(model.contextLength) tokens"
            say(
                (statistics.generatedTokens == 0
                    ? "The conversation has \(statistics.promptTokens) tokens, which is more than \(limit)"
                    : "The conversation reached \(limit)")
                    + ": /undo takes back turns, /clear begins anew.")
        }
    }

    /// Reads the answer into the history while the person types.
    private func prewarm() {
        warming = Task { [session] in try? await session.prewarm() }
    }

    /// The session is free afterwards.
    private func stopWarming() {
        guard let task = warming else { return }
        warming = nil
        task.cancel()
        let ended = DispatchSemaphore(value: 0)
        Task {
            await task.value
            ended.signal()
        }
        ended.wait()
    }

    // MARK: - Commands

    private func perform(_ command: ChatInput.Command) throws {
        // Whatever changes the conversation needs it free.
        stopWarming()
        switch command {
        case .help: device.write(ChatInput.help)
        case .quit: isLeaving = true
        case .think:
            let shown =
                switch thinking {
                case .shown: "shown"
                case .folded: "folded"
                case .hidden: "hidden"
                }
            say("Thinking is \(session.options.thinks ? "on" : "off"), and \(shown).")
        case .thinks(let isOn):
            session.options.thinks = isOn
            say("Thinking is \(isOn ? "on" : "off"). The conversation is read again with the next message.")
        case .showsThinking(let isShown):
            thinking = isShown ? .shown : .folded
            say("Thinking is \(isShown ? "shown" : "folded").")
        case .lastThinking: showLastThinking()
        case .showSystem:
            say(session.instructions.isEmpty ? "There is no system prompt." : session.instructions)
        case .system(let text):
            session.instructions = text
            say("The conversation is read again with the next message.")
        case .undo:
            guard session.turns.count >= 2 else { return say("There is nothing to take back.") }
            try session.rewind(to: session.turns.count - 2)
            say("\(questions) left.")
        case .clear:
            try session.clear()
            lastAnswer = nil
            say("A new conversation.")
        case .stats: showStatistics()
        case .save(let name): try save(name)
        case .load(let name): try load(name)
        }
    }

    private var questions: String {
        let count = session.turns.count / 2
        return "\(count) \(count == 1 ? "question" : "questions")"
    }

    /// The file of that name: the conversation's own under whatever spelling.
    private func place(_ name: String?) -> String? {
        guard let name else { return file?.path }
        let path = Self.expanded(name)
        return file.map { $0.isAt(path) ? $0.path : path } ?? path
    }

    private func save(_ name: String?) throws {
        guard let path = place(name) else { return say("There is no file yet: /save FILE") }
        if path != file?.path { try ConversationFile(path: path).checkReplacing() }
        if let file, path != file.path, !file.hasChanged, !hasStayed {
            // A copy: the conversation goes on where it was.
            try session.save(to: path)
        } else {
            try write(to: file.flatMap { path == $0.path ? $0 : nil } ?? ConversationFile(path: path))
        }
        say("\(questions), \(session.cachedTokens.count) tokens: \(path)")
    }

    private func load(_ name: String?) throws {
        guard let path = place(name) else { return say("There is no file yet: /load FILE") }
        // What is left is kept where it was; the chat goes on in the file that it loads.
        if let file, path != file.path, !session.turns.isEmpty { try write(to: file) }
        try session.restore(from: path)
        file = ConversationFile(path: path)
        lastAnswer = nil
        noteKVType()
        showResumed()
    }

    /// `~` as shells take it.
    private static func expanded(_ path: String) -> String {
        guard path == "~" || path.hasPrefix("~/"), let home = getenv("HOME") else { return path }
        return String(cString: home) + path.dropFirst()
    }

    /// A saved conversation keeps the type of its keys and values, whatever the option says.
    private func noteKVType() {
        guard session.cachedKVType != session.newKVType else { return }
        say(
            "The key-value cache stays \(session.cachedKVType.rawValue), as it was saved: --kv-type \(session.newKVType.rawValue) is for new conversations."
        )
    }

    private func showResumed() {
        say("\(questions), \(session.cachedTokens.count) tokens. The last:")
        guard session.turns.count >= 2 else { return }
        for turn in session.turns.suffix(2) {
            let mark = turn.role == .user ? Self.prompt : ""
            device.write(Terminal.dim(mark + DisplayText.printable(turn.text)) + "\n")
        }
    }

    private func showLastThinking() {
        let reasoning = lastAnswer?.reasoning ?? session.turns.last?.reasoning ?? ""
        guard !reasoning.isEmpty else { return say("There was no thinking.") }
        let lines = DisplayText.printable(reasoning).drop { $0.isNewline }
        device.write(Terminal.dim(String(lines)) + (lines.last?.isNewline ?? true ? "" : "\n"))
    }

    private func showStatistics() {
        if let statistics = lastAnswer?.statistics {
            device.write(statisticsTable(statistics, engine: model.engine, kvType: session.cachedKVType))
            say(
                "\(statistics.promptTokens - statistics.reusedPromptTokens) of the prompt's tokens were computed, \(statistics.reusedPromptTokens) were in the cache."
            )
        }
        let cached = session.cachedTokens
        say(
            "\(session.turns.count / 2) questions; \(cached.count) of \(model.contextLength) tokens in the key-value cache, \(ByteSize.text(cached.bytes))."
        )
    }

    /// A line of ours, not the model's.
    private func say(_ text: String) { device.write(Terminal.dim(DisplayText.printable(text)) + "\n") }
}
