import Sigma
import SigmaCommand

/// Text for people and pipes: the answer on standard output, thinking where the user wants it.
final class Screen: Presenter {
    private let thinkingPlace: OutputArguments.ThinkingPlace
    /// Ids instead of text: the model has no tokenizer.
    private let writesIDs: Bool
    /// Whether the answer ends with a line end that the model did not write.
    private let endsLine: Bool
    private var isThinkingOpen = false
    private var lastThought: Unicode.Scalar = "\n"
    private var lastAnswered: Unicode.Scalar?

    init(thinkingPlace: OutputArguments.ThinkingPlace, writesIDs: Bool, endsLine: Bool) {
        self.thinkingPlace = thinkingPlace
        self.writesIDs = writesIDs
        self.endsLine = endsLine
    }

    func begin(promptTokens: [Int32]) {}

    func show(_ positions: [PromptPosition]) {}

    func show(_ token: AnswerToken) throws {
        if writesIDs {
            try writeAnswer(lastAnswered == nil ? "\(token.id)" : " \(token.id)")
        } else {
            try write(token.text, token.phase)
        }
    }

    func showClosing(ids: [Int32], text: String) throws { try write(text, .thinking) }

    func finish(_ statistics: Statistics, remainder: AnswerToken?) throws {
        if let remainder { try write(remainder.text, remainder.phase) }
        try closeThinking()
        if endsLine, let lastAnswered, lastAnswered != "\n" { try writeAnswer("\n") }
    }

    func abandon() {
        try? closeThinking()
        if Terminal.standardOutputIsTerminal, let lastAnswered, lastAnswered != "\n" { try? writeAnswer("\n") }
    }

    private func write(_ text: String, _ phase: AnswerToken.Phase) throws {
        guard let last = text.unicodeScalars.last else { return }
        switch phase {
        case .answer:
            try closeThinking()
            try writeAnswer(text)
        case .thinking:
            isThinkingOpen = true
            lastThought = last
            switch thinkingPlace {
            case .none: break
            case .stderr: StandardError.write(text, .dim)
            case .stdout:
                try StandardOutput.write(text, .dim)
                try StandardOutput.flush()
            }
        }
    }

    private func writeAnswer(_ text: String) throws {
        lastAnswered = text.unicodeScalars.last ?? lastAnswered
        try StandardOutput.write(text)
        try StandardOutput.flush()
    }

    /// Thinking ends with its line; where the answer follows at the same place, also with an empty line.
    private func closeThinking() throws {
        guard isThinkingOpen else { return }
        isThinkingOpen = false
        let lineEnd = lastThought == "\n" ? "" : "\n"
        switch thinkingPlace {
        case .none: break
        case .stderr:
            let isSameTerminal = Terminal.standardErrorIsTerminal && Terminal.standardOutputIsTerminal
            StandardError.write(lineEnd + (isSameTerminal ? "\n" : ""))
        case .stdout: try StandardOutput.write(lineEnd + "\n")
        }
    }
}
