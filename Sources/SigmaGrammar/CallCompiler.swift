import SigmaBase

/// From calls of functions to their grammar: a call is an object with a function's name and arguments that fit its schema.
struct CallCompiler {
    let compiler: ConstraintCompiler
    let calls: FunctionCalls
    /// What may come in their place.
    var answer: Constraint?

    func grammar() throws(ConstraintError) -> Grammar {
        guard !calls.functions.isEmpty else {
            throw ConstraintError(.invalid, "there is no function that could be called")
        }
        // Alone first: what is wrong with it must not be laid to the functions.
        if let answer { do { try checkAlone(answer) } catch { throw error.ofAnswer() } }
        try compiler.checkSize(calls.functions.reduce(0) { $0 + $1.name.utf8.count + ($1.parameters?.utf8.count ?? 0) })
        var schemas: [JSONValue] = []
        for (place, function) in calls.functions.enumerated() {
            guard let text = function.parameters else {
                schemas.append(.object(Self.noMembers))
                continue
            }
            do { schemas.append(try compiler.parse(text)) } catch { throw error.with(function: place) }
        }
        do throws(ConstraintError) {
            return try grammar(Array(schemas.enumerated()))
        } catch {
            // Time says nothing about the schemas: what is accepted must not depend on it.
            guard !error.isTime else { throw error }
        }
        // One of them is to blame.
        let start = ContinuousClock.now
        for (place, function) in calls.functions.enumerated() {
            do throws(ConstraintError) {
                _ = try grammar([(place, schemas[place])])
            } catch {
                let isExact = error.reason == .invalid || error.reason == .unsatisfiable || error.isTime
                if function.isStrict || isExact { throw error.with(function: place) }
                schemas[place] = .bool(true)
            }
            if ContinuousClock.now - start > .seconds(2 * compiler.limits.compileSeconds) {
                throw ConstraintError(time: compiler.limits.compileSeconds)
            }
        }
        do throws(ConstraintError) {
            return try grammar(Array(schemas.enumerated()))
        } catch {
            // Each is fine, and together they are too large.
            guard error.reason == .limit, !error.isTime else { throw error }
            for (place, function) in calls.functions.enumerated() where !function.isStrict {
                schemas[place] = .bool(true)
            }
            return try grammar(Array(schemas.enumerated()))
        }
    }

    private func checkAlone(_ answer: Constraint) throws(ConstraintError) {
        guard try compiler.schema(of: answer) == nil else {
            _ = try compiler.grammar(of: answer)
            return
        }
        var arena = RegexArena()
        _ = try compiler.language(of: answer, in: &arena, mayBeCalls: false)
    }

    /// - Parameter schemas: of the functions at these places.
    private func grammar(_ schemas: [(offset: Int, element: JSONValue)]) throws(ConstraintError) -> Grammar {
        let answerSchema: JSONValue? = if let answer { try compiler.schema(of: answer) } else { nil }
        let document = try SchemaDocument(roots: schemas.map(\.element) + [answerSchema].compactMap { $0 })
        let algebra = ValueAlgebra(document: document, limits: compiler.limits)
        let objects = algebra.written(ValueShape(objects: [algebra.anyObject]))
        var shape = ValueShape()
        for (id, (place, _)) in zip(document.rootIDs, schemas) {
            // The schema comes first: it says the order of the members.
            let arguments = algebra.and([algebra.schema(id), objects])
            if try algebra.isEmpty(arguments) {
                throw ConstraintError(.unsatisfiable, "no object satisfies the schema").with(function: place)
            }
            let name = algebra.arena.literals([calls.functions[place].name])
            shape.objects.append(
                ObjectShape(
                    names: [ByteKey(text: "name"), ByteKey(text: "arguments")],
                    values: [algebra.written(ValueShape(listed: name, strings: name)), arguments],
                    required: [true, true]))
        }
        try algebra.checkAlternatives(shape.objects.count)
        var roots = [algebra.written(shape)]
        var text: RegexID?
        if answerSchema != nil {
            roots.append(algebra.schema(document.rootIDs[schemas.count]))
        } else if let answer {
            text = try compiler.language(of: answer, in: &algebra.arena, mayBeCalls: false)
        }
        let (built, values) = try GrammarBuilder.grammar(of: roots, in: algebra)
        var grammar = built
        guard grammar.values[Int(values[0])].objects.count == schemas.count else {
            throw ConstraintError(.unsupported, "no object that the schema asks for can be written")
        }
        grammar.calls = Grammar.Calls(value: values[0], allowsSeveral: calls.allowsSeveral)
        if let text { grammar.answer = .text(text) } else if values.count > 1 { grammar.answer = .value(values[1]) }
        return grammar
    }

    /// The schema of the empty object.
    private static let noMembers: JSONObject = {
        var schema = JSONObject()
        _ = schema.append("type", .string("object"))
        _ = schema.append("additionalProperties", .bool(false))
        return schema
    }()
}
