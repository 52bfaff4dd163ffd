import SigmaBase

/// Reads a schema's applicators: how it is put together from other schemas and from its own keywords.
struct SchemaReader {
    let algebra: ValueAlgebra
    let id: SchemaID

    private var document: SchemaDocument { algebra.document }
    private var node: SchemaNode { document[id] }

    func failure(_ reason: ConstraintError.Reason, _ keyword: String, _ message: String) -> ConstraintError {
        ConstraintError(reason, pointer: node.pointer, keyword: keyword, message)
    }

    /// The schema as the intersection of what its keywords say.
    func parts() throws(ConstraintError) -> ValueID {
        guard case .object(let object) = node.value else { return algebra.schema(id) }
        if node.draft == .legacy, let reference = object["$ref"] {
            return try referenced(reference, "$ref")
        }
        if node.draft == .unstated, object["$ref"] != nil, object["$id"] != nil || object["id"]?.string != nil {
            throw failure(.unsupported, "$ref", "beside $id its meaning depends on the draft, and there is no $schema")
        }
        // What doesn't branch comes first: it often keeps the branches apart.
        var parts: [ValueID] = []
        if object.keys.contains(where: { OwnKeywords.all.contains($0) }) { parts.append(algebra.own(id)) }
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let reference = object[keyword] { parts.append(try referenced(reference, keyword)) }
        }
        if let value = object["allOf"] { parts += try list(value, "allOf") }
        let base = algebra.and(parts)
        for (keyword, value) in zip(object.keys, object.values) {
            switch keyword {
            case "anyOf": parts.append(algebra.or(try list(value, keyword)))
            case "oneOf": parts.append(try exactlyOne(of: list(value, keyword), within: base))
            case "not": parts.append(algebra.not(try schema(value, keyword)))
            case "if": parts.append(try conditional(object, value))
            case "dependencies", "dependentSchemas", "dependentRequired":
                parts += try dependencies(value, keyword)
            case "unevaluatedProperties", "unevaluatedItems":
                parts.append(try Unevaluated(reader: self, keyword: keyword).applied(value))
            case "$recursiveAnchor" where value == .bool(true):
                throw failure(.unsupported, keyword, "not supported")
            default: break
            }
        }
        return algebra.and(parts)
    }

    func schema(_ value: JSONValue, _ path: String...) throws(ConstraintError) -> ValueID {
        switch path.count {
        case 1: algebra.schema(try document.child(of: id, value, path[0]))
        default: algebra.schema(try document.child(of: id, value, path[0], path[1]))
        }
    }

    func list(_ value: JSONValue, _ keyword: String) throws(ConstraintError) -> [ValueID] {
        guard let members = value.array, !members.isEmpty else {
            throw failure(.invalid, keyword, "a list of schemas expected, found \(value.kind)")
        }
        var result: [ValueID] = []
        for (number, member) in members.enumerated() { result.append(try schema(member, keyword, "\(number)")) }
        return result
    }

    private func referenced(_ reference: JSONValue, _ keyword: String) throws(ConstraintError) -> ValueID {
        guard let text = reference.string else {
            throw failure(.invalid, keyword, "a reference expected, found \(reference.kind)")
        }
        return algebra.schema(try document.resolve(text, keyword: keyword, from: id))
    }

    /// Each choice without those of the others that it has something in common with, as far as `base` allows.
    func exactlyOne(of choices: [ValueID], within base: ValueID) throws(ConstraintError) -> ValueID {
        let narrowed = choices.map { algebra.and(base, $0) }
        var others = [[ValueID]](repeating: [], count: choices.count)
        for first in choices.indices {
            for second in choices.indices.dropFirst(first + 1) {
                if try algebra.isProvenEmpty(algebra.and(narrowed[first], choices[second])) { continue }
                others[first].append(choices[second])
                others[second].append(choices[first])
            }
        }
        var result: [ValueID] = []
        for (choice, overlapping) in zip(choices, others) {
            result.append(algebra.and([choice] + overlapping.map { algebra.not($0) }))
        }
        return algebra.or(result)
    }

    private func conditional(_ object: JSONObject, _ value: JSONValue) throws(ConstraintError) -> ValueID {
        let condition = try schema(value, "if")
        var then = ValueAlgebra.any
        var otherwise = ValueAlgebra.any
        if let branch = object["then"] { then = try schema(branch, "then") }
        if let branch = object["else"] { otherwise = try schema(branch, "else") }
        if then == otherwise { return then }
        return algebra.or([algebra.and(condition, then), algebra.and(algebra.not(condition), otherwise)])
    }

    // MARK: Dependencies

    private func dependencies(_ value: JSONValue, _ keyword: String) throws(ConstraintError) -> [ValueID] {
        guard let dependents = value.object else {
            throw failure(.invalid, keyword, "an object expected, found \(value.kind)")
        }
        var result: [ValueID] = []
        for (name, dependency) in zip(dependents.keys, dependents.values) {
            let consequence: ValueID
            if keyword != "dependentSchemas", let names = try requiredNames(dependency, keyword) {
                if names.isEmpty { continue }
                consequence = members(named: names, forbidden: false)
            } else {
                consequence = try schema(dependency, keyword, name)
            }
            if consequence == ValueAlgebra.any { continue }
            let without = members(named: [name], forbidden: true)
            let with = members(named: [name], forbidden: false)
            result.append(algebra.or([without, algebra.and(with, consequence)]))
        }
        return result
    }

    private func requiredNames(_ value: JSONValue, _ keyword: String) throws(ConstraintError) -> [String]? {
        // Draft 3 wrote a lone name as a string.
        if let name = value.string { return [name] }
        guard let list = value.array else { return nil }
        var names: [String] = []
        for member in list {
            guard let name = member.string else { throw failure(.invalid, keyword, "names expected") }
            names.append(name)
        }
        return names
    }

    /// Objects that have (or lack) the named members. Having them speaks of objects only where it is required, so other
    /// kinds pass; a schema's dependency doesn't reach them.
    func members(named names: [String], forbidden: Bool) -> ValueID {
        var shape = algebra.anyObject
        var seen: Set<ByteKey> = []
        shape.names = names.map { ByteKey(text: $0) }.filter { seen.insert($0).inserted }
        shape.values = shape.names.map { _ in forbidden ? ValueAlgebra.none : ValueAlgebra.any }
        shape.required = shape.names.map { _ in !forbidden }
        return algebra.written(
            forbidden ? algebra.everythingBut(objects: [shape]) : ValueShape(objects: [shape]))
    }
}
