import SigmaBase

/// From a constraint's text to its grammar.
struct ConstraintCompiler {
    let limits: ConstraintLimits

    func grammar(of constraint: Constraint) throws(ConstraintError) -> Grammar {
        switch constraint {
        case .json: try grammar(schema: .bool(true))
        case .jsonObject:
            try grammar(schema: .object(Self.objectSchema))
        case .jsonSchema(let text): try grammar(schema: parse(text))
        case .regex(let expression): try regex(expression)
        case .choice(let texts): try choice(texts)
        case .calls(let calls): try CallCompiler(compiler: self, calls: calls).grammar()
        }
    }

    private static let objectSchema: JSONObject = {
        var schema = JSONObject()
        _ = schema.append("type", .string("object"))
        return schema
    }()

    func parse(_ text: String) throws(ConstraintError) -> JSONValue {
        try checkSize(text.utf8.count)
        do { return try JSONValue.parse(text, exactNumbers: true) } catch let error as SigmaError {
            throw ConstraintError(.invalid, "the schema is not JSON: \(error)")
        } catch {
            throw ConstraintError(.invalid, "the schema is not JSON")
        }
    }

    func checkSize(_ bytes: Int) throws(ConstraintError) {
        guard bytes <= limits.textBytes else {
            throw ConstraintError(.limit, "a constraint of over \(limits.textBytes) bytes")
        }
    }

    private func grammar(schema: JSONValue) throws(ConstraintError) -> Grammar {
        let document = try SchemaDocument(roots: [schema])
        let algebra = ValueAlgebra(document: document, limits: limits)
        return try GrammarBuilder.grammar(of: algebra.schema(document.rootIDs[0]), in: algebra)
    }

    private func regex(_ expression: String) throws(ConstraintError) -> Grammar {
        try checkSize(expression.utf8.count)
        var arena = RegexArena()
        do {
            let language = try arena.wholeMatch(expression)
            return try text(language, arena, keyword: "regex")
        } catch let error as PatternError {
            throw ConstraintError(.invalid, keyword: "regex", "\(error.message) at character \(error.offset)")
        } catch {
            throw error as? ConstraintError ?? ConstraintError(.invalid, keyword: "regex", "\(error)")
        }
    }

    private func choice(_ texts: [String]) throws(ConstraintError) -> Grammar {
        try checkSize(texts.reduce(0) { $0 + $1.utf8.count })
        guard !texts.isEmpty else { throw ConstraintError(.invalid, keyword: "choice", "no text to choose from") }
        var arena = RegexArena()
        return try text(arena.literals(texts), arena, keyword: "choice")
    }

    private func text(_ language: RegexID, _ arena: RegexArena, keyword: String) throws(ConstraintError) -> Grammar {
        var arena = arena
        guard arena.isLive(language) else {
            throw ConstraintError(.unsatisfiable, keyword: keyword, "no text matches")
        }
        return Grammar(arena: arena, root: .text(language))
    }
}
