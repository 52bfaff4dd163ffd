import Sigma
import SigmaCommand

/// The table of `--stats`. Times in seconds, tokens/s and GB/s (10^9).
/// - Parameter kvType: of the sequence that answered.
func statisticsTable(_ statistics: Statistics, engine: Engine, kvType: KVType) -> String {
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
            statistics.steppedTokens > 0
                ? ByteSize.text(statistics.generationBytes / statistics.steppedTokens) + " per token" : ""
        ))
    if statistics.draftedTokens > 0 {
        rows.append(
            (
                "drafts", "\(statistics.acceptedDraftTokens) tokens",
                "held, of \(statistics.draftedTokens), in \(statistics.generationSteps) steps"
            ))
    }
    rows.append(("output head", statistics.engine.head.rawValue, headText(statistics.engine)))
    let report = engine.backend.report
    rows += expertRows(statistics, report, engine.configuration, kvType)
    rows.append(("disk read", ByteSize.text(statistics.engine.diskBytes), ""))
    rows.append(("peak memory", ByteSize.text(statistics.engine.peakMemoryBytes), ""))
    rows.append(("seed", "\(statistics.seed)", ""))
    rows.append(("back end", report.name, report.instructionSet ?? ""))
    return textTable(rows)
}

/// How often the screen decided, and whether it was right where that is known.
private func headText(_ engine: EngineActivity) -> String {
    var parts: [String] = []
    if engine.cutHeadRows > 0 {
        parts.append("\(engine.cutHeadRows) of \(engine.headRows) rows cut to what was allowed")
    }
    if engine.headFallbacks > 0 {
        parts.append(
            "\(engine.headFallbacks) of \(engine.screenedRows + engine.headFallbacks) fell back to all logits"
        )
    }
    if engine.headComparisons > 0 {
        parts.append("the screen missed \(engine.headMisses) of \(engine.headComparisons)")
    }
    return parts.joined(separator: ", ")
}

/// What experts cost, and where memory went.
private func expertRows(
    _ statistics: Statistics, _ report: BackendReport, _ configuration: ModelConfiguration, _ kvType: KVType
) -> [TextTableRow] {
    let engine = statistics.engine
    let plan: MemoryPlan
    switch report.memory {
    case .device(let device): return deviceRows(engine, report, device, configuration, kvType)
    case .host(let host): plan = host
    }
    func percent(_ part: Int, of whole: Int) -> String {
        whole == 0 ? "-" : JSONWriter.fixed(Double(part) / Double(whole) * 100, decimals: 1) + " %"
    }
    var rows: [TextTableRow] = []
    if plan.isResident {
        rows.append(("expert cache", "all", "the mapped file"))
    } else {
        rows.append(
            (
                "expert hits", percent(engine.expertHits, of: engine.expertRequests),
                "\(engine.prefetchedExperts) more were being read when they were asked for, of \(engine.expertRequests)"
            ))
        rows.append(
            (
                "experts read", ByteSize.text(engine.expertBytesRead),
                JSONWriter.fixed(engine.expertStall, decimals: 2) + " s were waited for them"
            ))
        if engine.expertPredictions > 0 {
            rows.append(
                (
                    "predictions", percent(engine.rightExpertPredictions, of: engine.expertPredictions),
                    "right, of \(engine.expertPredictions)"
                ))
        }
        rows.append(
            (
                "prompt pieces", "\(statistics.promptPieces)",
                "\(engine.promptExpertReads / max(1, statistics.promptPieces)) experts read for each"
            ))
    }
    guard plan.budget != nil || !plan.isResident else { return rows }
    return rows + memoryPlanRows(plan, kvType: kvType, kvBlockBytes: configuration.kvBlockBytes(kvType))
}

private func deviceRows(
    _ engine: EngineActivity, _ report: BackendReport, _ plan: DeviceMemoryPlan, _ configuration: ModelConfiguration,
    _ kvType: KVType
) -> [TextTableRow] {
    var rows: [TextTableRow] = [("device", report.deviceName ?? "", report.architecture ?? "")]
    if !plan.isResident {
        rows.append(
            (
                "expert hits", JSONWriter.fixed(engine.expertHitRate * 100, decimals: 1) + " %",
                "on the device when they were asked for, of \(engine.expertRequests)"
            ))
        rows.append(
            (
                "experts read", ByteSize.text(engine.expertBytesRead),
                "from the host's memory, for slots of the device"
            ))
    }
    return rows
        + deviceMemoryRows(
            plan, kvType: kvType, kvBlockBytes: KVBlockLayout(device: kvType, configuration).byteCount)
}
