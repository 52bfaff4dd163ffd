import Sigma
import SigmaCommand
import SigmaTerminal
import Synchronization

/// An answer on the terminal as it is made: the prompt's progress, thinking dimmed or folded to one line, then the answer.
///
/// The task that reads the stream and the thread that reads the keyboard both use it.
final class AnswerView: Sendable {
    enum Thinking: Sendable { case shown, folded, hidden }

    private struct State {
        var thinking: Thinking
        var progress: ProgressBar?
        /// Prompt tokens that were in the cache already.
        var firstDone: Int?
        var reasoning = ""
        var tokens = 0
        /// A line that the next output takes the place of.
        var hasTransientLine = false
        /// Whether thinking in full is on the screen, and where its last line ends.
        var isThinkingOpen = false
        var lastThought: Character = "\n"
        var lastAnswered: Character?
        var statistics: Statistics?
    }

    private let device: TerminalDevice
    private let state: Mutex<State>

    init(_ device: TerminalDevice, thinking: Thinking) {
        self.device = device
        state = Mutex(State(thinking: thinking))
    }

    var reasoning: String { state.withLock { $0.reasoning } }
    var tokens: Int { state.withLock { $0.tokens } }
    var statistics: Statistics? { state.withLock { $0.statistics } }
    /// How the thinking is shown now: a key may have changed it.
    var thinking: Thinking { state.withLock { $0.thinking } }

    /// One more token of thinking; its text comes later, if it has any.
    func countThought() { state.withLock { $0.tokens += 1 } }

    func take(_ update: GenerationUpdate) {
        state.withLock { state in
            switch update {
            case .prefill(let done, let total): showProgress(done, total, &state)
            case .reasoning(let text): think(text, &state)
            case .text(let text):
                endThinking(&state)
                // The model puts line ends between its thinking and its answer.
                let shown = state.lastAnswered == nil ? String(text.drop { $0.isNewline }) : text
                guard let last = shown.last else { return }
                device.write(DisplayText.printable(shown))
                state.lastAnswered = last
            case .finished(let statistics):
                state.statistics = statistics
                end(&state)
            }
        }
    }

    /// The stream is over, with an end or without.
    func end() { state.withLock { end(&$0) } }

    /// Unfolds the thinking, or folds what comes of it from now on.
    func toggle() {
        state.withLock { state in
            switch state.thinking {
            case .hidden: return
            case .shown:
                state.thinking = .folded
                closeThinking(&state)
            case .folded:
                state.thinking = .shown
                clearLine(&state)
                // Before the answer begins, the thinking so far; afterwards Ctrl-O at the prompt shows it.
                if state.lastAnswered == nil { showThought(state.reasoning, &state) }
            }
        }
    }

    // MARK: - Parts

    private func showProgress(_ done: Int, _ total: Int, _ state: inout State) {
        guard let first = state.firstDone else {
            state.firstDone = done
            state.progress = ProgressBar("reading \(total - done) tokens")
            return
        }
        guard done < total else {
            state.progress?.finish()
            state.progress = nil
            return
        }
        state.progress?.update(Double(done - first) / Double(max(1, total - first)))
    }

    private func think(_ text: String, _ state: inout State) {
        state.reasoning += text
        switch state.thinking {
        case .hidden: break
        case .shown: showThought(text, &state)
        case .folded:
            let label = "thinking: \(state.tokens) tokens  "
            let room = device.size.columns - label.count - 1
            // The last words, on one line.
            let line = state.reasoning.suffix(400).split(whereSeparator: { $0.isWhitespace }).joined(separator: " ")
            let tail = room > 8 ? DisplayWidth.end(of: DisplayText.printable(line), columns: room) : ""
            device.write("\r\u{1b}[K" + Terminal.dim(label + tail))
            state.hasTransientLine = true
        }
    }

    private func showThought(_ text: String, _ state: inout State) {
        // Thinking mostly begins with a line end.
        let text = state.isThinkingOpen ? text[...] : text.drop { $0.isNewline }
        guard let last = text.last else { return }
        device.write(Terminal.dim(DisplayText.printable(String(text))))
        state.isThinkingOpen = true
        state.lastThought = last
    }

    private func closeThinking(_ state: inout State) {
        guard state.isThinkingOpen else { return }
        state.isThinkingOpen = false
        device.write(state.lastThought.isNewline ? "" : "\n")
    }

    /// Thinking has ended: its line stays, with its number of tokens.
    private func endThinking(_ state: inout State) {
        guard state.lastAnswered == nil else { return }
        clearLine(&state)
        closeThinking(&state)
        if state.tokens > 0, state.thinking != .hidden {
            let hint = state.thinking == .folded ? ", Ctrl-O shows them" : ""
            device.write(Terminal.dim("thought: \(state.tokens) tokens\(hint)") + "\n")
        }
        // Once only, even if nothing but line ends has been answered.
        state.lastAnswered = "\n"
    }

    private func clearLine(_ state: inout State) {
        if state.hasTransientLine { device.write("\r\u{1b}[K") }
        state.hasTransientLine = false
    }

    private func end(_ state: inout State) {
        state.progress?.finish()
        state.progress = nil
        endThinking(&state)
        if let last = state.lastAnswered, !last.isNewline { device.write("\n") }
        state.lastAnswered = "\n"
    }
}
