/// A chat template cut into text, expressions and statements, with white space as Hugging Face's renderer treats it (`trim_blocks` and
/// `lstrip_blocks`).
enum TemplateLexer {
    enum Segment {
        case text(String)
        case expression([Token])
        case statement([Token])
    }

    enum Token: Equatable {
        case name(String)
        case string(String)
        case integer(Int)
        case symbol(String)
    }

    private static let tokenLimit = 1024

    static func segments(_ template: String) throws -> [Segment] {
        var text = Array(template.unicodeScalars)
        // A line end at the end is no part of a template.
        if text.last == "\n" { text.removeLast() }
        var segments: [Segment] = []
        var position = 0
        var pending: [Unicode.Scalar] = []
        var trims = false
        var beginsLine = true
        func flush(_ strips: Bool, _ isBlock: Bool) {
            if strips {
                while let last = pending.last, last.properties.isWhitespace { pending.removeLast() }
            } else if isBlock {
                // White space between a line's begin and a block is not printed.
                let line = pending.lastIndex(of: "\n").map { $0 + 1 } ?? 0
                if line > 0 || beginsLine, pending[line...].allSatisfy({ $0 == " " || $0 == "\t" }) {
                    pending.removeSubrange(line...)
                }
            }
            if !pending.isEmpty { segments.append(.text(string(pending))) }
            pending = []
        }
        while position < text.count {
            guard text[position] == "{", position + 1 < text.count, "{%#".unicodeScalars.contains(text[position + 1])
            else {
                if trims, text[position].properties.isWhitespace {
                    position += 1
                    continue
                }
                trims = false
                pending.append(text[position])
                position += 1
                continue
            }
            trims = false
            let kind = text[position + 1]
            position += 2
            var strips = false
            var keeps = false
            if position < text.count, text[position] == "-" || text[position] == "+" {
                strips = text[position] == "-"
                keeps = !strips
                position += 1
            }
            flush(strips, kind != "{" && !keeps)
            if kind == "#" {
                while position + 1 < text.count, !(text[position] == "#" && text[position + 1] == "}") { position += 1 }
                guard position + 1 < text.count else { throw TemplateError("a comment without end") }
                trims = text[position - 1] == "-"
                position += 2
            } else {
                let tokens = try tokens(text, &position, closing: kind == "{" ? "}" : "%", &trims)
                segments.append(kind == "{" ? .expression(tokens) : .statement(tokens))
            }
            beginsLine = kind != "{" && !trims && position < text.count && text[position] == "\n"
            if beginsLine { position += 1 }
        }
        if !pending.isEmpty { segments.append(.text(string(pending))) }
        return segments
    }

    private static func string(_ scalars: some Sequence<Unicode.Scalar>) -> String {
        var text = String.UnicodeScalarView()
        text.append(contentsOf: scalars)
        return String(text)
    }

    /// The tokens up to the tag's end. `position` is then after it.
    private static func tokens(
        _ text: [Unicode.Scalar], _ position: inout Int, closing: Unicode.Scalar, _ trims: inout Bool
    ) throws -> [Token] {
        var tokens: [Token] = []
        var depth = 0
        while position < text.count {
            // A tree is as deep as its tag is long.
            guard tokens.count < tokenLimit else { throw TemplateError("a tag that is too long") }
            let scalar = text[position]
            func next(_ offset: Int) -> Unicode.Scalar? {
                position + offset < text.count ? text[position + offset] : nil
            }
            if depth == 0 {
                if scalar == closing, next(1) == "}" {
                    position += 2
                    return tokens
                }
                if scalar == "-" || scalar == "+", next(1) == closing, next(2) == "}" {
                    trims = scalar == "-"
                    position += 3
                    return tokens
                }
            }
            if scalar.properties.isWhitespace {
                position += 1
            } else if scalar == "'" || scalar == "\"" {
                tokens.append(.string(try quoted(text, &position)))
            } else if scalar.properties.isAlphabetic || scalar == "_" {
                var name: [Unicode.Scalar] = []
                while position < text.count,
                    text[position].properties.isAlphabetic || text[position] == "_"
                        || ("0"..."9").contains(text[position])
                {
                    name.append(text[position])
                    position += 1
                }
                tokens.append(.name(string(name)))
            } else if ("0"..."9").contains(scalar) {
                var digits: [Unicode.Scalar] = []
                while position < text.count, ("0"..."9").contains(text[position]) {
                    digits.append(text[position])
                    position += 1
                }
                guard digits.count < 18, let value = Int(string(digits)) else {
                    throw TemplateError("a number too large")
                }
                tokens.append(.integer(value))
            } else {
                let pair = next(1).map { string([scalar, $0]) } ?? ""
                let symbol = ["==", "!=", "<=", ">=", "//", "**"].contains(pair) ? pair : string([scalar])
                guard "()[]{},:.|+-*/%~=<>!".unicodeScalars.contains(scalar) else {
                    throw TemplateError("an unexpected character '\(scalar)'")
                }
                if "([{".unicodeScalars.contains(scalar) { depth += 1 }
                if ")]}".unicodeScalars.contains(scalar) { depth -= 1 }
                tokens.append(.symbol(symbol))
                position += symbol.unicodeScalars.count
            }
        }
        throw TemplateError("a tag without end")
    }

    private static func quoted(_ text: [Unicode.Scalar], _ position: inout Int) throws -> String {
        let quote = text[position]
        position += 1
        var result: [Unicode.Scalar] = []
        while position < text.count, text[position] != quote {
            if text[position] == "\\", position + 1 < text.count {
                position += 1
                switch text[position] {
                case "n": result.append("\n")
                case "t": result.append("\t")
                case "r": result.append("\r")
                case "\\", "'", "\"": result.append(text[position])
                case "u":
                    let digits = string(text[min(position + 1, text.count)..<min(position + 5, text.count)])
                    guard let value = UInt32(digits, radix: 16), let scalar = Unicode.Scalar(value) else {
                        throw TemplateError("an unknown escape in a string")
                    }
                    result.append(scalar)
                    position += 4
                // Python keeps the backslash of what it doesn't know.
                default: result += ["\\", text[position]]
                }
            } else {
                result.append(text[position])
            }
            position += 1
        }
        guard position < text.count else { throw TemplateError("a string without end") }
        position += 1
        return string(result)
    }
}
