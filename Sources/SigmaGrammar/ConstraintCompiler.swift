import SigmaBase

/// From a constraint's text to its grammar.
struct ConstraintCompiler {
    let limits: ConstraintLimits

    func grammar(of constraint: Constraint) throws(ConstraintError) -> Grammar {
        switch constraint {
        case .calls(let calls): return try CallCompiler(compiler: self, calls: calls).grammar()
        case .callsOr(let calls, let answer):
            return try CallCompiler(compiler: self, calls: calls, answer: answer).grammar()
        default: break
        }
        if let schema = try schema(of: constraint) {
            let document = try SchemaDocument(roots: [schema])
            let algebra = ValueAlgebra(document: document, limits: limits)
            let built = try GrammarBuilder.grammar(of: [algebra.schema(document.rootIDs[0])], in: algebra)
            var grammar = built.grammar
            grammar.answer = .value(built.values[0])
            return grammar
        }
        var arena = RegexArena()
        let language = try language(of: constraint, in: &arena)
        return Grammar(arena: arena, answer: .text(language))
    }

    /// What a constraint on JSON asks for; nil for one on text, or calls.
    func schema(of constraint: Constraint) throws(ConstraintError) -> JSONValue? {
        switch constraint {
        case .json: .bool(true)
        case .jsonObject: .object(Self.objectSchema)
        case .jsonSchema(let text): try parse(text)
        case .regex, .choice, .calls, .callsOr: nil
        }
    }

    /// The texts that a constraint on text allows.
    ///
    /// - Parameter calls: what may come in its place: without the texts that begin so.
    func language(
        of constraint: Constraint, in arena: inout RegexArena, besides calls: CallOpening? = nil
    ) throws(ConstraintError) -> RegexID {
        var language: RegexID
        let keyword: String
        switch constraint {
        case .regex(let expression):
            (language, keyword) = (try match(of: expression, in: &arena), "regex")
        case .choice(let texts):
            try checkSize(texts.reduce(0) { $0 + $1.utf8.count })
            guard !texts.isEmpty else { throw ConstraintError(.invalid, keyword: "choice", "no text to choose from") }
            (language, keyword) = (arena.literals(texts), "choice")
        default: throw ConstraintError(.invalid, "calls in the place of an answer")
        }
        if let calls { language = arena.and(language, arena.not(calls.language(in: &arena))) }
        guard arena.isLive(language) else {
            throw ConstraintError(.unsatisfiable, keyword: keyword, "no text matches")
        }
        return language
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

    private func match(of expression: String, in arena: inout RegexArena) throws(ConstraintError) -> RegexID {
        try checkSize(expression.utf8.count)
        do { return try arena.wholeMatch(expression) } catch {
            throw ConstraintError(.invalid, keyword: "regex", "\(error.message) at character \(error.offset)")
        }
    }
}
