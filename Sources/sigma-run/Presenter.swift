import Sigma
import SigmaCommand

/// Shows a generation to whoever reads standard output. Called by one thread at a time.
protocol Presenter: AnyObject {
    func begin(promptTokens: [Int32]) throws
    func show(_ positions: [PromptPosition]) throws
    func show(_ token: GeneratedToken) throws
    func showClosing(ids: [Int32], text: String) throws
    func finish(_ statistics: Statistics, remainder: GeneratedToken?) throws
    /// An error ends the generation.
    func abandon()
}

/// Takes the generation's events on the engine thread: draws the progress of the prompt, hands the rest on, and stops the generation when
/// nobody can read it any more.
final class Reporter: @unchecked Sendable {
    private let presenter: any Presenter
    private var progress: ProgressBar?
    // Read when the generation has ended.
    private(set) var failure: (any Error)?
    private(set) var statistics: Statistics?

    /// Tokens of a prompt that is read too soon to need a progress bar.
    private static let shortPrompt = 256

    init(presenter: any Presenter, promptTokens: Int) {
        self.presenter = presenter
        if promptTokens > Self.shortPrompt {
            progress = ProgressBar("reading the prompt")
            progress?.update(0)
        }
    }

    func receive(_ event: GenerationEvent, stopper: Stopper) {
        do {
            switch event {
            case .prefill(let done, let total):
                if done < total {
                    progress?.update(Double(done) / Double(total))
                } else {
                    progress?.finish()
                }
            case .promptLogProbabilities(let positions): if failure == nil { try presenter.show(positions) }
            case .token(let token): if failure == nil { try presenter.show(token) }
            case .closing(let ids, let text): if failure == nil { try presenter.showClosing(ids: ids, text: text) }
            case .finished(let statistics, let remainder):
                progress?.finish()
                self.statistics = statistics
                if failure == nil { try presenter.finish(statistics, remainder: remainder) }
            }
        } catch {
            failure = error
            stopper.cancelGeneration()
        }
    }

    /// The generation is over; an error of the engine counts unless showing failed before.
    func end(_ result: Result<Void, any Error>) {
        progress?.finish()
        guard case .failure(let error) = result, failure == nil else { return }
        presenter.abandon()
        failure = error
    }
}
