import Foundation
import SigmaCommand
import Testing

/// Charts, looked at through the text of the picture.
@Suite struct PlotTests {
    /// Texts of a class, in the order they are drawn.
    static func texts(_ svg: String, _ style: String) -> [String] {
        svg.split(separator: "\n").filter { $0.hasPrefix("<text class=\"\(style)\"") }.map { line in
            String(line.drop { $0 != ">" }.dropFirst().prefix { $0 != "<" })
        }
    }

    static func svg(_ panel: some PlotPanel) -> String { PlotFigure("Title", rows: [[panel]], width: 480).svg }

    static func chart(_ x: PlotAxis, _ y: PlotAxis, _ points: [(x: Double, y: Double)]) -> String {
        svg(LineChart("Chart", x: x, y: y, series: [.init("one", points)]))
    }

    @Test func ticksAreRoundNumbers() {
        let line = [(x: 0.0, y: 0.0), (x: 55, y: 0.93)]
        #expect(
            Self.texts(Self.chart(PlotAxis("x", isWhole: true), PlotAxis("y"), line), "tick")
                == ["0", "0.25", "0.50", "0.75", "1.00", "0", "20", "40", "60"])
        #expect(
            Self.texts(
                Self.chart(PlotAxis("x", from: 0, to: 55), PlotAxis("y", format: .percent, from: 0, to: 1), line),
                "tick")
                == ["0 %", "25 %", "50 %", "75 %", "100 %", "0", "20", "40"])
        let wide = [(x: 1.0, y: 3e-7), (x: 1000, y: 2.0)]
        #expect(
            Self.texts(
                Self.chart(PlotAxis("x", scale: .logarithmic), PlotAxis("y", scale: .logarithmic), wide), "tick")
                == ["10⁻⁷", "10⁻⁵", "0.001", "0.1", "10", "1", "10", "100", "1000"])
        let bytes = [(x: Double(1 << 30), y: 1.0), (x: Double(8 << 30), y: 2.0)]
        #expect(
            Self.texts(Self.chart(PlotAxis("x", scale: .logarithmic, format: .bytes), PlotAxis("y"), bytes), "tick")
                .suffix(4) == ["1.00 GiB", "2.00 GiB", "4.00 GiB", "8.00 GiB"])
    }

    /// Values that no axis has: equal ones, none, infinite ones.
    @Test func chartsOfAnything() {
        for points in [
            [], [(x: 1.0, y: 5.0)], [(1, 5), (1, 5)], [(0, .nan), (1, .infinity)], [(0, -3), (1, -3)], [(0, 0)],
        ] {
            for scale in [PlotAxis.Scale.linear, .logarithmic] {
                let text = Self.chart(PlotAxis("x", scale: scale), PlotAxis("y", scale: scale), points)
                #expect(text.hasSuffix("</svg>\n"))
                #expect(!text.contains("nan") && !text.contains("inf"))
            }
        }
    }

    @Test func linesHaveGapsAndFewPoints() throws {
        func path(_ points: [(x: Double, y: Double)]) throws -> Substring {
            let text = Self.chart(PlotAxis("x"), PlotAxis("y"), points)
            return try #require(text.split(separator: "\n").first { $0.hasPrefix("<path class=\"curve") })
        }
        let gap = try path([(0, 1), (1, 2), (2, .nan), (3, 1), (4, 2)])
        #expect(gap.count { $0 == "M" } == 2 && gap.count { $0 == "L" } == 2)
        let dense = try path((0..<100_000).map { (Double($0), Double($0)) })
        #expect(dense.count { $0 == "L" } < 2500 && dense.count { $0 == "L" } > 300)
        // Both ends are there.
        #expect(dense.contains("M90 ") && dense.contains("L444 "))
    }

    @Test func textIsEscaped() {
        let text = Self.chart(PlotAxis("a<b & \"c\"\u{0}"), PlotAxis("y"), [(0, 1)])
        #expect(text.contains("a&lt;b &amp; &quot;c&quot;<"))
    }

    @Test func heatMapsSortByRatio() {
        let map = HeatMap(
            "Map", rowLabel: "r", columnLabel: "c", rowNames: ["0", "1"],
            ratios: [[1, 4, 0.25, 0], [9, 0.01, 2, .nan]], reach: 4, zeroName: "none")
        let text = Self.svg(map)
        #expect(text.contains("<path class=\"hp0\" d=\"M0 0h1v1h-1z\"/>"))
        #expect(text.contains("<path class=\"hp16\" d=\"M1 0h1v1h-1zM0 1h1v1h-1z\"/>"))
        #expect(text.contains("<path class=\"hm16\" d=\"M2 0h1v1h-1zM1 1h1v1h-1z\"/>"))
        #expect(text.contains("<path class=\"unused\" d=\"M3 0h1v1h-1z\"/>"))
        #expect(text.contains("<path class=\"hp8\" d=\"M2 1h1v1h-1z\"/>"))
        #expect(!text.contains("M3 1"))
    }
}
