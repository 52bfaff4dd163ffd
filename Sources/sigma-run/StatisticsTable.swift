import Sigma
import SigmaCommand

/// The table of `--stats`. Times in seconds, tokens/s and GB/s (10^9).
func statisticsTable(_ statistics: Statistics, engine: Engine) -> String {
    func speed(_ tokensPerSecond: Double) -> String {
        tokensPerSecond > 0
            ? JSONWriter.fixed(tokensPerSecond, decimals: tokensPerSecond < 100 ? 2 : 0) + " tokens/s" : "-"
    }
    var rows: [TextTableRow] = []
    rows.append(("prompt", "\(statistics.promptTokens) tokens", speed(statistics.promptTokensPerSecond)))
    rows.append(("thinking", "\(statistics.thinkingTokens) tokens", ""))
    rows.append(("answer", "\(statistics.answerTokens) tokens", ""))
    rows.append(("generation", "\(statistics.generatedTokens) tokens", speed(statistics.generationTokensPerSecond)))
    rows.append(("first token", JSONWriter.fixed(statistics.timeToFirstToken, decimals: 3) + " s", ""))
    rows.append(
        (
            "memory read", JSONWriter.fixed(statistics.generationGigabytesPerSecond, decimals: 2) + " GB/s",
            statistics.generationSteps > 0
                ? ByteSize.text(statistics.generationBytes / statistics.generationSteps) + " per token" : ""
        ))
    rows.append(("output head", statistics.head.rawValue, headText(statistics)))
    rows += expertRows(statistics, engine: engine)
    rows.append(("disk read", ByteSize.text(statistics.diskBytes), ""))
    rows.append(("peak memory", ByteSize.text(statistics.peakMemoryBytes), ""))
    rows.append(("seed", "\(statistics.seed)", ""))
    rows.append(("back end", engine.backend.name, engine.instructionSetName ?? ""))
    return textTable(rows)
}

/// How often the screen decided, and whether it was right where that is known.
private func headText(_ statistics: Statistics) -> String {
    var parts: [String] = []
    if statistics.headFallbacks > 0 {
        parts.append(
            "\(statistics.headFallbacks) of \(statistics.screenedRows + statistics.headFallbacks) fell back to all logits"
        )
    }
    if statistics.headComparisons > 0 {
        parts.append("the screen missed \(statistics.headMisses) of \(statistics.headComparisons)")
    }
    return parts.joined(separator: ", ")
}

/// What experts cost, and where memory went.
private func expertRows(_ statistics: Statistics, engine: Engine) -> [TextTableRow] {
    if let backend = engine.backend as? CUDABackend { return deviceRows(statistics, backend, engine.configuration) }
    guard let backend = engine.backend as? CPUBackend else { return [] }
    let plan = backend.memoryPlan
    func percent(_ part: Int, of whole: Int) -> String {
        whole == 0 ? "-" : JSONWriter.fixed(Double(part) / Double(whole) * 100, decimals: 1) + " %"
    }
    var rows: [TextTableRow] = []
    if plan.isResident {
        rows.append(("expert cache", "all", "the mapped file"))
    } else {
        rows.append(
            (
                "expert hits", percent(statistics.expertHits, of: statistics.expertRequests),
                "\(statistics.prefetchedExperts) more were being read when they were asked for, of \(statistics.expertRequests)"
            ))
        rows.append(
            (
                "experts read", ByteSize.text(statistics.expertBytesRead),
                JSONWriter.fixed(statistics.expertStall, decimals: 2) + " s were waited for them"
            ))
        if statistics.expertPredictions > 0 {
            rows.append(
                (
                    "predictions", percent(statistics.rightExpertPredictions, of: statistics.expertPredictions),
                    "right, of \(statistics.expertPredictions)"
                ))
        }
        rows.append(
            (
                "prompt pieces", "\(statistics.promptPieces)",
                "\(statistics.promptExpertReads / max(1, statistics.promptPieces)) experts read for each"
            ))
    }
    guard plan.budget != nil || !plan.isResident else { return rows }
    let type = KVType.f16
    return rows + memoryPlanRows(plan, kvType: type, kvBlockBytes: engine.configuration.kvBlockBytes(type))
}

private func deviceRows(
    _ statistics: Statistics, _ backend: CUDABackend, _ configuration: ModelConfiguration
) -> [TextTableRow] {
    var rows: [TextTableRow] = [("device", backend.deviceName, backend.architecture)]
    if !backend.memoryPlan.isResident {
        rows.append(
            (
                "expert hits", JSONWriter.fixed(statistics.expertHitRate * 100, decimals: 1) + " %",
                "on the device when they were asked for, of \(statistics.expertRequests)"
            ))
        rows.append(
            (
                "experts read", ByteSize.text(statistics.expertBytesRead),
                "from the host's memory, for slots of the device"
            ))
    }
    return rows
        + deviceMemoryRows(
            backend.memoryPlan, kvType: .f16, kvBlockBytes: configuration.kvBlockBytes(.f16))
}
