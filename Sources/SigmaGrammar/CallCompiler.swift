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
                schemas[place] = loosened(schemas[place])
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
                schemas[place] = loosened(schemas[place])
            }
            return try grammar(Array(schemas.enumerated()))
        }
    }

    /// Any object; of parameters that are written as text, with the types that they have.
    private func loosened(_ schema: JSONValue) -> JSONValue {
        guard calls.form == .taggedXML, let members = schema["properties"]?.object else { return .bool(true) }
        var properties = JSONObject()
        for (name, member) in zip(members.keys, members.values)
        where !name.unicodeScalars.contains(where: { $0 == ">" || $0 == "\n" }) {
            var kind = JSONObject()
            if let type = member["type"] { _ = kind.append("type", type) }
            _ = properties.append(name, .object(kind))
        }
        var loose = JSONObject()
        _ = loose.append("properties", .object(properties))
        return .object(loose)
    }

    private func checkAlone(_ answer: Constraint) throws(ConstraintError) {
        guard try compiler.schema(of: answer) == nil else {
            _ = try compiler.grammar(of: answer)
            return
        }
        var arena = RegexArena()
        _ = try compiler.language(of: answer, in: &arena, besides: calls.opening)
    }

    /// - Parameter schemas: of the functions at these places.
    private func grammar(_ schemas: [(offset: Int, element: JSONValue)]) throws(ConstraintError) -> Grammar {
        let answerSchema: JSONValue? = if let answer { try compiler.schema(of: answer) } else { nil }
        var documents = schemas.map(\.element)
        if let answerSchema { documents += [answerSchema, likeCalls] }
        let document = try SchemaDocument(roots: documents)
        let algebra = ValueAlgebra(document: document, limits: compiler.limits)
        let objects = algebra.written(ValueShape(objects: [algebra.anyObject]))
        var arguments: [ValueID] = []
        for (id, (place, _)) in zip(document.rootIDs, schemas) {
            // The schema comes first: it says the order of the members.
            arguments.append(algebra.and([algebra.schema(id), objects]))
            if try algebra.isEmpty(arguments[arguments.count - 1]) {
                throw ConstraintError(.unsatisfiable, "no object satisfies the schema").with(function: place)
            }
        }
        try algebra.checkAlternatives(schemas.count)
        let names = schemas.map { calls.functions[$0.offset].name }
        let isXML = calls.form == .taggedXML
        var roots = isXML ? arguments : [algebra.written(shape(of: zip(names, arguments), in: algebra))]
        let callCount = roots.count
        var text: RegexID?
        if answerSchema != nil {
            let (schema, likeCalls) = (document.rootIDs[schemas.count], document.rootIDs[schemas.count + 1])
            // What tags tell apart may be alike.
            roots.append(
                calls.form.tags == nil
                    ? algebra.and([algebra.schema(schema), algebra.not(algebra.schema(likeCalls))])
                    : algebra.schema(schema))
        } else if let answer {
            text = try compiler.language(of: answer, in: &algebra.arena, besides: calls.opening)
        }
        let built = try GrammarBuilder.grammar(of: roots, in: algebra)
        let values = built.values
        var grammar = built.grammar
        var made = Grammar.Calls(calls.form, allowsSeveral: calls.allowsSeveral)
        if isXML {
            grammar.arena.deadline = ContinuousClock.now + .seconds(compiler.limits.compileSeconds)
            do throws(ConstraintError) {
                made.functions = try ParameterLists.make(Array(zip(names, values)), in: &grammar)
            } catch { throw error.with(function: error.function.map { schemas[$0].offset } ?? 0) }
            guard !grammar.arena.isOutOfTime else { throw ConstraintError(time: compiler.limits.compileSeconds) }
            grammar.arena.deadline = nil
        } else {
            guard grammar.values[Int(values[0])].objects.count == schemas.count else {
                throw ConstraintError(.unsupported, "no object that the schema asks for can be written")
            }
            made.value = values[0]
        }
        grammar.calls = made
        if let text {
            grammar.answer = .text(text)
        } else if values.count > callCount {
            grammar.answer = .value(values[callCount])
        }
        return grammar
    }

    /// A call in JSON: one of the functions' names, and its arguments.
    private func shape(of functions: some Sequence<(String, ValueID)>, in algebra: ValueAlgebra) -> ValueShape {
        var shape = ValueShape()
        for (name, arguments) in functions {
            let name = algebra.arena.literals([name])
            shape.objects.append(
                ObjectShape(
                    names: [ByteKey(text: "name"), ByteKey(text: calls.form.argumentsKey)],
                    values: [algebra.written(ValueShape(listed: name, strings: name)), arguments],
                    required: [true, true]))
        }
        return shape
    }

    /// The schema of objects that could be taken for calls.
    private var likeCalls: JSONValue {
        func object(_ members: (String, JSONValue)...) -> JSONValue {
            var object = JSONObject()
            for (name, value) in members { _ = object.append(name, value) }
            return .object(object)
        }
        let names = calls.functions.map { JSONValue.string($0.name) }
        return object(
            ("type", .string("object")), ("properties", object(("name", object(("enum", .array(names)))))),
            ("required", .array([.string("name"), .string(calls.form.argumentsKey)])))
    }

    /// The schema of the empty object.
    private static let noMembers: JSONObject = {
        var schema = JSONObject()
        _ = schema.append("type", .string("object"))
        _ = schema.append("additionalProperties", .bool(false))
        return schema
    }()
}
