/// Writes one JSON text, in the order of the calls, without spaces.
///
///     var json = JSONWriter()
///     json.object {
///         $0.field("event", "token")
///         $0.field("logprob", -0.25, decimals: 6)
///         $0.array("ids") { $0.value(1); $0.value(2) }
///     }
///     print(json.text)        // {"event":"token","logprob":-0.250000,"ids":[1,2]}
package struct JSONWriter: Sendable {
    package private(set) var text = ""
    private var needsComma = false

    package init() {}

    // MARK: values (of an array, or the text itself)

    package mutating func value(_ value: String) {
        separate()
        Self.escape(value, into: &text)
    }
    package mutating func value(_ value: Bool) { raw(value ? "true" : "false") }
    package mutating func value(_ value: some FixedWidthInteger) { raw(String(value)) }
    /// The shortest text that reads back as the same number; null if it is not finite.
    package mutating func value(_ value: Double) { raw(value.isFinite ? "\(value)" : "null") }
    package mutating func value(_ value: Double, decimals: Int) { raw(Self.fixed(value, decimals: decimals)) }
    package mutating func null() { raw("null") }
    /// Another JSON text, as it is.
    package mutating func json(_ text: String) { raw(text) }
    package mutating func object(_ body: (inout JSONWriter) throws -> Void) rethrows { try nest("{", "}", body) }
    package mutating func array(_ body: (inout JSONWriter) throws -> Void) rethrows { try nest("[", "]", body) }

    // MARK: members of an object

    package mutating func field(_ key: String, _ value: String) {
        self.key(key)
        self.value(value)
    }
    package mutating func field(_ key: String, _ value: Bool) {
        self.key(key)
        self.value(value)
    }
    package mutating func field(_ key: String, _ value: some FixedWidthInteger) {
        self.key(key)
        self.value(value)
    }
    package mutating func field(_ key: String, _ value: Double) {
        self.key(key)
        self.value(value)
    }
    package mutating func field(_ key: String, _ value: Double, decimals: Int) {
        self.key(key)
        self.value(value, decimals: decimals)
    }
    package mutating func object(_ key: String, _ body: (inout JSONWriter) throws -> Void) rethrows {
        self.key(key)
        try object(body)
    }
    package mutating func array(_ key: String, _ body: (inout JSONWriter) throws -> Void) rethrows {
        self.key(key)
        try array(body)
    }
    /// A member's name; its value must follow.
    package mutating func key(_ key: String) {
        separate()
        Self.escape(key, into: &text)
        text += ":"
        needsComma = false
    }

    // MARK: parts

    private mutating func separate() {
        if needsComma { text += "," }
        needsComma = true
    }
    private mutating func raw(_ string: String) {
        separate()
        text += string
    }
    private mutating func nest(_ open: String, _ close: String, _ body: (inout JSONWriter) throws -> Void) rethrows {
        separate()
        text += open
        needsComma = false
        try body(&self)
        text += close
        needsComma = true
    }

    /// What a string's escapes are.
    package enum Escapes {
        /// Control characters, U+007F, and U+2028 and U+2029, which are line ends for some readers.
        case all
        /// As Python's `json.dumps(ensure_ascii=False)` does: control characters below U+0020.
        case python
    }

    /// Appends `string` in quotation marks.
    package static func escape(_ string: String, _ escapes: Escapes = .all, into text: inout String) {
        text += "\""
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            case "\u{8}" where escapes == .python: text += "\\b"
            case "\u{c}" where escapes == .python: text += "\\f"
            case "\0"..<"\u{20}": appendEscape(scalar, to: &text)
            case "\u{7f}" where escapes == .all, "\u{2028}" where escapes == .all, "\u{2029}" where escapes == .all:
                appendEscape(scalar, to: &text)
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }

    private static func appendEscape(_ scalar: Unicode.Scalar, to text: inout String) {
        let hex = String(scalar.value, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - hex.utf8.count) + hex
    }

    /// `value` with exactly `decimals` digits (at most 9) after the point; "null" if it is not finite. Values of 9e9 and more are
    /// written in full by `description` instead.
    package static func fixed(_ value: Double, decimals: Int) -> String {
        precondition((0...9).contains(decimals))
        guard value.isFinite else { return "null" }
        guard value.magnitude < 9e9 else { return "\(value)" }
        var scale: Int64 = 1
        for _ in 0..<decimals { scale *= 10 }
        let scaled = Int64((value.magnitude * Double(scale)).rounded())
        var text = value < 0 && scaled != 0 ? "-" : ""
        text += String(scaled / scale)
        if decimals > 0 {
            let fraction = String(scaled % scale)
            text += "." + String(repeating: "0", count: decimals - fraction.utf8.count) + fraction
        }
        return text
    }
}
