/// Evaluates a chat template. What it may cost is bounded: templates come from strangers.
struct TemplateRenderer {
    /// Of nodes, values, and pieces of 64 bytes of text.
    private static let costLimit = 500_000
    /// Bytes of a text.
    private static let textLimit = 1 << 20
    private static let depthLimit = 100

    private enum Flow { case normal, breaks, continues }

    /// The innermost last.
    private var scopes: [[String: TemplateValue]]
    private var cost = 0
    private var depth = 0
    private var output = ""
    /// What `strftime_now` makes of its marks.
    private let date: (String) -> String?

    /// - Parameter date: today's date in the form that its marks ask for; nil where they are not known.
    /// - Throws: `TemplateError` for what is not known here, for a template that raises an error, and for one that costs too much.
    static func render(
        _ nodes: [TemplateNode], _ variables: [String: TemplateValue], date: @escaping (String) -> String?
    ) throws -> String {
        var renderer = TemplateRenderer(scopes: [variables], date: date)
        _ = try renderer.run(nodes)
        return renderer.output
    }

    private init(scopes: [[String: TemplateValue]], date: @escaping (String) -> String?) {
        self.scopes = scopes
        self.date = date
    }

    private mutating func step(_ count: Int = 1) throws {
        cost += count
        guard cost <= Self.costLimit else { throw TemplateError("it does not come to an end") }
    }

    private func value(_ name: String) -> TemplateValue {
        for scope in scopes.reversed() { if let value = scope[name] { return value } }
        return Self.functions.contains(name) ? .function : .undefined
    }

    /// Those that Hugging Face's renderer gives templates.
    private static let functions: Set<String> = ["namespace", "dict", "raise_exception", "strftime_now", "range"]

    // MARK: statements

    private mutating func run(_ nodes: [TemplateNode]) throws -> Flow {
        for node in nodes {
            try step()
            switch node {
            case .text(let text): output += text
            case .output(let expression):
                let text = try evaluate(expression).text
                try step(text.utf8.count / 64)
                output += text
            case .condition(let branches, let otherwise):
                var chosen = otherwise
                for branch in branches where try evaluate(branch.test).isTrue {
                    chosen = branch.body
                    break
                }
                let flow = try run(chosen)
                if flow != .normal { return flow }
            case .loop(let loop): try run(loop)
            case .assignment(let name, let member, let expression):
                let value = try evaluate(expression)
                if let member {
                    guard case .namespace(let space) = self.value(name) else {
                        throw TemplateError("'\(name)' is no namespace")
                    }
                    space.members[member] = value
                } else {
                    scopes[scopes.count - 1][name] = value
                }
            case .capture(let name, let body):
                let text = try captured { _ = try $0.run(body) }
                scopes[scopes.count - 1][name] = .string(text)
            case .macro(let macro): scopes[scopes.count - 1][macro.name] = .macro(macro)
            case .breakLoop: return .breaks
            case .continueLoop: return .continues
            }
        }
        return .normal
    }

    private mutating func run(_ loop: TemplateNode.Loop) throws {
        var items = try TemplateFunctions.items(of: evaluate(loop.values))
        scopes.append([:])
        defer { scopes.removeLast() }
        if let test = loop.test {
            var kept: [TemplateValue] = []
            for item in items {
                try bind(loop.names, to: item)
                if try evaluate(test).isTrue { kept.append(item) }
            }
            items = kept
        }
        if items.isEmpty {
            _ = try run(loop.otherwise)
            return
        }
        for (index, item) in items.enumerated() {
            try step()
            // What one turn sets the next doesn't see.
            scopes[scopes.count - 1] = [:]
            try bind(loop.names, to: item)
            scopes[scopes.count - 1]["loop"] = .map([
                ("index", .integer(index + 1)), ("index0", .integer(index)), ("first", .bool(index == 0)),
                ("last", .bool(index == items.count - 1)), ("length", .integer(items.count)),
                ("revindex", .integer(items.count - index)), ("revindex0", .integer(items.count - index - 1)),
                ("previtem", index > 0 ? items[index - 1] : .undefined),
                ("nextitem", index + 1 < items.count ? items[index + 1] : .undefined),
            ])
            if try run(loop.body) == .breaks { break }
        }
    }

    private mutating func bind(_ names: [String], to item: TemplateValue) throws {
        if names.count == 1 {
            scopes[scopes.count - 1][names[0]] = item
            return
        }
        guard case .list(let parts) = item, parts.count == names.count else {
            throw TemplateError("a loop over \(names.count) names and other values")
        }
        for (name, part) in zip(names, parts) { scopes[scopes.count - 1][name] = part }
    }

    private mutating func captured(_ body: (inout TemplateRenderer) throws -> Void) throws -> String {
        let before = output
        output = ""
        try body(&self)
        defer { output = before }
        return output
    }

