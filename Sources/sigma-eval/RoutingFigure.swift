import Sigma
import SigmaCommand

extension RoutingSummary {
    /// Everything that `sigma-eval routing --plot` draws.
    ///
    /// - Parameter layers: whose f and p are drawn; nil: the first layer, and one as deep as the paper's layer 52 of 56.
    func figure(layers: [Int]?) -> PlotFigure {
        var rows: [[any PlotPanel]] = [[loadMap], [deviationChart, hitRateChart]]
        let known = report.layers
        let deep = known[Int((Double(known.count - 1) * 52 / 55).rounded())].index
        let chosen = layers ?? (known[0].index == deep ? [deep] : [known[0].index, deep])
        let charts = chosen.compactMap { index in known.first { $0.index == index }.map(allocationChart) }
        for first in stride(from: 0, to: charts.count, by: 2) {
            rows.append(Array(charts[first..<min(first + 2, charts.count)]))
        }
        if known.contains(where: { $0.margins != nil }) { rows.append([lossChart, marginChart]) }
        return PlotFigure(
            modelName.isEmpty ? "Use of experts" : "Use of experts: \(modelName)", subtitle: subtitle, rows: rows)
    }

    private var subtitle: String {
        var text = "\(report.tokens) tokens"
        if let windows { text += " in \(windows) windows" }
        return text + ", \(report.layers.count) layers of \(report.expertCount) experts"
    }

    private var loadMap: HeatMap {
        HeatMap(
            "Load: token allocation f relative to uniform", rowLabel: "layer", columnLabel: "expert",
            rowNames: report.layers.map { "\($0.index)" },
            ratios: report.layers.map { $0.allocation.map { $0 * Double(report.expertCount) } }, zeroName: "unused")
    }

    private var deviationChart: LineChart {
        LineChart(
            "Relative deviation from uniform allocation", x: layerAxis,
            y: PlotAxis("deviation", format: .percent),
            series: [
                .init("most used expert", report.layers.map { (Double($0.index), $0.deviationOfMost) }),
                .init("least used expert", report.layers.map { (Double($0.index), $0.deviationOfLeast) }),
            ], references: [("uniform", 0)])
    }

    private var hitRateChart: LineChart {
        let cache = report.cache
        func points(_ rates: [Double]) -> [(x: Double, y: Double)] {
            [(0, 0)] + rates.enumerated().map { (Double($0.offset + 1), $0.element) }
        }
        let each = cache.expertBytes > 0 ? ", \(ByteSize.text(cache.expertBytes)) each" : ""
        return LineChart(
            "Hit rate of a cache of experts",
            x: PlotAxis(
                "experts in the cache, of \(cache.optimal.count)\(each)", from: 0, to: Double(cache.optimal.count),
                isWhole: true),
            y: PlotAxis("hits", format: .percent, from: 0, to: 1),
            series: [.init("LRU", points(cache.leastRecentlyUsed)), .init("best possible", points(cache.optimal))])
    }

    private func allocationChart(_ layer: RoutingReport.Layer) -> LineChart {
        func points(_ values: [Double]) -> [(x: Double, y: Double)] {
            values.enumerated().map { (Double($0.offset), $0.element) }
        }
        var series = [LineChart.Series("token allocation f", points(layer.allocation), style: .bars)]
        if let p = layer.gatingProbability { series.append(.init("gating probability p", points(p))) }
        return LineChart(
            "Layer \(layer.index): f and p of each expert",
            x: PlotAxis("expert", from: -0.6, to: Double(report.expertCount) - 0.4, isWhole: true),
            y: PlotAxis("share", format: .percent, from: 0), series: series,
            references: [("uniform", 1 / Double(report.expertCount))])
    }

    private var lossChart: LineChart {
        LineChart(
            "Load-balancing losses", x: layerAxis, y: PlotAxis("loss"),
            series: [
                .init("LBL (eq. 1)", report.layers.map { (Double($0.index), $0.loadBalancingLoss ?? .nan) }),
                .init(
                    "Top-1 LBL (eq. 2, τ = \(SVGText.number(report.temperature)))",
                    report.layers.map { (Double($0.index), $0.top1LoadBalancingLoss ?? .nan) }),
            ], references: [("1", 1)])
    }

    private var marginChart: LineChart {
        let quantiles: [(Double, String)] = [(0.9, "90 %"), (0.5, "median"), (0.1, "10 %"), (0.01, "1 %")]
        return LineChart(
            "How far the best expert is ahead of the second", x: layerAxis,
            y: PlotAxis("margin of the score", scale: .logarithmic),
            series: quantiles.map { share, name in
                .init(
                    name,
                    report.layers.map { layer in
                        (Double(layer.index), layer.margins?.quantiles.first { $0.share == share }?.value ?? .nan)
                    })
            })
    }

    private var layerAxis: PlotAxis { PlotAxis("layer", isWhole: true) }
}
