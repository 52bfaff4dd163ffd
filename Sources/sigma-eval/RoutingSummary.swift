import Sigma
import SigmaCommand
import SystemLibrary

/// A report on routing as JSON and as tables.
struct RoutingSummary {
    let report: RoutingReport
    let modelName: String
    /// Nil for a trace.
    let windows: Int?
    let context: Int?

    var json: String {
        var json = JSONWriter()
        json.object { json in
            json.field("model", modelName)
            json.field("tokens", report.tokens)
            if let windows { json.field("windows", windows) }
            if let context { json.field("context", context) }
            json.field("experts", report.expertCount)
            json.field("tau", report.temperature)
            json.array("layers") { json in
                for layer in report.layers { json.object { write(layer, &$0) } }
            }
            json.object("cache") { write(report.cache, &$0) }
        }
        return json.text + "\n"
    }

    private func write(_ layer: RoutingReport.Layer, _ json: inout JSONWriter) {
        json.field("layer", layer.index)
        json.field("experts_per_token", layer.expertsPerToken)
        if let loss = layer.loadBalancingLoss { json.field("lbl", loss) }
        if let loss = layer.top1LoadBalancingLoss { json.field("top1_lbl", loss) }
        json.field("deviation_max", layer.deviationOfMost)
        json.field("deviation_min", layer.deviationOfLeast)
        json.field("entropy", layer.entropy)
        json.array("unused") { json in layer.unusedExperts.forEach { json.value($0) } }
        json.array("f") { json in layer.allocation.forEach { json.value($0) } }
        if let p = layer.gatingProbability { json.array("p") { json in p.forEach { json.value($0) } } }
        guard let margins = layer.margins else { return }
        json.object("margin") {
            $0.field("mean", margins.mean)
            $0.field("min", margins.least)
            $0.field("undecided", margins.undecided)
            for (share, value) in margins.quantiles {
                let percent = Int((share * 100).rounded())
                $0.field((percent < 10 ? "p0" : "p") + "\(percent)", value)
            }
        }
    }

    private func write(_ cache: RoutingReport.Cache, _ json: inout JSONWriter) {
        json.field("accesses", cache.accesses)
        json.field("used_experts", cache.usedExperts)
        json.field("expert_bytes", cache.expertBytes)
        json.array("reuse_distances") { json in cache.reuseDistances.forEach { json.value($0) } }
        json.array("lru") { json in cache.leastRecentlyUsed.forEach { json.value($0) } }
        json.array("belady") { json in cache.optimal.forEach { json.value($0) } }
    }

    // MARK: - For people

    var table: String {
        var text = "\(report.tokens) tokens"
        if let windows, let context { text += " in \(windows) windows of at most \(context)" }
        text += ", \(report.layers.count) layers of \(report.expertCount) experts\n\n"
        return text + layerTable + "\n" + cacheTable
    }

    private var layerTable: String {
        let hasLogits = report.layers.contains { $0.loadBalancingLoss != nil }
        var rows = [["layer", "top-k", "most", "least", "unused", "entropy"]]
        if hasLogits { rows[0] += ["LBL", "Top-1 LBL", "margin 1 %", "50 %", "undecided"] }
        for layer in report.layers {
            var row = [
                "\(layer.index)", "\(layer.expertsPerToken)", signedPercent(layer.deviationOfMost),
                signedPercent(layer.deviationOfLeast), "\(layer.unusedExperts.count)",
                percent(layer.entropy / log(Double(report.expertCount))),
            ]
            if hasLogits {
                func quantile(_ share: Double) -> Double? {
                    layer.margins?.quantiles.first { $0.share == share }?.value
                }
                row += [
                    number(layer.loadBalancingLoss), number(layer.top1LoadBalancingLoss), number(quantile(0.01)),
                    number(quantile(0.5)), percent(layer.margins?.undecided ?? .nan),
                ]
            }
            rows.append(row)
        }
        return columnTable(rows)
    }

    private var cacheTable: String {
        let cache = report.cache
        let slots = cache.leastRecentlyUsed.count
        var text = "\(cache.usedExperts) of \(slots) experts used"
        if cache.expertBytes > 0 { text += ", \(ByteSize.text(cache.expertBytes)) each" }
        if let median = cache.reuseDistance(quantile: 0.5), let most = cache.reuseDistance(quantile: 0.99) {
            text += "; others in between until one comes back: \(median) (median), \(most) (99 %)"
        }
        var rows = [["cache", "", "LRU hits", "best possible"]]
        for eighth in 1...8 {
            let size = slots * eighth / 8
            guard size > 0, rows.last?[0] != "\(size)" else { continue }
            rows.append([
                "\(size)", cache.expertBytes > 0 ? ByteSize.text(size * cache.expertBytes) : "",
                percent(cache.leastRecentlyUsed[size - 1]), percent(cache.optimal[size - 1]),
            ])
        }
        return text + "\n\n" + columnTable(rows)
    }

    private func number(_ value: Double?) -> String {
        value.map { $0.isFinite ? JSONWriter.fixed($0, decimals: 4) : "\($0)" } ?? ""
    }
    private func percent(_ share: Double) -> String {
        share.isFinite ? JSONWriter.fixed(share * 100, decimals: 1) + " %" : "-"
    }
    private func signedPercent(_ share: Double) -> String { (share > 0 ? "+" : "") + percent(share) }
}
