import Sigma

/// The tokens of all answers to a request.
package struct AnswerUsage: Sendable, Equatable {
    /// Each prompt once.
    package var promptTokens = 0
    package var cachedTokens = 0
    package var completionTokens = 0
    package var reasoningTokens = 0

    package init() {}

    /// - Parameter countsPrompt: false for further answers to the same prompt.
    mutating func add(_ statistics: Statistics, countsPrompt: Bool) {
        if countsPrompt {
            promptTokens += statistics.promptTokens
            cachedTokens += statistics.reusedPromptTokens
        }
        completionTokens += statistics.generatedTokens
        reasoningTokens += statistics.thinkingTokens
    }

    func write(to json: inout JSONWriter) {
        json.object("usage") { json in
            json.field("prompt_tokens", promptTokens)
            json.field("completion_tokens", completionTokens)
            json.field("total_tokens", promptTokens + completionTokens)
            json.object("prompt_tokens_details") { $0.field("cached_tokens", cachedTokens) }
            json.object("completion_tokens_details") { json in
                json.field("reasoning_tokens", reasoningTokens)
                // There are no predictions: a body that has one is refused.
                json.field("accepted_prediction_tokens", 0)
                json.field("rejected_prediction_tokens", 0)
            }
        }
    }
}
