import Sigma
import SystemLibrary

/// A rectangle in pixels, y downwards.
public struct PlotFrame: Sendable {
    public var x: Double
    public var y: Double
    public var width: Double
    public var height: Double

    public init(x: Double, y: Double, width: Double, height: Double) {
        (self.x, self.y, self.width, self.height) = (x, y, width, height)
    }

    public var right: Double { x + width }
    public var bottom: Double { y + height }
}

/// A part of a figure.
public protocol PlotPanel: Sendable {
    var height: Double { get }
    func draw(in frame: PlotFrame, on svg: inout SVGText)
}

/// Panels in rows, as one SVG picture: text is text, and the colours follow light and dark.
///
///     let chart = LineChart("Speed", x: PlotAxis("context"), y: PlotAxis("tokens/s", from: 0), series: [...])
///     try PlotFigure("sigma-bench", rows: [[chart]]).write(to: "speed.svg")
public struct PlotFigure: Sendable {
    public var title: String
    public var subtitle: String
    /// Panels beside each other share the width evenly.
    public var rows: [[any PlotPanel]]
    public var width: Double

    public init(_ title: String, subtitle: String = "", rows: [[any PlotPanel]], width: Double = 960) {
        self.title = title
        self.subtitle = subtitle
        self.rows = rows
        self.width = width
    }

    private static let margin = 24.0
    private static let gap = 28.0

    public var svg: String {
        var body = SVGText()
        var y = Self.margin + 14
        body.label(title, x: Self.margin, y: y, style: "headline")
        if !subtitle.isEmpty {
            y += 20
            body.label(subtitle, x: Self.margin, y: y, style: "muted")
        }
        y += 26
        for row in rows where !row.isEmpty {
            let height = row.map(\.height).max() ?? 0
            let room = width - 2 * Self.margin - Self.gap * Double(row.count - 1)
            for (index, panel) in row.enumerated() {
                let part = room / Double(row.count)
                let x = Self.margin + Double(index) * (part + Self.gap)
                panel.draw(in: PlotFrame(x: x, y: y, width: part, height: panel.height), on: &body)
            }
            y += height + 18
        }
        let height = (y + Self.margin - 18).rounded(.up)
        var svg = SVGText()
        svg.open(
            "svg",
            [
                ("xmlns", "http://www.w3.org/2000/svg"), ("width", SVGText.number(width)),
                ("height", SVGText.number(height)),
                ("viewBox", "0 0 \(SVGText.number(width)) \(SVGText.number(height))"), ("role", "img"),
            ])
        svg.element("title", text: title)
        svg.element("style", text: PlotStyle.sheet)
        svg.rectangle(x: 0, y: 0, width: width, height: height, style: "surface")
        return svg.text + body.text + "</svg>\n"
    }

    /// - Throws: `SigmaError`: as `OutputFile.write`.
    public func write(to path: String) throws {
        var svg = svg
        try svg.withUTF8 { try OutputFile.write(UnsafeRawBufferPointer($0), to: path) }
    }
}
