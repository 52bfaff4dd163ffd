import ArgumentParser
import Sigma
import SigmaCommand

/// What was measured, as a table, JSON, CSV or picture.
struct BenchReport {
    enum Format: String, ExpressibleByArgument, CaseIterable { case table, json, csv }

    struct Row {
        let result: BenchResult
        let limits: MemoryLimits
    }

    let model: String
    let rows: [Row]
    /// The simulator's line for sizes of the expert cache; nil: none was measured.
    let cacheLine: CacheLine?

    func text(_ format: Format) -> String {
        switch format {
        case .table: table
        case .json: json
        case .csv: csv
        }
    }

    // MARK: JSON and CSV: the same fields

    private enum Value {
        case integer(Int)
        case number(Double, decimals: Int)
        case text(String)
        case none
    }

    /// Keys and values of a row, in their order. What does not apply is null.
    private static func fields(_ row: Row) -> [(key: String, value: Value)] {
        let r = row.result
        func speeds(_ values: [Double], _ of: ([Double]) -> Double) -> Value {
            values.isEmpty ? .none : .number(of(values), decimals: 3)
        }
        let generates = !r.generationSpeeds.isEmpty
        let rate = generates ? r.generationSpeeds.mean * r.bytesPerToken : 0
        func ifGenerating(_ value: Double, _ decimals: Int) -> Value {
            generates ? .number(value, decimals: decimals) : .none
        }
        return [
            ("prompt_tokens", .integer(r.bench.prompt)), ("generate_tokens", .integer(r.bench.generate)),
            ("depth", .integer(r.bench.depth)), ("sequences", .integer(r.bench.sequences)),
            ("expert_cache_bytes", .integer(r.expertCacheBytes)),
            ("memory_bytes", row.limits.memory.map { .integer($0) } ?? .none), ("threads", .integer(r.threads)),
            ("backend", .text(r.backend)), ("machine", .text(r.machine.name)),
            ("kv_type", .text(r.bench.kvType.rawValue)),
            ("head", generates ? .text(r.headName) : .none),
            ("head_fallbacks", generates ? .integer(r.head.fallbackRows) : .none),
            ("head_bytes_per_token", r.screenedBytes.map { .integer(Int($0)) } ?? .none),
            ("prompt_tps", speeds(r.promptSpeeds, \.mean)),
            ("prompt_tps_sd", speeds(r.promptSpeeds, \.standardDeviation)),
            ("generate_tps", speeds(r.generationSpeeds, \.mean)),
            ("generate_tps_sd", speeds(r.generationSpeeds, \.standardDeviation)),
            ("ttft_ms", r.firstTokenTimes.isEmpty ? .none : .number(r.firstTokenTimes.mean * 1e3, decimals: 3)),
            ("bytes_per_token", generates ? .integer(Int(r.bytesPerToken)) : .none),
            ("bandwidth_gbs", ifGenerating(rate / 1e9, 3)),
            ("bandwidth_share", ifGenerating(rate / r.machine.readBandwidth, 4)),
            ("read_bandwidth_gbs", .number(r.machine.readBandwidth / 1e9, decimals: 3)),
            ("int8_peak_gmacs", .number(r.machine.int8Peak / 1e9, decimals: 2)),
            ("fp32_peak_gmacs", .number(r.machine.fp32Peak / 1e9, decimals: 2)),
            ("ceiling_tps", r.ceilings.map { .number($0.inTurn, decimals: 3) } ?? .none),
            ("overlapped_ceiling_tps", r.ceilings.map { .number($0.overlapped, decimals: 3) } ?? .none),
            ("prompt_ceiling_tps", r.promptCeiling.map { .number($0, decimals: 3) } ?? .none),
            ("expert_policy", .text(row.limits.policy.rawValue)),
            ("expert_prediction", .text(row.limits.prediction.rawValue)),
            ("hit_rate", .number(r.experts.hitRate, decimals: 4)),
            ("prefetched_experts", .integer(r.experts.prefetched)),
            // The old name of the field before, for one more version.
            ("foretold_experts", .integer(r.experts.prefetched)),
            (
                "prediction_accuracy",
                r.experts.predictions > 0
                    ? .number(Double(r.experts.rightPredictions) / Double(r.experts.predictions), decimals: 4) : .none
            ),
            ("expert_bytes_read", .integer(r.experts.bytesRead)),
            ("disk_bandwidth_gbs", r.missBandwidth.map { .number($0 / 1e9, decimals: 3) } ?? .none),
            ("disk_bytes", .integer(r.diskBytes)), ("stall_ms", .number(r.experts.stall * 1e3, decimals: 1)),
            ("compute_ms_per_token", ifGenerating(r.computeTime * 1e3, 3)),
            ("prompt_pieces", .integer(r.promptPieces)),
            ("prompt_expert_bytes", .integer(Int(r.promptExpertBytes))),
            ("peak_rss_bytes", .integer(r.peakMemory)),
        ]
    }

