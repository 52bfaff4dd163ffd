import Sigma

/// The tokens of all answers to a request.
package struct AnswerUsage: Sendable, Equatable {
    /// Each prompt once.
    package var promptTokens = 0
    package var cachedTokens = 0
    package var completionTokens = 0
    package var reasoningTokens = 0
    /// Of answers whose text was predicted: guessed tokens that held, and those that did not.
    package var acceptedPredictionTokens = 0
    package var rejectedPredictionTokens = 0

    package init() {}

    /// - Parameter countsPrompt: false for further answers to the same prompt.
    mutating func add(_ statistics: Statistics, countsPrompt: Bool) {
        if countsPrompt {
            promptTokens += statistics.promptTokens
            cachedTokens += statistics.reusedPromptTokens
        }
        completionTokens += statistics.generatedTokens
        reasoningTokens += statistics.thinkingTokens
        if statistics.hasPrediction {
            acceptedPredictionTokens += statistics.acceptedDraftTokens
            rejectedPredictionTokens += statistics.draftedTokens - statistics.acceptedDraftTokens
        }
    }

    func write(to json: inout JSONWriter) {
        json.object("usage") { json in
            json.field("prompt_tokens", promptTokens)
            json.field("completion_tokens", completionTokens)
            json.field("total_tokens", promptTokens + completionTokens)
            json.object("prompt_tokens_details") { $0.field("cached_tokens", cachedTokens) }
            json.object("completion_tokens_details") { json in
                json.field("reasoning_tokens", reasoningTokens)
                json.field("accepted_prediction_tokens", acceptedPredictionTokens)
                json.field("rejected_prediction_tokens", rejectedPredictionTokens)
            }
        }
    }
}
