import CoreMetrics
import Sigma
import Synchronization

/// What `/metrics` shows. The names with `vllm:` are those that routers of requests look at.
final class ServerMetrics: Sendable {
    let registry = PrometheusRegistry()
    let timeToFirstToken: Recorder
    let timeBetweenTokens: Recorder
    let requestSeconds: Recorder
    let promptTokens: Counter
    let cachedTokens: Counter
    let generatedTokens: Counter
    private let counted = Mutex<[String: Int]>([:])

    init() {
        let registry = registry
        func recorder(_ name: String, _ help: String) -> Recorder {
            registry.describe(name, help)
            return Recorder(label: name, dimensions: [], aggregate: true, factory: registry)
        }
        func counter(_ name: String, _ help: String) -> Counter {
            registry.describe(name, help)
            return Counter(label: name, dimensions: [], factory: registry)
        }
        timeToFirstToken = recorder("vllm:time_to_first_token_seconds", "Seconds until a request's first token.")
        timeBetweenTokens = recorder("vllm:time_per_output_token_seconds", "Seconds between the tokens of an answer.")
        requestSeconds = recorder("vllm:e2e_request_latency_seconds", "Seconds from a request to its answer's end.")
        promptTokens = counter("vllm:prompt_tokens_total", "Tokens of prompts.")
        cachedTokens = counter("sigma_prompt_tokens_cached_total", "Tokens of prompts that were not computed again.")
        generatedTokens = counter("vllm:generation_tokens_total", "Tokens that were generated.")
    }

    func request(path: String, status: Int) {
        registry.describe("sigma_http_requests_total", "Requests by path and status.")
        Counter(
            label: "sigma_http_requests_total", dimensions: [("path", path), ("status", String(status))],
            factory: registry
        ).increment()
    }

    /// All metrics, those of the engine as they are now.
    func render(_ host: ModelHost?) -> String {
        if let host { read(host) }
        set("process_resident_memory_bytes", "Memory that the process holds.", Double(ProcessUsage.residentMemory))
        return registry.render()
    }

    private func read(_ host: ModelHost) {
        let engine = host.engine.gauge.reading
        let prefixes = host.engine.prefixes.usage
        set("vllm:num_requests_running", "Answers that are being made.", Double(host.admission.running))
        set("vllm:num_requests_waiting", "Answers that wait for a place.", Double(host.admission.waiting))
        set(
            "vllm:kv_cache_usage_perc", "Share of the room for kept prefixes that is used.",
            host.engine.prefixes.byteLimit > 0 ? Double(prefixes.bytes) / Double(host.engine.prefixes.byteLimit) : 0)
        count("vllm:prefix_cache_queries", "Tokens of prompts that were looked for.", prefixes.queriedTokens)
        count("vllm:prefix_cache_hits", "Tokens of them that were found.", prefixes.foundTokens)
        set("sigma_prefix_cache_bytes", "Bytes of kept prefixes.", Double(prefixes.bytes))
        set("sigma_prefix_cache_entries", "Kept prefixes.", Double(prefixes.entries))
        count("sigma_prefix_cache_evictions", "Prefixes that were evicted.", prefixes.evictions)
        count("sigma_engine_steps", "Steps of the engine.", engine.steps)
        count("sigma_engine_rows", "Tokens that went through it.", engine.rows)
        count("sigma_draft_tokens", "Guessed tokens that steps computed.", engine.draftedTokens)
        count("sigma_draft_tokens_accepted", "Guessed tokens that held.", engine.acceptedDraftTokens)
        set("sigma_engine_work", "Pieces of work in it.", Double(engine.work))
        set("sigma_engine_stalled_seconds", "Seconds without progress.", host.engine.gauge.stalledSeconds)
        count("sigma_expert_requests", "Experts that layers asked for.", engine.experts.requests)
        count("sigma_expert_hits", "Experts that lay in memory.", engine.experts.hits)
        count("sigma_expert_bytes_read", "Bytes of experts that were read from disk.", engine.experts.bytesRead)
        count("sigma_head_rows_screened", "Rows whose logits the screen found.", engine.head.screenedRows)
    }

    /// A counter that somebody else counts.
    private func count(_ name: String, _ help: String, _ value: Int) {
        registry.describe(name, help)
        let more = counted.withLock { counted in
            // Of two that read at once the later may come first.
            let before = counted[name, default: 0]
            counted[name] = max(before, value)
            return max(0, value - before)
        }
        Counter(label: name, dimensions: [], factory: registry).increment(by: more)
    }

    private func set(_ name: String, _ help: String, _ value: Double) {
        registry.describe(name, help)
        Meter(label: name, dimensions: [], factory: registry).set(value)
    }
}
