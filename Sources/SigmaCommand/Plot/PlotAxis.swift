import Sigma
import SystemLibrary

/// An axis of a chart: what it measures, and how values become places and labels.
public struct PlotAxis: Sendable {
    public enum Scale: Sendable { case linear, logarithmic }
    public enum Format: Sendable {
        case plain
        /// 0.25 as 25 %.
        case percent
        /// Bytes in binary units.
        case bytes
    }

    public var label: String
    public var scale: Scale
    public var format: Format
    /// What is shown at least; nil: what the values need.
    public var least: Double?
    public var most: Double?
    /// Whether ticks are whole numbers.
    public var isWhole: Bool

    public init(
        _ label: String, scale: Scale = .linear, format: Format = .plain, from least: Double? = nil,
        to most: Double? = nil, isWhole: Bool = false
    ) {
        self.label = label
        self.scale = scale
        self.format = format
        self.least = least
        self.most = most
        self.isWhole = isWhole
    }

    /// The axis over values: its ends and ticks.
    struct Fitted {
        let axis: PlotAxis
        let range: ClosedRange<Double>
        let ticks: [Double]

        /// Place of a value between the ends, 0...1; values beyond are at the ends.
        func place(_ value: Double) -> Double {
            let (low, high) = (axis.transformed(range.lowerBound), axis.transformed(range.upperBound))
            return min(max((axis.transformed(value) - low) / (high - low), 0), 1)
        }

        var labels: [String] {
            let step = ticks.count > 1 && axis.scale == .linear ? ticks[1] - ticks[0] : 0
            return ticks.map { axis.text($0, step: step) }
        }
    }

    /// - Parameter wanted: about how many ticks there should be.
    func fitted(to values: some Sequence<Double>, ticks wanted: Int) -> Fitted {
        var low = Double.infinity
        var high = -Double.infinity
        for value in values where value.isFinite && (scale == .linear || value > 0) {
            low = min(low, value)
            high = max(high, value)
        }
        if low > high { (low, high) = scale == .linear ? (0, 1) : (1, 10) }
        low = least ?? low
        high = max(most ?? high, low)
        switch scale {
        case .linear: return fittedLinear(low, high, wanted)
        case .logarithmic: return fittedLogarithmic(low, high, wanted)
        }
    }

    private func fittedLinear(_ low: Double, _ high: Double, _ wanted: Int) -> Fitted {
        let (low, high) = low < high ? (low, high) : (low - (low.magnitude + 1) / 2, high + (high.magnitude + 1) / 2)
        var step = Self.niceStep(
            (high - low) / Double(max(1, wanted)), base: format == .bytes ? 2 : 10, allowsQuarters: !isWhole)
        if isWhole { step = max(1, step.rounded()) }
        // Ends that were asked for stay; the others go out to the next tick.
        let start = least ?? (low / step).rounded(.down) * step
        let end = most ?? (high / step).rounded(.up) * step
        var ticks: [Double] = []
        var index = (start / step - 1e-9).rounded(.up)
        while index * step <= end + step * 1e-9 {
            ticks.append(index * step)
            index += 1
        }
        return Fitted(axis: self, range: start...max(end, start + step), ticks: ticks)
    }

    private func fittedLogarithmic(_ low: Double, _ high: Double, _ wanted: Int) -> Fitted {
        let base = format == .bytes ? 2.0 : 10.0
        let first = (log(low) / log(base) + 1e-9).rounded(.down)
        let last = max((log(high) / log(base) - 1e-9).rounded(.up), first + 1)
        let every = max(1, ((last - first) / Double(max(1, wanted))).rounded(.up))
        let ticks = stride(from: first, through: last, by: every).map { pow(base, $0) }
        let start = least.map { max($0, low) } ?? pow(base, first)
        let end = most ?? pow(base, last)
        return Fitted(
            axis: self, range: start...max(end, start * base), ticks: ticks.filter { $0 >= start && $0 <= end })
    }

    /// 1, 2, 2.5 or 5 times a power of ten (1 times a power of two) that is no less than `rough`.
    private static func niceStep(_ rough: Double, base: Double, allowsQuarters: Bool) -> Double {
        let power = pow(base, (log(rough) / log(base)).rounded(.down))
        if base == 2 { return rough > power * (1 + 1e-9) ? power * 2 : power }
        for factor in allowsQuarters ? [1.0, 2, 2.5, 5] : [1, 2, 5] where rough <= power * factor * (1 + 1e-9) {
            return power * factor
        }
        return power * 10
    }

    fileprivate func transformed(_ value: Double) -> Double {
        scale == .linear ? value : log(max(value, .leastNormalMagnitude))
    }

    /// - Parameter step: distance of the ticks: it says how many decimals tell them apart; 0: as many as the value needs.
    func text(_ value: Double, step: Double) -> String {
        switch format {
        case .bytes: return ByteSize.text(Int(min(max(value, 0), 0x1p62)))
        case .percent: return Self.plain(value * 100, step: step * 100) + " %"
        case .plain: return Self.plain(value, step: step)
        }
    }

    private static func plain(_ value: Double, step: Double) -> String {
        if value == 0 { return "0" }
        if value.magnitude >= 1e6 || value.magnitude < 1e-4 {
            let exponent = Int((log10(value.magnitude) + 1e-9).rounded(.down))
            let mantissa = value / pow(10, Double(exponent))
            let front = SVGText.number(mantissa)
            return (front == "1" ? "" : front + "·") + "10" + superscript(exponent)
        }
        var decimals = 0
        var unit = step > 0 ? step : value.magnitude
        while decimals < 6, unit < 0.999 || abs(unit - unit.rounded()) > 1e-6 * unit {
            unit *= 10
            decimals += 1
        }
        return JSONWriter.fixed(value, decimals: decimals)
    }

    private static func superscript(_ number: Int) -> String {
        let digits = Array("⁰¹²³⁴⁵⁶⁷⁸⁹")
        return (number < 0 ? "⁻" : "") + String(String(number.magnitude).map { digits[Int(String($0))!] })
    }
}
