import Sigma

extension JSONValue {
    /// The value as chat templates write it, which is as Python's `json.dumps` does: blanks after commas and colons, nothing escaped that needs no
    /// escape, floating-point numbers as `repr` shows them.
    package var promptText: String {
        var text = ""
        writePrompt(&text)
        return text
    }

    private func writePrompt(_ text: inout String) {
        switch self {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .integer(let value): text += String(value)
        case .number(let value): text += Self.pythonText(value)
        case .decimal(let number): text += Self.pythonText(ofWritten: number)
        case .string(let value): JSONWriter.escape(value, .python, into: &text)
        case .array(let values):
            text += "["
            for (index, value) in values.enumerated() {
                if index > 0 { text += ", " }
                value.writePrompt(&text)
            }
            text += "]"
        case .object(let object):
            text += "{"
            for (index, (key, value)) in zip(object.keys, object.values).enumerated() {
                if index > 0 { text += ", " }
                JSONWriter.escape(key, .python, into: &text)
                text += ": "
                value.writePrompt(&text)
            }
            text += "}"
        }
    }

    /// Integers stay as they are written, whatever their size.
    private static func pythonText(ofWritten number: String) -> String {
        guard number.utf8.contains(where: { $0 == UInt8(ascii: ".") || $0 | 0x20 == UInt8(ascii: "e") }) else {
            return number == "-0" ? "0" : number
        }
        return pythonText(Double(number) ?? 0)
    }

    /// The shortest digits that read back as the same number, with an exponent where the point would be far away.
    private static func pythonText(_ value: Double) -> String {
        let sign = value.sign == .minus ? "-" : ""
        guard value != 0 else { return sign + "0.0" }
        let parts = "\(value.magnitude)".split(separator: "e")
        let fraction = parts[0].split(separator: ".")
        var digits = String(fraction[0]) + (fraction.count > 1 && fraction[1] != "0" ? String(fraction[1]) : "")
        // 0.digits times 10 to the power of `exponent`
        var exponent = fraction[0].utf8.count + (parts.count > 1 ? Int(parts[1]) ?? 0 : 0)
        while digits.hasPrefix("0") {
            digits.removeFirst()
            exponent -= 1
        }
        while digits.hasSuffix("0") { digits.removeLast() }
        let count = digits.utf8.count
        switch exponent {
        case -3...0: return sign + "0." + String(repeating: "0", count: -exponent) + digits
        case 1...16 where count <= exponent:
            return sign + digits + String(repeating: "0", count: exponent - count) + ".0"
        case 1...16: return sign + digits.prefix(exponent) + "." + digits.dropFirst(exponent)
        default:
            let power = exponent - 1
            let shown = power.magnitude < 10 ? "0\(power.magnitude)" : "\(power.magnitude)"
            return sign + digits.prefix(1) + (count > 1 ? "." + digits.dropFirst() : "")
                + "e\(power < 0 ? "-" : "+")\(shown)"
        }
    }
}
