extension JSONValue {
    /// The value as chat templates write it, which is as Python's `json.dumps` does: blanks after commas and colons, nothing escaped that needs no
    /// escape, floating-point numbers as `repr` shows them.
    package var promptText: String { promptText(indent: nil) }

    /// - Parameter indent: blanks by which members and items stand on lines of their own; nil: all is one line.
    package func promptText(indent: Int?) -> String {
        var text = ""
        writePrompt(&text, indent: indent, depth: 0)
        return text
    }

    private func writePrompt(_ text: inout String, indent: Int?, depth: Int) {
        func items<Item>(_ open: String, _ close: String, _ items: [Item], _ write: (Item, inout String) -> Void) {
            func line(_ depth: Int) -> String { indent.map { "\n" + String(repeating: " ", count: $0 * depth) } ?? "" }
            text += open
            for (index, item) in items.enumerated() {
                if index > 0 { text += indent == nil ? ", " : "," }
                text += line(depth + 1)
                write(item, &text)
            }
            if !items.isEmpty { text += line(depth) }
            text += close
        }
        switch self {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .integer(let value): text += String(value)
        case .number(let value): text += Self.pythonText(value)
        case .decimal(let number): text += Self.pythonText(ofWritten: number)
        case .string(let value): JSONWriter.escape(value, .python, into: &text)
        case .array(let values):
            items("[", "]", values) { value, text in value.writePrompt(&text, indent: indent, depth: depth + 1) }
        case .object(let object):
            items("{", "}", Array(zip(object.keys, object.values))) { member, text in
                JSONWriter.escape(member.0, .python, into: &text)
                text += ": "
                member.1.writePrompt(&text, indent: indent, depth: depth + 1)
            }
        }
    }

    /// The value as Python's `str` shows it: strings as they are.
    package var pythonText: String {
        if case .string(let text) = self { text } else { pythonRepresentation }
    }

    /// As Python's `repr` shows it.
    private var pythonRepresentation: String {
        switch self {
        case .null: "None"
        case .bool(let value): value ? "True" : "False"
        case .integer, .number, .decimal: promptText
        case .string(let text): Self.quoted(text)
        case .array(let values): "[" + values.map(\.pythonRepresentation).joined(separator: ", ") + "]"
        case .object(let object):
            "{"
                + zip(object.keys, object.values).map { Self.quoted($0) + ": " + $1.pythonRepresentation }
                .joined(separator: ", ") + "}"
        }
    }

    private static func quoted(_ text: String) -> String {
        let scalars = text.unicodeScalars
        let mark: Unicode.Scalar = scalars.contains("'") && !scalars.contains("\"") ? "\"" : "'"
        var result = String(mark)
        for scalar in scalars {
            switch scalar {
            case mark, "\\": result += "\\" + String(scalar)
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case " ": result += " "
            default:
                switch scalar.properties.generalCategory {
                case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator,
                    .spaceSeparator:
                    let hex = String(scalar.value, radix: 16)
                    let (letter, width) = hex.count <= 2 ? ("x", 2) : hex.count <= 4 ? ("u", 4) : ("U", 8)
                    result += "\\" + letter + String(repeating: "0", count: width - hex.count) + hex
                default: result.unicodeScalars.append(scalar)
                }
            }
        }
        return result + String(mark)
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
        guard value.isFinite else { return sign + "Infinity" }
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
