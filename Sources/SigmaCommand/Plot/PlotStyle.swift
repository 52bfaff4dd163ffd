import Sigma

/// Colours and type of all plots, as a style sheet inside the picture: it follows the viewer's choice of light or dark.
enum PlotStyle {
    /// Colours of series, in this order; then they begin again.
    static let seriesCount = 6

    private struct Palette {
        var surface: String
        var text: String
        var muted: String
        var grid: String
        var axis: String
        var series: [String]
        var unused: String
        /// Below, at and above the middle of a scale.
        var below: Colour
        var middle: Colour
        var above: Colour
    }

    struct Colour {
        var red: Double
        var green: Double
        var blue: Double

        init(_ red: Double, _ green: Double, _ blue: Double) {
            (self.red, self.green, self.blue) = (red, green, blue)
        }

        func mixed(with other: Colour, _ share: Double) -> Colour {
            Colour(
                red + (other.red - red) * share, green + (other.green - green) * share,
                blue + (other.blue - blue) * share)
        }

        var css: String {
            "#"
                + [red, green, blue].map { value in
                    let digits = String(Int(value.rounded()), radix: 16)
                    return digits.count == 1 ? "0" + digits : digits
                }.joined()
        }
    }

    private static let light = Palette(
        surface: "#ffffff", text: "#1c1e21", muted: "#5c6269", grid: "#e6e8eb", axis: "#9aa1a9",
        series: ["#1f6fb4", "#c75d00", "#23824f", "#7d4cb5", "#b03060", "#5c6269"], unused: "#3b3f45",
        below: Colour(33, 92, 168), middle: Colour(244, 243, 239), above: Colour(178, 40, 30))
    private static let dark = Palette(
        surface: "#16181b", text: "#e8eaed", muted: "#a3a9b1", grid: "#2c3035", axis: "#6b727a",
        series: ["#63a9e8", "#f0943a", "#5cbf86", "#b592e6", "#ec7aa4", "#a3a9b1"], unused: "#c9cdd2",
        below: Colour(96, 168, 248), middle: Colour(42, 45, 49), above: Colour(250, 122, 98))

    /// Steps of a heat map's scale on each side of its middle.
    static let heatSteps = 16

    static var sheet: String {
        """
        text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-size:12px}
        .headline{font-size:17px;font-weight:600}
        .title{font-size:13px;font-weight:600}
        .tick{font-size:11px;font-variant-numeric:tabular-nums}
        .grid,.axis,.reference,.curve{fill:none}
        .grid,.axis{stroke-width:1}
        .reference{stroke-width:1.2;stroke-dasharray:5 4}
        .curve{stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
        .heat{shape-rendering:crispEdges}
        \(rules(light))
        @media (prefers-color-scheme:dark){
        \(rules(dark))
        }

        """
    }

    private static func rules(_ p: Palette) -> String {
        var lines = [
            ".surface{fill:\(p.surface)}", ".text,.headline,.title{fill:\(p.text)}", ".muted,.tick{fill:\(p.muted)}",
            ".grid{stroke:\(p.grid)}", ".axis{stroke:\(p.axis)}", ".reference{stroke:\(p.muted)}",
            ".unused{fill:\(p.unused)}",
        ]
        for (index, colour) in p.series.enumerated() {
            lines.append(".curve.s\(index){stroke:\(colour)}.dot.s\(index),.bar.s\(index){fill:\(colour)}")
        }
        for step in -heatSteps...heatSteps {
            let share = Double(abs(step)) / Double(heatSteps)
            let colour = p.middle.mixed(with: step < 0 ? p.below : p.above, share)
            lines.append(".\(heatClass(step)){fill:\(colour.css)}")
        }
        return lines.joined(separator: "\n")
    }

    static func series(_ index: Int) -> String { "s\(index % seriesCount)" }
    static func heatClass(_ step: Int) -> String { step < 0 ? "hm\(-step)" : "hp\(step)" }
}
