/// How many columns text takes on a terminal.
///
/// Unicode leaves this to the terminal; this is what those in use agree on: East Asian wide and fullwidth characters and emoji take two columns,
/// marks that combine with the character before them none (UAX #11, UTS #51).
public enum DisplayWidth {
    /// 0, 1 or 2. Control characters have no width: they are shown in another form (`DisplayText`).
    public static func of(_ character: Character) -> Int {
        var width = 0
        for scalar in character.unicodeScalars {
            // An emoji's variation selector makes what is before it an emoji.
            if scalar.value == 0xfe0f, width > 0 { return 2 }
            width = max(width, of(scalar))
        }
        return width
    }

    public static func of(_ text: some StringProtocol) -> Int { text.reduce(0) { $0 + of($1) } }

    static func of(_ scalar: Unicode.Scalar) -> Int {
        let value = scalar.value
        if value < 0x300 { return value < 0x20 || (0x7f..<0xa0).contains(value) ? 0 : 1 }
        // The vowels and finals of a Hangul syllable that is written in parts.
        if (0x1160...0x11ff).contains(value) { return 0 }
        switch scalar.properties.generalCategory {
        case .nonspacingMark, .enclosingMark, .format: return 0
        default: break
        }
        if isWide(value) || scalar.properties.isEmojiPresentation { return 2 }
        return 1
    }

    /// Ranges of UAX #11's W and F, without those that are emoji, with the unassigned places between them as the standard asks.
    private static func isWide(_ value: UInt32) -> Bool {
        guard value >= 0x1100 else { return false }
        return switch value {
        case 0x1100...0x115f, 0x2329...0x232a, 0x2e80...0x303e, 0x3041...0xa4cf, 0xa960...0xa97f, 0xac00...0xd7a3,
            0xf900...0xfaff, 0xfe10...0xfe19, 0xfe30...0xfe6f, 0xff01...0xff60, 0xffe0...0xffe6, 0x16fe0...0x18dff,
            0x1aff0...0x1b2ff, 0x1f200...0x1f2ff, 0x20000...0x3fffd:
            true
        default: false
        }
    }

    /// The longest end of `text` that takes at most `columns`.
    public static func end(of text: String, columns: Int) -> Substring {
        var start = text.endIndex
        var width = 0
        while start > text.startIndex {
            let previous = text.index(before: start)
            width += of(text[previous])
            if width > columns { break }
            start = previous
        }
        return text[start...]
    }
}

/// Text from a model or a file on its way to a terminal.
public enum DisplayText {
    /// Control characters, which could move the cursor or worse, in a form that can be seen; line ends and tabs stay.
    public static func printable(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isHidden) else { return text }
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            if isHidden(scalar) {
                result.append(contentsOf: caret(scalar).unicodeScalars)
            } else {
                result.append(scalar)
            }
        }
        return String(result)
    }

    /// A JSON text whose strings have no raw control character: those that JSON allows become escapes, too.
    public static func escapedInJSON(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isHidden) else { return text }
        var result = ""
        for scalar in text.unicodeScalars {
            if isHidden(scalar) {
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    private static func isHidden(_ scalar: Unicode.Scalar) -> Bool {
        (scalar.value < 0x20 && scalar != "\n" && scalar != "\t") || (0x7f..<0xa0).contains(scalar.value)
    }

    /// `^C`, and U+0080 to U+009F as `^[C`.
    static func caret(_ scalar: Unicode.Scalar) -> String {
        switch scalar.value {
        case 0..<0x20: "^" + String(UnicodeScalar(UInt8(scalar.value + 0x40)))
        case 0x7f: "^?"
        default: "^[" + String(UnicodeScalar(UInt8(truncatingIfNeeded: (scalar.value & 0x1f) + 0x40)))
        }
    }
}
