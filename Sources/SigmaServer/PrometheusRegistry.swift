import CoreMetrics
import Synchronization

/// A `MetricsFactory` that keeps what is measured and renders it in Prometheus's text format, version 0.0.4.
///
/// Counters become counters; recorders that aggregate and timers become histograms, of whatever unit was recorded and of seconds; other recorders
/// and meters become gauges.
package final class PrometheusRegistry: MetricsFactory, Sendable {
    private struct Key: Hashable {
        var name: String
        var labels: String
    }

    private enum Instrument {
        case counter(PrometheusCounter)
        case gauge(PrometheusGauge)
        case histogram(PrometheusHistogram)

        var kind: String {
            switch self {
            case .counter: "counter"
            case .gauge: "gauge"
            case .histogram: "histogram"
            }
        }
    }

    private let instruments = Mutex<[Key: Instrument]>([:])
    private let helps = Mutex<[String: String]>([:])

    package init() {}

    /// What a metric means, in one line.
    package func describe(_ name: String, _ help: String) { helps.withLock { $0[Self.name(name)] = help } }

    // MARK: - Making

    package func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        guard case .counter(let handler) = find(label, dimensions, { .counter(PrometheusCounter()) }) else {
            return PrometheusCounter()
        }
        return handler
    }

    package func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
        let instrument = find(label, dimensions) {
            aggregate ? .histogram(PrometheusHistogram()) : .gauge(PrometheusGauge())
        }
        switch instrument {
        case .gauge(let handler): return handler
        case .histogram(let handler): return handler
        case .counter: return PrometheusGauge()
        }
    }

    package func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        guard case .histogram(let handler) = find(label, dimensions, { .histogram(PrometheusHistogram()) }) else {
            return PrometheusHistogram()
        }
        return handler
    }

    package func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        guard case .gauge(let handler) = find(label, dimensions, { .gauge(PrometheusGauge()) }) else {
            return PrometheusGauge()
        }
        return handler
    }

    package func destroyCounter(_ handler: any CounterHandler) {}
    package func destroyRecorder(_ handler: any RecorderHandler) {}
    package func destroyTimer(_ handler: any TimerHandler) {}
    package func destroyMeter(_ handler: any MeterHandler) {}

    private func find(_ label: String, _ dimensions: [(String, String)], _ make: () -> Instrument) -> Instrument {
        let key = Key(name: Self.name(label), labels: Self.labels(dimensions))
        return instruments.withLock { instruments in
            if let instrument = instruments[key] { return instrument }
            let instrument = make()
            instruments[key] = instrument
            return instrument
        }
    }

    // MARK: - Rendering

    /// All metrics, by name and labels.
    package func render() -> String {
        let sorted = instruments.withLock { $0 }.sorted {
            ($0.key.name, $0.key.labels) < ($1.key.name, $1.key.labels)
        }
        let helps = helps.withLock { $0 }
        var text = ""
        var last = ""
        for (key, instrument) in sorted {
            if key.name != last {
                if let help = helps[key.name] { text += "# HELP \(key.name) \(help)\n" }
                text += "# TYPE \(key.name) \(instrument.kind)\n"
                last = key.name
            }
            switch instrument {
            case .counter(let counter): text += Self.line(key.name, key.labels, counter.value)
            case .gauge(let gauge): text += Self.line(key.name, key.labels, gauge.value)
            case .histogram(let histogram):
                let (counts, sum) = histogram.values
                var total: UInt64 = 0
                for (bound, count) in zip(PrometheusHistogram.bounds + [.infinity], counts) {
                    total += count
                    let limit = "le=\"\(bound == .infinity ? "+Inf" : Self.number(bound))\""
                    let labels = key.labels.isEmpty ? limit : key.labels + "," + limit
                    text += Self.line(key.name + "_bucket", labels, Double(total))
                }
                text += Self.line(key.name + "_sum", key.labels, sum)
                text += Self.line(key.name + "_count", key.labels, Double(total))
            }
        }
        return text
    }

    private static func line(_ name: String, _ labels: String, _ value: Double) -> String {
        "\(name)\(labels.isEmpty ? "" : "{\(labels)}") \(number(value))\n"
    }

    private static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        return value == value.rounded() && value.magnitude < 1e15 ? String(Int64(value)) : String(value)
    }

    /// Letters, digits, underscores and colons.
    private static func name(_ label: String) -> String {
        let name = String(
            label.unicodeScalars.map { scalar in
                let isAllowed =
                    ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || ("0"..."9").contains(scalar)
                    || scalar == "_" || scalar == ":"
                return isAllowed ? Character(scalar) : "_"
            })
        return name.first?.isNumber ?? true ? "_" + name : name
    }

    private static func labels(_ dimensions: [(String, String)]) -> String {
        dimensions.sorted { $0.0 < $1.0 }.map { label, value in
            let escaped = value.flatMap { character -> String in
                switch character {
                case "\\": "\\\\"
                case "\"": "\\\""
                case "\n": "\\n"
                default: String(character)
                }
            }
            return "\(name(label))=\"\(String(escaped))\""
        }.joined(separator: ",")
    }
}

final class PrometheusCounter: CounterHandler, Sendable {
    private let total = Mutex(0.0)

    var value: Double { total.withLock { $0 } }
    func increment(by amount: Int64) { total.withLock { $0 += Double(max(0, amount)) } }
    func reset() { total.withLock { $0 = 0 } }
}

final class PrometheusGauge: MeterHandler, RecorderHandler, Sendable {
    private let current = Mutex(0.0)

    var value: Double { current.withLock { $0 } }
    func set(_ value: Int64) { current.withLock { $0 = Double(value) } }
    func set(_ value: Double) { current.withLock { $0 = value } }
    func increment(by amount: Double) { current.withLock { $0 += amount } }
    func decrement(by amount: Double) { current.withLock { $0 -= amount } }
    func record(_ value: Int64) { set(value) }
    func record(_ value: Double) { set(value) }
}

final class PrometheusHistogram: RecorderHandler, TimerHandler, Sendable {
    /// From a millisecond to ten minutes.
    static let bounds = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600,
    ]

    private struct State {
        var counts = [UInt64](repeating: 0, count: PrometheusHistogram.bounds.count + 1)
        var sum = 0.0
    }

    private let state = Mutex(State())

    /// Of each bucket alone, and of all.
    var values: (counts: [UInt64], sum: Double) { state.withLock { ($0.counts, $0.sum) } }

    func record(_ value: Int64) { record(Double(value)) }
    func record(_ value: Double) {
        state.withLock { state in
            state.counts[Self.bounds.firstIndex { value <= $0 } ?? Self.bounds.count] += 1
            state.sum += value
        }
    }
    func recordNanoseconds(_ duration: Int64) { record(Double(duration) * 1e-9) }
}