    private var json: String {
        var json = JSONWriter()
        json.array { json in
            for row in rows {
                json.object { json in
                    for (key, value) in Self.fields(row) {
                        switch value {
                        case .integer(let value): json.field(key, value)
                        case .number(let value, let decimals): json.field(key, value, decimals: decimals)
                        case .text(let value): json.field(key, value)
                        case .none:
                            json.key(key)
                            json.null()
                        }
                    }
                }
            }
        }
        return json.text + "\n"
    }

    private var csv: String {
        let lines = rows.map { row in
            Self.fields(row).map { _, value in
                switch value {
                case .integer(let value): "\(value)"
                case .number(let value, let decimals): JSONWriter.fixed(value, decimals: decimals)
                case .text(let value): value
                case .none: ""
                }
            }.joined(separator: ",")
        }
        let header = rows.first.map { Self.fields($0).map(\.key).joined(separator: ",") } ?? ""
        return ([header] + lines).joined(separator: "\n") + "\n"
    }

    // MARK: table

    private static let columns = [
        "backend", "cache", "prompt", "depth", "sequences", "kv", "threads", "head", "prompt tokens/s", "of ceiling",
        "generated tokens/s",
        "of ceiling",
        "first token", "MB/token", "GB/s", "of bandwidth", "hits", "disk MB/token", "stall ms/token",
    ]

    private var table: String {
        var lines = [Self.columns]
        for row in rows {
            let r = row.result
            func speed(_ values: [Double]) -> String {
                values.isEmpty ? "-" : fixed(values.mean) + " ± " + fixed(values.standardDeviation)
            }
            func share(_ values: [Double], _ ceiling: Double?) -> String {
                guard let ceiling, !values.isEmpty else { return "-" }
                return fixed(values.mean / ceiling * 100, 0) + " % of " + fixed(ceiling, 0)
            }
            let generates = !r.generationSpeeds.isEmpty
            let rate = generates ? r.generationSpeeds.mean * r.bytesPerToken : 0
            lines.append([
                r.backend, r.isResident ? "all" : ByteSize.text(r.expertCacheBytes), "\(r.bench.prompt)",
                "\(r.bench.depth)", "\(r.bench.sequences)", r.bench.kvType.rawValue, "\(r.threads)",
                generates ? r.headName : "-",
                speed(r.promptSpeeds),
                share(r.promptSpeeds, r.promptCeiling), speed(r.generationSpeeds),
                share(r.generationSpeeds, r.ceilings?.inTurn),
                r.firstTokenTimes.isEmpty ? "-" : fixed(r.firstTokenTimes.mean * 1e3, 0) + " ms",
                generates ? fixed(r.bytesPerToken / 1e6) : "-", generates ? fixed(rate / 1e9) : "-",
                generates ? fixed(rate / r.machine.readBandwidth * 100, 0) + " %" : "-",
                generates ? fixed(r.experts.hitRate * 100) + " %" : "-",
                generates ? fixed(r.missBytesPerToken / 1e6) : "-",
                generates
                    ? fixed(
                        r.experts.stall * 1e3 / Double(r.bench.generate * r.bench.sequences * r.generationSpeeds.count))
                    : "-",
            ])
        }
        var text = ""
        // What was measured with other numbers of threads is in the other formats.
        for (index, row) in rows.enumerated() {
            let r = row.result
            guard rows.firstIndex(where: { $0.result.machine.name == r.machine.name }) == index else { continue }
            text +=
                "\(SigmaError.printable(model)): \(SigmaError.printable(r.machine.name)), reads \(fixed(r.machine.readBandwidth / 1e9)) GB/s, "
                + "int8 \(fixed(r.machine.int8Peak / 1e9, 0)) and fp32 \(fixed(r.machine.fp32Peak / 1e9, 0)) GMAC/s"
            let same = rows.filter { $0.result.backend == r.backend }
            if let bandwidth = same.compactMap(\.result.missBandwidth).last {
                text += ", \(r.backend == "cpu" ? "disk" : "bus") \(fixed(bandwidth / 1e9, 2)) GB/s"
            }
            text += "\n"
        }
        return text + columnTable(lines)
    }