    // MARK: expressions

    private mutating func evaluate(_ expression: TemplateExpression) throws -> TemplateValue {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthLimit else { throw TemplateError("it calls itself too deeply") }
        let value = try compute(expression)
        if case .string(let text) = value, text.utf8.count > Self.textLimit {
            throw TemplateError("a text that is too long")
        }
        // Values share their parts, so a few lines can make one that is far larger than the memory.
        try step(value.cost(limit: Self.costLimit))
        return value
    }

    private mutating func compute(_ expression: TemplateExpression) throws -> TemplateValue {
        switch expression {
        case .value(let value): return value
        case .name(let name): return value(name)
        case .member(let base, let name): return try evaluate(base).member(name)
        case .item(let base, let index): return TemplateFunctions.item(try evaluate(base), try evaluate(index))
        case .slice(let base, let from, let to, let by):
            func bound(_ part: TemplateExpression?, _ renderer: inout TemplateRenderer) throws -> Int? {
                guard let part else { return nil }
                guard case .integer(let value) = try renderer.evaluate(part) else {
                    throw TemplateError("a slice by something that is no number")
                }
                return value
            }
            return try TemplateFunctions.slice(
                evaluate(base), from: bound(from, &self), to: bound(to, &self), by: bound(by, &self) ?? 1)
        case .call(let function, let arguments): return try call(function, arguments)
        case .filter(let base, let name, let arguments):
            return try TemplateFunctions.filter(name, evaluate(base), values(arguments), named(arguments))
        case .test(let base, let name, let arguments):
            return .bool(try TemplateFunctions.test(name, evaluate(base), values(arguments)))
        case .not(let base): return .bool(!(try evaluate(base).isTrue))
        case .negative(let base):
            return try TemplateFunctions.combine("-", .integer(0), evaluate(base))
        case .binary("and", let left, let right):
            let first = try evaluate(left)
            return first.isTrue ? try evaluate(right) : first
        case .binary("or", let left, let right):
            let first = try evaluate(left)
            return first.isTrue ? first : try evaluate(right)
        case .binary(let symbol, let left, let right):
            return try TemplateFunctions.combine(symbol, evaluate(left), evaluate(right))
        case .conditional(let test, let then, let otherwise):
            if try evaluate(test).isTrue { return try evaluate(then) }
            return try otherwise.map { try evaluate($0) } ?? .undefined
        case .list(let items): return .list(try items.map { try evaluate($0) })
        case .map(let members):
            return .map(try members.map { (key: try evaluate($0.0).text, value: try evaluate($0.1)) })
        }
    }

    private mutating func values(_ arguments: TemplateExpression.Arguments) throws -> [TemplateValue] {
        try arguments.values.map { try evaluate($0) }
    }
    private mutating func named(_ arguments: TemplateExpression.Arguments) throws -> [String: TemplateValue] {
        var result: [String: TemplateValue] = [:]
        for (name, value) in arguments.named { result[name] = try evaluate(value) }
        return result
    }

    private mutating func call(
        _ function: TemplateExpression, _ arguments: TemplateExpression.Arguments
    ) throws -> TemplateValue {
        let (values, named) = (try values(arguments), try named(arguments))
        switch function {
        case .member(let base, let name):
            return try TemplateFunctions.method(name, of: evaluate(base), values)
        case .name(let name):
            if case .macro(let macro) = value(name) { return .string(try call(macro, values, named)) }
            switch name {
            case "namespace": return .namespace(.init(named))
            case "dict": return .map(named.sorted { $0.key < $1.key }.map { (key: $0.key, value: $0.value) })
            case "raise_exception": throw TemplateError("it refuses the conversation: \(values.first?.text ?? "")")
            case "strftime_now":
                let marks = values.first?.text ?? ""
                guard let text = date(marks) else { throw TemplateError("a date as '\(marks)'") }
                return .string(text)
            case "range": return try TemplateFunctions.range(values)
            default: throw TemplateError("the function '\(name)' is not known")
            }
        default: throw TemplateError("a call of something that is no function")
        }
    }

    private mutating func call(
        _ macro: TemplateNode.Macro, _ values: [TemplateValue], _ named: [String: TemplateValue]
    ) throws -> String {
        var scope: [String: TemplateValue] = [:]
        for (index, parameter) in macro.parameters.enumerated() {
            scope[parameter.name] =
                try index < values.count
                ? values[index] : named[parameter.name] ?? parameter.standard.map { try evaluate($0) } ?? .undefined
        }
        // A macro sees the template's own variables, and none of its caller's.
        let caller = scopes
        scopes = [caller[0], scope]
        defer { scopes = caller }
        return try captured { _ = try $0.run(macro.body) }
    }
}
