import SystemLibrary

/// A matrix of ratios to what is usual, as colours: 1 is neutral, and each side of it goes to `reach` or its inverse, on a logarithmic
/// scale. A ratio of 0 has a colour of its own.
public struct HeatMap: PlotPanel, Sendable {
    public var title: String
    public var rowLabel: String
    public var columnLabel: String
    /// Names of the rows, from the top.
    public var rowNames: [String]
    /// [rows][columns]
    public var ratios: [[Double]]
    public var reach: Double
    /// What a ratio of 0 is called.
    public var zeroName: String

    public init(
        _ title: String, rowLabel: String, columnLabel: String, rowNames: [String], ratios: [[Double]],
        reach: Double = 4, zeroName: String
    ) {
        precondition(reach > 1 && rowNames.count == ratios.count)
        self.title = title
        self.rowLabel = rowLabel
        self.columnLabel = columnLabel
        self.rowNames = rowNames
        self.ratios = ratios
        self.reach = reach
        self.zeroName = zeroName
    }

    private var cellHeight: Double { ratios.count <= 16 ? 24 : max(6, 480 / Double(ratios.count)) }
    public var height: Double { max(76, cellHeight * Double(ratios.count)) + 74 }

    public func draw(in frame: PlotFrame, on svg: inout SVGText) {
        svg.label(title, x: frame.x, y: frame.y + 13, style: "title")
        let columns = ratios.map(\.count).max() ?? 0
        guard columns > 0 else { return }
        let inner = PlotFrame(
            x: frame.x + 66, y: frame.y + 26, width: frame.width - 176, height: cellHeight * Double(ratios.count))
        let cellWidth = inner.width / Double(columns)
        drawCells(inner, cellWidth, &svg)
        drawNames(inner, columns, cellWidth, frame, &svg)
        drawScale(x: inner.right + 26, y: inner.y, &svg)
    }

    /// A path for each colour, of unit squares in a scaled group: 5,000 cells take some 60 KB.
    private func drawCells(_ inner: PlotFrame, _ cellWidth: Double, _ svg: inout SVGText) {
        var paths: [String: String] = [:]
        for (row, values) in ratios.enumerated() {
            for (column, value) in values.enumerated() where !value.isNaN {
                paths[style(of: value), default: ""] += "M\(column) \(row)h1v1h-1z"
            }
        }
        let number = SVGText.number
        // More digits than pixels need: the factor multiplies up to a hundred cells.
        svg.open(
            "g",
            [
                ("class", "heat"),
                ("transform", "translate(\(number(inner.x)) \(number(inner.y))) scale(\(cellWidth) \(cellHeight))"),
            ])
        for (style, data) in paths.sorted(by: { $0.key < $1.key }) { svg.path(data, style: style) }
        svg.close("g")
    }

    private func style(of ratio: Double) -> String {
        if ratio <= 0 { return "unused" }
        let side = log(ratio) / log(reach) * Double(PlotStyle.heatSteps)
        let limit = Double(PlotStyle.heatSteps)
        return PlotStyle.heatClass(Int(min(max(side, -limit), limit).rounded()))
    }

    private func drawNames(
        _ inner: PlotFrame, _ columns: Int, _ cellWidth: Double, _ frame: PlotFrame, _ svg: inout SVGText
    ) {
        let everyRow = max(1, Int((14 / cellHeight).rounded(.up)))
        for row in stride(from: 0, to: ratios.count, by: everyRow) {
            let y = inner.y + (Double(row) + 0.5) * cellHeight + 4
            svg.label(rowNames[row], x: inner.x - 8, y: y, anchor: .end, style: "tick")
        }
        let everyColumn =
            [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100].first { Double($0) * cellWidth >= 26 } ?? columns
        for column in stride(from: 0, to: columns, by: everyColumn) {
            let x = inner.x + (Double(column) + 0.5) * cellWidth
            svg.label("\(column)", x: x, y: inner.bottom + 15, anchor: .middle, style: "tick")
        }
        svg.label(columnLabel, x: inner.x + inner.width / 2, y: inner.bottom + 33, anchor: .middle, style: "muted")
        svg.label(
            rowLabel, x: frame.x + 11, y: inner.y + inner.height / 2, anchor: .middle, style: "muted", turned: true)
    }

    private func drawScale(x: Double, y: Double, _ svg: inout SVGText) {
        let steps = PlotStyle.heatSteps
        let height = min(max(cellHeight * Double(ratios.count) - 20, 56), 160)
        let part = height / Double(2 * steps + 1)
        for (place, step) in (-steps...steps).reversed().enumerated() {
            svg.rectangle(
                x: x, y: y + Double(place) * part, width: 14, height: part + 0.5,
                style: "heat " + PlotStyle.heatClass(step))
        }
        for (name, share) in [("\(SVGText.number(reach))×", 0.0), ("1×", 0.5), ("1/\(SVGText.number(reach))×", 1.0)] {
            svg.label(name, x: x + 20, y: y + part / 2 + share * (height - part) + 4, style: "tick")
        }
        svg.rectangle(x: x, y: y + height + 8, width: 14, height: 12, style: "unused")
        svg.label(zeroName, x: x + 20, y: y + height + 18, style: "tick")
    }
}