    private func fixed(_ value: Double, _ decimals: Int = 1) -> String { JSONWriter.fixed(value, decimals: decimals) }

    // MARK: picture

    /// Speeds by depth: one line for each kind of key-value cache and number of threads, and their ceilings.
    var figure: PlotFigure {
        func chart(
            _ title: String, _ x: String, _ place: (BenchCase) -> Int, _ speeds: (BenchResult) -> [Double],
            _ ceiling: (BenchResult) -> Double?
        ) -> LineChart? {
            var series: [LineChart.Series] = []
            let measured = rows.map(\.result).filter { !speeds($0).isEmpty }
            guard !measured.isEmpty else { return nil }
            func add(_ name: String, _ result: BenchResult, _ value: Double) {
                let device = result.backend == "cpu" ? "\(result.threads) threads" : result.backend
                var name = "\(name), \(result.bench.kvType.rawValue), \(device)"
                if result.bench.sequences > 1 { name += ", \(result.bench.sequences) sequences" }
                let point = (x: Double(place(result.bench)), y: value)
                if let index = series.firstIndex(where: { $0.name == name }) {
                    series[index].points.append(point)
                } else {
                    series.append(.init(name, [point]))
                }
            }
            for result in measured {
                add("measured", result, speeds(result).mean)
                if let ceiling = ceiling(result) { add("ceiling", result, ceiling) }
            }
            for index in series.indices { series[index].points.sort { $0.x < $1.x } }
            return LineChart(
                title, x: PlotAxis(x, from: 0, isWhole: true), y: PlotAxis("tokens/s", from: 0), series: series,
                height: 320)
        }
        let charts = [
            cacheChart,
            chart("Generation", "depth in tokens", \.depth, \.generationSpeeds, \.generationCeiling),
            chart("Prompt", "tokens of the prompt", \.prompt, \.promptSpeeds, \.promptCeiling),
        ]
        return PlotFigure(
            "Speed of \(model.isEmpty ? "a model" : model)",
            subtitle: rows.map(\.result.machine.name).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
                .joined(separator: ", "),
            rows: charts.compactMap { $0 }.map { [$0] })
    }

    /// Generation by the size of the expert cache: what was measured, the two ceilings, and what the simulator says.
    private var cacheChart: LineChart? {
        let measured = rows.filter { !$0.result.generationSpeeds.isEmpty && $0.result.ceilings != nil }
        let sizes = Set(measured.map(\.result.expertCacheBytes))
        guard sizes.count > 1, let first = sizes.min(), let last = sizes.max() else { return nil }
        var series: [LineChart.Series] = []
        func add(_ name: String, _ size: Int, _ value: Double) {
            let point = (x: Double(size) / 0x1p30, y: value)
            if let index = series.firstIndex(where: { $0.name == name }) {
                series[index].points.append(point)
            } else {
                series.append(.init(name, [point]))
            }
        }
        let modes = Set(measured.map(\.limits.prediction.rawValue))
        for row in measured {
            let r = row.result
            let name = modes.count > 1 ? "measured, prediction \(row.limits.prediction.rawValue)" : "measured"
            add(name, r.expertCacheBytes, r.generationSpeeds.mean)
        }
        for row in measured {
            add("ceiling, disk then compute", row.result.expertCacheBytes, row.result.ceilings!.inTurn)
            add("ceiling, disk beside compute", row.result.expertCacheBytes, row.result.ceilings!.overlapped)
        }
        if let cacheLine { series.append(.init("simulated", cacheLine.points(from: first, to: last))) }
        for index in series.indices { series[index].points.sort { $0.x < $1.x } }
        return LineChart(
            "Generation by size of the expert cache", x: PlotAxis("expert cache in GiB", from: 0),
            y: PlotAxis("tokens/s", from: 0), series: series, height: 360)
    }
}
