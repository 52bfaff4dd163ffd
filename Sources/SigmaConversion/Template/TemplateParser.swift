/// Parses the part of Jinja's language that chat templates use; anything else is an error.
struct TemplateParser {
    private typealias Segment = TemplateLexer.Segment
    private typealias Token = TemplateLexer.Token

    private static let depthLimit = 64

    private let segments: [TemplateLexer.Segment]
    private var segment = 0
    private var depth = 0

    static func nodes(_ template: String) throws -> [TemplateNode] {
        var parser = TemplateParser(segments: try TemplateLexer.segments(template))
        let (nodes, end) = try parser.body(until: [])
        guard end == nil else { throw TemplateError("'\(end!.word)' without a beginning") }
        return nodes
    }

    private init(segments: [TemplateLexer.Segment]) { self.segments = segments }

    /// A statement that ends a body: its word and what follows.
    private struct End {
        let word: String
        var rest: ExpressionParser
    }

    private mutating func body(until words: Set<String>) throws -> ([TemplateNode], End?) {
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.depthLimit else { throw TemplateError("blocks nested too deeply") }
        var nodes: [TemplateNode] = []
        while segment < segments.count {
            defer { segment += 1 }
            switch segments[segment] {
            case .text(let text): nodes.append(.text(text))
            case .expression(let tokens):
                var parser = ExpressionParser(tokens)
                nodes.append(.output(try parser.expression()))
                try parser.checkEnd()
            case .statement(let tokens):
                var parser = ExpressionParser(tokens)
                let word = try parser.takeName()
                if words.contains(word) { return (nodes, End(word: word, rest: parser)) }
                if let node = try statement(word, &parser) { nodes.append(node) }
            }
        }
        guard words.isEmpty else { throw TemplateError("a block without end") }
        return (nodes, nil)
    }

    /// The body of a block whose first statement was the current segment; afterwards its last statement is the current segment.
    private mutating func block(until words: Set<String>) throws -> ([TemplateNode], End) {
        segment += 1
        let (nodes, end) = try body(until: words)
        guard let end else { throw TemplateError("a block without end") }
        segment -= 1
        return (nodes, end)
    }

    private mutating func statement(_ word: String, _ parser: inout ExpressionParser) throws -> TemplateNode? {
        switch word {
        case "if":
            var branches: [(TemplateExpression, [TemplateNode])] = []
            var otherwise: [TemplateNode] = []
            var test = try parser.expression()
            try parser.checkEnd()
            while true {
                var (nodes, end) = try block(until: ["elif", "else", "endif"])
                branches.append((test, nodes))
                if end.word == "elif" {
                    test = try end.rest.expression()
                    try end.rest.checkEnd()
                    continue
                }
                if end.word == "else" { (otherwise, _) = try block(until: ["endif"]) }
                return .condition(branches.map { (test: $0.0, body: $0.1) }, otherwise: otherwise)
            }
        case "for":
            var names = [try parser.takeName()]
            while parser.take(",") { names.append(try parser.takeName()) }
            guard parser.takeWord("in") else { throw TemplateError("expected 'in' in a loop") }
            let values = try parser.disjunction()
            let test = parser.takeWord("if") ? try parser.expression() : nil
            try parser.checkEnd()
            let (nodes, end) = try block(until: ["else", "endfor"])
            let otherwise = end.word == "else" ? try block(until: ["endfor"]).0 : []
            return .loop(.init(names: names, values: values, test: test, body: nodes, otherwise: otherwise))
        case "set":
            let name = try parser.takeName()
            let member = parser.take(".") ? try parser.takeName() : nil
            if parser.take("=") {
                let value = try parser.expression()
                try parser.checkEnd()
                return .assignment(name: name, member: member, value)
            }
            try parser.checkEnd()
            return .capture(name: name, try block(until: ["endset"]).0)
        case "macro":
            let name = try parser.takeName()
            guard parser.take("(") else { throw TemplateError("expected parameters of a macro") }
            var parameters: [(name: String, standard: TemplateExpression?)] = []
            while !parser.take(")") {
                let parameter = try parser.takeName()
                parameters.append((parameter, parser.take("=") ? try parser.expression() : nil))
                _ = parser.take(",")
            }
            return .macro(.init(name: name, parameters: parameters, body: try block(until: ["endmacro"]).0))
        case "break": return .breakLoop
        case "continue": return .continueLoop
        // Marks for training.
        case "generation", "endgeneration": return nil
        default: throw TemplateError("the statement '\(word)' is not known")
        }
    }
}

/// Parses one tag's tokens, lowest precedence first.
struct ExpressionParser {
    private typealias Token = TemplateLexer.Token

    private static let depthLimit = 64

    private let tokens: [TemplateLexer.Token]
    private var position = 0
    private var depth = 0

    init(_ tokens: [TemplateLexer.Token]) { self.tokens = tokens }

    private var next: TemplateLexer.Token? { position < tokens.count ? tokens[position] : nil }

    mutating func take(_ symbol: String) -> Bool {
        guard next == .symbol(symbol) else { return false }
        position += 1
        return true
    }
    mutating func takeWord(_ word: String) -> Bool {
        guard next == .name(word) else { return false }
        position += 1
        return true
    }
    mutating func takeName() throws -> String {
        guard case .name(let name)? = next else { throw TemplateError("expected a name") }
        position += 1
        return name
    }
    private mutating func expect(_ symbol: String) throws {
        guard take(symbol) else { throw TemplateError("expected '\(symbol)'") }
    }
    func checkEnd() throws { guard next == nil else { throw TemplateError("expected the end of a tag") } }

