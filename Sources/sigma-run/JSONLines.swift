import Sigma
import SigmaCommand

/// One JSON object a line on standard output. Numbers that are not finite are null.
final class JSONLines: Presenter {
    /// Decimals of log-probabilities.
    private static let decimals = 8
    private let backend: String
    private let instructionSet: String?

    init(engine: Engine) {
        let report = engine.backend.report
        backend = report.name
        instructionSet = report.instructionSet
    }

    func begin(promptTokens: [Int32]) throws {
        try line("prompt") { json in
            json.array("ids") { for id in promptTokens { $0.value(id) } }
        }
    }

    func show(_ positions: [PromptPosition]) throws {
        try line("prompt-logprobs") { json in
            json.array("positions") { json in
                for position in positions {
                    json.object { json in
                        if let next = position.next {
                            json.field("id", next.id)
                            json.field("logprob", next.logProbability, decimals: Self.decimals)
                        }
                        Self.write(position.top, to: &json)
                    }
                }
            }
        }
    }

    func show(_ token: AnswerToken) throws {
        try line("token") { json in
            json.field("id", token.id)
            json.field("text", token.text)
            json.field("phase", token.phase.rawValue)
            if let logProbability = token.logProbability {
                json.field("logprob", logProbability, decimals: Self.decimals)
                Self.write(token.top, to: &json)
            }
        }
    }

    func showClosing(ids: [Int32], text: String) throws {
        try line("closing") { json in
            json.array("ids") { for id in ids { $0.value(id) } }
            json.field("text", text)
        }
    }

    func finish(_ statistics: Statistics, remainder: AnswerToken?) throws {
        try line("done") { json in
            json.field("reason", statistics.reason.rawValue)
            json.field("thinking_cut", statistics.thinkingWasCut)
            json.field("seed", statistics.seed)
            if let remainder {
                json.field("text", remainder.text)
                json.field("phase", remainder.phase.rawValue)
            }
            json.object("stats") { Self.write(statistics, to: &$0) }
            json.field("backend", backend)
            if let instructionSet { json.field("instruction_set", instructionSet) }
        }
    }

    func abandon() {}

    private func line(_ event: String, _ body: (inout JSONWriter) -> Void) throws {
        var json = JSONWriter()
        json.object {
            $0.field("event", event)
            body(&$0)
        }
        try StandardOutput.writeJSON(json.text + "\n")
        try StandardOutput.flush()
    }

    private static func write(_ top: [TokenLogProbability], to json: inout JSONWriter) {
        json.array("top") { json in
            for candidate in top {
                json.object { json in
                    json.field("id", candidate.id)
                    json.field("logprob", candidate.logProbability, decimals: decimals)
                }
            }
        }
    }

    private static func write(_ statistics: Statistics, to json: inout JSONWriter) {
        json.field("prompt_tokens", statistics.promptTokens)
        json.field("reused_prompt_tokens", statistics.reusedPromptTokens)
        json.field("thinking_tokens", statistics.thinkingTokens)
        json.field("answer_tokens", statistics.answerTokens)
        json.field("generated_tokens", statistics.generatedTokens)
        json.field("time_to_first_token", statistics.timeToFirstToken, decimals: 6)
        json.field("prompt_time", statistics.promptTime, decimals: 6)
        json.field("prompt_tokens_per_second", statistics.promptTokensPerSecond, decimals: 3)
        json.field("generation_time", statistics.generationTime, decimals: 6)
        json.field("generation_steps", statistics.generationSteps)
        json.field("drafted_tokens", statistics.draftedTokens)
        json.field("accepted_draft_tokens", statistics.acceptedDraftTokens)
        json.field("generation_tokens_per_second", statistics.generationTokensPerSecond, decimals: 3)
        json.field("generation_bytes", statistics.generationBytes)
        json.field("generation_gigabytes_per_second", statistics.generationGigabytesPerSecond, decimals: 3)
        json.field("head", statistics.engine.head.rawValue)
        json.field("head_rows", statistics.engine.headRows)
        json.field("cut_head_rows", statistics.engine.cutHeadRows)
        json.field("screened_rows", statistics.engine.screenedRows)
        json.field("head_fallbacks", statistics.engine.headFallbacks)
        json.field("head_comparisons", statistics.engine.headComparisons)
        json.field("head_misses", statistics.engine.headMisses)
        json.field("disk_bytes", statistics.engine.diskBytes)
        json.field("expert_requests", statistics.engine.expertRequests)
        json.field("expert_hits", statistics.engine.expertHits)
        json.field("hit_rate", statistics.engine.expertHitRate, decimals: 4)
        json.field("prefetched_experts", statistics.engine.prefetchedExperts)
        // The key's old name, for one version.
        json.field("foretold_experts", statistics.engine.prefetchedExperts)
        json.field("expert_bytes_read", statistics.engine.expertBytesRead)
        json.field("stall_ms", statistics.engine.expertStall * 1e3, decimals: 1)
        json.field("expert_predictions", statistics.engine.expertPredictions)
        json.field("right_expert_predictions", statistics.engine.rightExpertPredictions)
        json.field("prompt_pieces", statistics.promptPieces)
        json.field("prompt_expert_reads", statistics.engine.promptExpertReads)
        json.field("peak_memory_bytes", statistics.engine.peakMemoryBytes)
    }
}
