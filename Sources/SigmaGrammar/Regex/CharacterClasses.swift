/// The classes that escapes name. `\d`, `\w` and `\s` are ECMA-262's: ASCII digits and letters.
enum CharacterClasses {
    static let digits = CodePointSet([(0x30, 0x39)])
    static let word = CodePointSet([(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)])
    static let space = CodePointSet([
        (0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
        (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
    ])

    /// General categories by their short and long names, and a few binary properties.
    static func property(_ name: String) -> CodePointSet? {
        var key = name
        for prefix in ["General_Category=", "gc="] where key.hasPrefix(prefix) { key.removeFirst(prefix.count) }
        switch key {
        case "Any": return .all
        case "ASCII": return CodePointSet([(0, 0x7F)])
        case "L", "Letter": return union(["Lu", "Ll", "Lt", "Lm", "Lo"])
        case "LC", "Cased_Letter": return union(["Lu", "Ll", "Lt"])
        case "M", "Mark": return union(["Mn", "Mc", "Me"])
        case "N", "Number": return union(["Nd", "Nl", "No"])
        case "P", "Punctuation", "punct": return union(["Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"])
        case "S", "Symbol": return union(["Sm", "Sc", "Sk", "So"])
        case "Z", "Separator": return union(["Zs", "Zl", "Zp"])
        case "Uppercase_Letter": return categories["Lu"]
        case "Lowercase_Letter": return categories["Ll"]
        case "Decimal_Number", "digit": return categories["Nd"]
        case "Space_Separator": return categories["Zs"]
        case "White_Space", "space":
            return space.union(CodePointSet(0x85)).intersection(CodePointSet(0xFEFF).complement)
        default: return categories[key]
        }
    }

    private static func union(_ names: [String]) -> CodePointSet {
        CodePointSet(names.flatMap { categories[$0]?.ranges ?? [] }.map { ($0.low, $0.high) })
    }

    /// Read once from the standard library's tables.
    private static let categories: [String: CodePointSet] = {
        var pieces: [String: [(UInt32, UInt32)]] = [:]
        var run: (name: String, low: UInt32, high: UInt32) = ("", 0, 0)
        for value in UInt32(0)...CodePointSet.last {
            guard let scalar = Unicode.Scalar(value) else { continue }
            let name = shortName(scalar.properties.generalCategory)
            if name == run.name && run.high + 1 == value {
                run.high = value
            } else {
                pieces[run.name, default: []].append((run.low, run.high))
                run = (name, value, value)
            }
        }
        pieces[run.name, default: []].append((run.low, run.high))
        pieces[""] = nil
        return pieces.mapValues { CodePointSet($0) }
    }()

    private static func shortName(_ category: Unicode.GeneralCategory) -> String {
        switch category {
        case .uppercaseLetter: "Lu"
        case .lowercaseLetter: "Ll"
        case .titlecaseLetter: "Lt"
        case .modifierLetter: "Lm"
        case .otherLetter: "Lo"
        case .nonspacingMark: "Mn"
        case .spacingMark: "Mc"
        case .enclosingMark: "Me"
        case .decimalNumber: "Nd"
        case .letterNumber: "Nl"
        case .otherNumber: "No"
        case .connectorPunctuation: "Pc"
        case .dashPunctuation: "Pd"
        case .openPunctuation: "Ps"
        case .closePunctuation: "Pe"
        case .initialPunctuation: "Pi"
        case .finalPunctuation: "Pf"
        case .otherPunctuation: "Po"
        case .mathSymbol: "Sm"
        case .currencySymbol: "Sc"
        case .modifierSymbol: "Sk"
        case .otherSymbol: "So"
        case .spaceSeparator: "Zs"
        case .lineSeparator: "Zl"
        case .paragraphSeparator: "Zp"
        case .control: "Cc"
        case .format: "Cf"
        case .surrogate: "Cs"
        case .privateUse: "Co"
        case .unassigned: "Cn"
        @unknown default: "Cn"
        }
    }
}
