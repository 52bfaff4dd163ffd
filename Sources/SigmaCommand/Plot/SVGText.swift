import Sigma

/// An SVG picture in the making: elements are appended in the order in which they are drawn. Lengths are in pixels.
public struct SVGText {
    public private(set) var text = ""

    public init() {}

    public mutating func open(_ name: String, _ attributes: [(String, String)] = []) {
        text += "<" + name + Self.joined(attributes) + ">\n"
    }
    public mutating func close(_ name: String) { text += "</" + name + ">\n" }
    /// An element without content.
    public mutating func element(_ name: String, _ attributes: [(String, String)]) {
        text += "<" + name + Self.joined(attributes) + "/>\n"
    }
    /// An element that holds text.
    public mutating func element(_ name: String, _ attributes: [(String, String)] = [], text content: String) {
        text += "<" + name + Self.joined(attributes) + ">" + Self.escaped(content) + "</" + name + ">\n"
    }

    public enum Anchor: String { case start, middle, end }

    public mutating func label(
        _ content: String, x: Double, y: Double, anchor: Anchor = .start, style: String = "text", turned: Bool = false
    ) {
        var attributes = [("class", style), ("text-anchor", anchor.rawValue)]
        if turned {
            attributes.append(("transform", "translate(\(Self.number(x)) \(Self.number(y))) rotate(-90)"))
        } else {
            attributes += [("x", Self.number(x)), ("y", Self.number(y))]
        }
        element("text", attributes, text: content)
    }

    public mutating func line(x1: Double, y1: Double, x2: Double, y2: Double, style: String) {
        element(
            "line",
            [
                ("class", style), ("x1", Self.number(x1)), ("y1", Self.number(y1)), ("x2", Self.number(x2)),
                ("y2", Self.number(y2)),
            ])
    }

    public mutating func rectangle(
        x: Double, y: Double, width: Double, height: Double, style: String, corner: Double = 0
    ) {
        var attributes = [
            ("class", style), ("x", Self.number(x)), ("y", Self.number(y)), ("width", Self.number(width)),
            ("height", Self.number(height)),
        ]
        if corner > 0 { attributes.append(("rx", Self.number(corner))) }
        element("rect", attributes)
    }

    public mutating func path(_ data: String, style: String) { element("path", [("class", style), ("d", data)]) }

    /// At most two decimals, and none that are zero.
    public static func number(_ value: Double) -> String {
        guard value.isFinite else { return "0" }
        var text = JSONWriter.fixed(value, decimals: 2)
        if text.contains(".") {
            while text.hasSuffix("0") { text.removeLast() }
            if text.hasSuffix(".") { text.removeLast() }
        }
        return text
    }

    private static func joined(_ attributes: [(String, String)]) -> String {
        attributes.reduce("") { $0 + " \($1.0)=\"\(escaped($1.1))\"" }
    }

    /// Text as XML has it; characters that XML forbids are left out.
    static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            default:
                let isForbidden =
                    (scalar.value < 0x20 && scalar != "\n" && scalar != "\t") || (scalar.value & 0xfffe) == 0xfffe
                if !isForbidden { result.unicodeScalars.append(scalar) }
            }
        }
        return result
    }
}
