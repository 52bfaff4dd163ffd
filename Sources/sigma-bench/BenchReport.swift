import ArgumentParser
import Sigma
import SigmaCommand

/// What was measured, as a table, JSON, CSV or picture.
struct BenchReport {
    enum Format: String, ExpressibleByArgument, CaseIterable { case table, json, csv }

    struct Row {
        let result: BenchResult
        let memory: ByteSize?
    }

    let model: String
    let instructionSet: String
    let rows: [Row]

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
            ("depth", .integer(r.bench.depth)), ("expert_cache_bytes", .integer(r.expertBytes)),
            ("memory_bytes", row.memory.map { .integer($0.bytes) } ?? .none), ("threads", .integer(r.threads)),
            ("backend", .text(r.backend)), ("kv_type", .text(r.bench.kvType.rawValue)),
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
            ("ceiling_tps", r.generationCeiling.map { .number($0, decimals: 3) } ?? .none),
            ("prompt_ceiling_tps", r.promptCeiling.map { .number($0, decimals: 3) } ?? .none),
            // Every expert is mapped: nothing is looked up, and the system's paging is not ours to count.
            ("hit_rate", .number(1, decimals: 1)), ("disk_bytes", .integer(r.diskBytes)),
            ("stall_ms", .number(0, decimals: 1)), ("peak_rss_bytes", .integer(r.peakMemory)),
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
        "prompt", "depth", "kv", "threads", "prompt tokens/s", "of ceiling", "generated tokens/s", "of ceiling",
        "first token", "MB/token", "GB/s", "of bandwidth",
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
                "\(r.bench.prompt)", "\(r.bench.depth)", r.bench.kvType.rawValue, "\(r.threads)", speed(r.promptSpeeds),
                share(r.promptSpeeds, r.promptCeiling), speed(r.generationSpeeds),
                share(r.generationSpeeds, r.generationCeiling),
                r.firstTokenTimes.isEmpty ? "-" : fixed(r.firstTokenTimes.mean * 1e3, 0) + " ms",
                generates ? fixed(r.bytesPerToken / 1e6) : "-", generates ? fixed(rate / 1e9) : "-",
                generates ? fixed(rate / r.machine.readBandwidth * 100, 0) + " %" : "-",
            ])
        }
        let widths = Self.columns.indices.map { column in lines.map { $0[column].count }.max()! }
        var text = ""
        if let machine = rows.first?.result.machine {
            text +=
                "\(SigmaError.printable(model)): \(instructionSet), reads \(fixed(machine.readBandwidth / 1e9)) GB/s, "
                + "int8 \(fixed(machine.int8Peak / 1e9, 0)) and fp32 \(fixed(machine.fp32Peak / 1e9, 0)) GMAC/s\n"
        }
        for line in lines {
            text +=
                zip(line, widths).map { cell, width in String(repeating: " ", count: width - cell.count) + cell }
                .joined(separator: "  ") + "\n"
        }
        return text
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
                let name = "\(name), \(result.bench.kvType.rawValue), \(result.threads) threads"
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
            chart("Generation", "depth in tokens", \.depth, \.generationSpeeds, \.generationCeiling),
            chart("Prompt", "tokens of the prompt", \.prompt, \.promptSpeeds, \.promptCeiling),
        ]
        return PlotFigure(
            "Speed of \(model.isEmpty ? "a model" : model)", subtitle: instructionSet,
            rows: charts.compactMap { $0 }.map { [$0] })
    }
}
