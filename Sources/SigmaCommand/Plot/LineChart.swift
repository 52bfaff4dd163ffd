/// One or several series over common axes, with ticks, a legend and reference lines.
public struct LineChart: PlotPanel, Sendable {
    public struct Series: Sendable {
        public enum Style: Sendable {
            /// A line through the points, with a dot at each where there are few.
            case line
            /// A bar from zero to each point.
            case bars
        }

        public var name: String
        public var points: [(x: Double, y: Double)]
        public var style: Style

        public init(_ name: String, _ points: [(x: Double, y: Double)], style: Style = .line) {
            self.name = name
            self.points = points
            self.style = style
        }
    }

    public var title: String
    public var x: PlotAxis
    public var y: PlotAxis
    public var series: [Series]
    /// A dashed line at a value of y, with its name.
    public var references: [(name: String, y: Double)]
    public var height: Double

    public init(
        _ title: String, x: PlotAxis, y: PlotAxis, series: [Series], references: [(name: String, y: Double)] = [],
        height: Double = 260
    ) {
        self.title = title
        self.x = x
        self.y = y
        self.series = series
        self.references = references
        self.height = height
    }

    private static let dotLimit = 64

    public func draw(in frame: PlotFrame, on svg: inout SVGText) {
        svg.label(title, x: frame.x, y: frame.y + 13, style: "title")
        drawLegend(frame, &svg)
        let inner = PlotFrame(
            x: frame.x + 66, y: frame.y + 46, width: frame.width - 78, height: frame.height - 92)
        let xs = series.flatMap { $0.points.map(\.x) }
        var ys = series.flatMap { $0.points.map(\.y) } + references.map(\.y)
        if series.contains(where: { $0.style == .bars }) { ys.append(0) }
        let xAxis = x.fitted(to: xs, ticks: Int(inner.width / 70))
        let yAxis = y.fitted(to: ys, ticks: Int(inner.height / 34))
        drawAxes(xAxis, yAxis, inner, frame, &svg)
        for reference in references {
            let place = inner.bottom - yAxis.place(reference.y) * inner.height
            svg.line(x1: inner.x, y1: place, x2: inner.right, y2: place, style: "reference")
        }
        // Bars below lines.
        for (index, one) in series.enumerated() where one.style == .bars {
            drawBars(one, index, xAxis, yAxis, inner, &svg)
        }
        for (index, one) in series.enumerated() where one.style == .line {
            drawLine(one, index, xAxis, yAxis, inner, &svg)
        }
    }

    private func drawLegend(_ frame: PlotFrame, _ svg: inout SVGText) {
        var place = frame.x + 4
        let y = frame.y + 32
        for (index, one) in series.enumerated() {
            if one.style == .bars {
                svg.rectangle(
                    x: place, y: y - 9, width: 10, height: 10, style: "bar " + PlotStyle.series(index), corner: 2)
            } else {
                svg.line(x1: place - 4, y1: y - 4, x2: place + 12, y2: y - 4, style: "curve " + PlotStyle.series(index))
            }
            svg.label(one.name, x: place + 17, y: y, style: "muted")
            place += 17 + Self.width(of: one.name) + 18
        }
        for reference in references where !reference.name.isEmpty {
            svg.line(x1: place - 4, y1: y - 4, x2: place + 14, y2: y - 4, style: "reference")
            svg.label(reference.name, x: place + 19, y: y, style: "muted")
            place += 19 + Self.width(of: reference.name) + 18
        }
    }

    /// About: the viewer's font is not known here.
    private static func width(of text: String) -> Double { Double(text.count) * 6.4 }

    private func drawAxes(
        _ xAxis: PlotAxis.Fitted, _ yAxis: PlotAxis.Fitted, _ inner: PlotFrame, _ frame: PlotFrame,
        _ svg: inout SVGText
    ) {
        for (tick, label) in zip(yAxis.ticks, yAxis.labels) {
            let place = inner.bottom - yAxis.place(tick) * inner.height
            svg.line(x1: inner.x, y1: place, x2: inner.right, y2: place, style: "grid")
            svg.label(label, x: inner.x - 8, y: place + 4, anchor: .end, style: "tick")
        }
        for (tick, label) in zip(xAxis.ticks, xAxis.labels) {
            let place = inner.x + xAxis.place(tick) * inner.width
            svg.line(x1: place, y1: inner.bottom, x2: place, y2: inner.bottom + 4, style: "axis")
            svg.label(label, x: place, y: inner.bottom + 17, anchor: .middle, style: "tick")
        }
        svg.line(x1: inner.x, y1: inner.bottom, x2: inner.right, y2: inner.bottom, style: "axis")
        svg.label(x.label, x: inner.x + inner.width / 2, y: inner.bottom + 35, anchor: .middle, style: "muted")
        svg.label(
            y.label, x: frame.x + 11, y: inner.y + inner.height / 2, anchor: .middle, style: "muted", turned: true)
    }

    private func drawBars(
        _ one: Series, _ index: Int, _ xAxis: PlotAxis.Fitted, _ yAxis: PlotAxis.Fitted, _ inner: PlotFrame,
        _ svg: inout SVGText
    ) {
        let places = one.points.map { inner.x + xAxis.place($0.x) * inner.width }
        let room = zip(places, places.dropFirst()).map { $1 - $0 }.min() ?? inner.width
        let width = max(1, min(room * 0.72, 48))
        let zero = inner.bottom - yAxis.place(0) * inner.height
        var data = ""
        for (place, point) in zip(places, one.points) where point.y.isFinite {
            let top = inner.bottom - yAxis.place(point.y) * inner.height
            let n = SVGText.number
            data += "M\(n(place - width / 2)) \(n(zero))V\(n(top))h\(n(width))V\(n(zero))z"
        }
        svg.path(data, style: "bar " + PlotStyle.series(index))
    }

    private func drawLine(
        _ one: Series, _ index: Int, _ xAxis: PlotAxis.Fitted, _ yAxis: PlotAxis.Fitted, _ inner: PlotFrame,
        _ svg: inout SVGText
    ) {
        var data = ""
        var dots: [(Double, Double)] = []
        var last: (x: Double, y: Double)?
        for (number, point) in one.points.enumerated() {
            // Where there is no value the line has a gap.
            guard point.x.isFinite, point.y.isFinite else {
                last = nil
                continue
            }
            let x = inner.x + xAxis.place(point.x) * inner.width
            let y = inner.bottom - yAxis.place(point.y) * inner.height
            dots.append((x, y))
            if let last {
                // What no eye can tell apart is not drawn twice.
                if number < one.points.count - 1, abs(x - last.x) < 0.4, abs(y - last.y) < 0.4 { continue }
                data += "L\(SVGText.number(x)) \(SVGText.number(y))"
            } else {
                data += "M\(SVGText.number(x)) \(SVGText.number(y))"
            }
            last = (x, y)
        }
        svg.path(data, style: "curve " + PlotStyle.series(index))
        guard dots.count <= Self.dotLimit else { return }
        for (x, y) in dots {
            svg.element(
                "circle",
                [
                    ("class", "dot " + PlotStyle.series(index)), ("cx", SVGText.number(x)), ("cy", SVGText.number(y)),
                    ("r", "3"),
                ])
        }
    }
}
