import Sigma
import SigmaCommand

/// Shows an answer on standard output. One thread.
protocol Presenter: AnyObject {
    func begin(promptTokens: [Int32]) throws
    func show(_ positions: [PromptPosition]) throws
    func show(_ token: AnswerToken) throws
    func showClosing(ids: [Int32], text: String) throws
    func finish(_ statistics: Statistics, remainder: AnswerToken?) throws
    /// An error ends the answer.
    func abandon()
}

extension Presenter {
    /// Tokens of a prompt that is read too soon to need a progress bar.
    private var shortPrompt: Int { 256 }

    /// Reads an answer to its end, draws the progress of its prompt and shows the rest.
    ///
    /// - Returns: what the answer was and cost; nil where it has no end.
    /// - Throws: what ends the answer; what cannot be shown, which then ends the answer, too.
    func show(_ answer: Answer, promptTokens: [Int32]) throws -> Statistics? {
        var progress = promptTokens.count > shortPrompt ? ProgressBar("reading the prompt") : nil
        progress?.update(0)
        defer { progress?.finish() }
        try begin(promptTokens: promptTokens)
        var statistics: Statistics?
        while let event = try nextEvent(answer) {
            switch event {
            case .prefill(let done, let total):
                if done < total { progress?.update(Double(done) / Double(total)) } else { progress?.finish() }
            case .promptLogProbabilities(let positions): try show(positions)
            case .token(let token): try show(token)
            case .closing(let ids, let text): try showClosing(ids: ids, text: text)
            case .finished(let found, let remainder):
                progress?.finish()
                statistics = found
                try finish(found, remainder: remainder)
            }
        }
        return statistics
    }

    private func nextEvent(_ answer: Answer) throws -> AnswerEvent? {
        do { return try answer.next() } catch {
            abandon()
            throw error
        }
    }
}