    mutating func expression() throws -> TemplateExpression {
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.depthLimit else { throw TemplateError("an expression nested too deeply") }
        let value = try disjunction()
        guard takeWord("if") else { return value }
        let test = try disjunction()
        return .conditional(test, then: value, otherwise: takeWord("else") ? try expression() : nil)
    }

    mutating func disjunction() throws -> TemplateExpression {
        var left = try conjunction()
        while takeWord("or") { left = .binary("or", left, try conjunction()) }
        return left
    }
    private mutating func conjunction() throws -> TemplateExpression {
        var left = try negation()
        while takeWord("and") { left = .binary("and", left, try negation()) }
        return left
    }
    private mutating func negation() throws -> TemplateExpression {
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.depthLimit else { throw TemplateError("an expression nested too deeply") }
        return takeWord("not") ? .not(try negation()) : try comparison()
    }
    private mutating func comparison() throws -> TemplateExpression {
        var left = try sum()
        while true {
            if let symbol = ["==", "!=", "<=", ">=", "<", ">"].first(where: { next == .symbol($0) }) {
                position += 1
                left = .binary(symbol, left, try sum())
            } else if takeWord("in") {
                left = .binary("in", left, try sum())
            } else if next == .name("not"), position + 1 < tokens.count, tokens[position + 1] == .name("in") {
                position += 2
                left = .not(.binary("in", left, try sum()))
            } else {
                return left
            }
        }
    }
    private mutating func sum() throws -> TemplateExpression {
        var left = try product()
        while let symbol = ["+", "-", "~"].first(where: { next == .symbol($0) }) {
            position += 1
            left = .binary(symbol, left, try product())
        }
        return left
    }
    private mutating func product() throws -> TemplateExpression {
        var left = try unary()
        while let symbol = ["*", "//", "/", "%"].first(where: { next == .symbol($0) }) {
            position += 1
            left = .binary(symbol, left, try unary())
        }
        return left
    }
    private mutating func unary() throws -> TemplateExpression {
        if take("-") { return .negative(try postfix(try primary())) }
        return try postfix(try primary())
    }

    private mutating func postfix(_ start: TemplateExpression) throws -> TemplateExpression {
        var value = start
        while true {
            if take(".") {
                value = .member(value, try takeName())
            } else if take("[") {
                value = try subscripted(value)
            } else if take("(") {
                value = .call(value, try arguments())
            } else if take("|") {
                let name = try takeName()
                value = .filter(value, name, take("(") ? try arguments() : .init())
            } else if takeWord("is") {
                let isNegated = takeWord("not")
                let name = try takeName()
                var operands = TemplateExpression.Arguments()
                if take("(") {
                    operands = try arguments()
                } else if ["equalto", "eq", "sameas", "in", "divisibleby"].contains(name) {
                    operands.values = [try primary()]
                }
                value = .test(value, name, operands)
                if isNegated { value = .not(value) }
            } else {
                return value
            }
        }
    }

    private mutating func subscripted(_ value: TemplateExpression) throws -> TemplateExpression {
        var bounds: [TemplateExpression?] = []
        var current: TemplateExpression?
        while true {
            if take("]") { break }
            if take(":") {
                bounds.append(current)
                current = nil
            } else {
                current = try expression()
            }
        }
        if bounds.isEmpty {
            guard let current else { throw TemplateError("expected an index") }
            return .item(value, current)
        }
        bounds.append(current)
        guard bounds.count <= 3 else { throw TemplateError("a slice with more than three parts") }
        return .slice(value, bounds[0], bounds[1], bounds.count > 2 ? bounds[2] : nil)
    }

    private mutating func arguments() throws -> TemplateExpression.Arguments {
        var arguments = TemplateExpression.Arguments()
        while !take(")") {
            if case .name(let name)? = next, position + 1 < tokens.count, tokens[position + 1] == .symbol("=") {
                position += 2
                arguments.named.append((name, try expression()))
            } else {
                arguments.values.append(try expression())
            }
            guard take(",") || next == .symbol(")") else { throw TemplateError("expected ',' or ')'") }
        }
        return arguments
    }

    private mutating func primary() throws -> TemplateExpression {
        guard let token = next else { throw TemplateError("expected an expression") }
        position += 1
        switch token {
        case .integer(let value): return .value(.integer(value))
        case .string(var text):
            // Strings side by side are one.
            while case .string(let more)? = next {
                text += more
                position += 1
            }
            return .value(.string(text))
        case .name("true"), .name("True"): return .value(.bool(true))
        case .name("false"), .name("False"): return .value(.bool(false))
        case .name("none"), .name("None"): return .value(.none)
        case .name(let name): return .name(name)
        case .symbol("("):
            var values = [try expression()]
            var isTuple = false
            while take(",") {
                isTuple = true
                if next == .symbol(")") { break }
                values.append(try expression())
            }
            try expect(")")
            return isTuple ? .list(values) : values[0]
        case .symbol("["):
            var values: [TemplateExpression] = []
            while !take("]") {
                values.append(try expression())
                guard take(",") || next == .symbol("]") else { throw TemplateError("expected ',' or ']'") }
            }
            return .list(values)
        case .symbol("{"):
            var members: [(TemplateExpression, TemplateExpression)] = []
            while !take("}") {
                let key = try expression()
                try expect(":")
                members.append((key, try expression()))
                guard take(",") || next == .symbol("}") else { throw TemplateError("expected ',' or '}'") }
            }
            return .map(members)
        case .symbol(let symbol): throw TemplateError("expected an expression, found '\(symbol)'")
        }
    }
}
