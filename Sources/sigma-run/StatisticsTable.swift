import Sigma
import SigmaCommand

/// The table of `--stats`. Times in seconds, tokens/s and GB/s (10^9).
func statisticsTable(_ statistics: Statistics, engine: Engine) -> String {
    func speed(_ tokensPerSecond: Double) -> String {
        tokensPerSecond > 0
            ? JSONWriter.fixed(tokensPerSecond, decimals: tokensPerSecond < 100 ? 2 : 0) + " tokens/s" : "-"
    }
    var rows: [(label: String, value: String, remark: String)] = []
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
    rows.append(("expert cache", "all", "the mapped file"))
    rows.append(("disk read", ByteSize.text(statistics.diskBytes), ""))
    rows.append(("peak memory", ByteSize.text(statistics.peakMemoryBytes), ""))
    rows.append(("seed", "\(statistics.seed)", ""))
    rows.append(("back end", engine.backend.name, engine.instructionSetName ?? ""))
    let labelWidth = rows.map(\.label.count).max() ?? 0
    let valueWidth = rows.filter { !$0.remark.isEmpty }.map(\.value.count).max() ?? 0
    return rows.map { row in
        let label = row.label + String(repeating: " ", count: labelWidth - row.label.count)
        guard !row.remark.isEmpty else { return "\(label)  \(row.value)\n" }
        return "\(label)  \(row.value)\(String(repeating: " ", count: valueWidth - row.value.count))  \(row.remark)\n"
    }.joined()
}
