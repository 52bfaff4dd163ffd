import SigmaBase

/// Reads the keywords of arrays.
struct ArrayKeywords {
    let own: OwnKeywords

    func shape() throws(ConstraintError) -> ArrayShape {
        let object = own.object
        var shape = ArrayShape(rest: ValueAlgebra.any)
        if let list = object["prefixItems"] {
            shape.prefix = try schemas(list, "prefixItems")
        }
        if let items = object["items"] {
            if case .array = items {
                guard own.draft != .modern else {
                    throw own.failure(.invalid, "items", "a list of schemas is called prefixItems in 2020-12")
                }
                shape.prefix = try schemas(items, "items")
                if let rest = object["additionalItems"] { shape.rest = try schema(rest, "additionalItems") }
            } else {
                shape.rest = try schema(items, "items")
            }
        }
        shape.min = try own.count("minItems") ?? 0
        if let most = try own.count("maxItems"), most < 1 << 30 { shape.max = most }
        if let value = object["contains"] {
            var rule = ArrayShape.Contains(value: try schema(value, "contains"))
            rule.min = try own.count("minContains") ?? 1
            rule.max = try own.count("maxContains").map { $0 < 1 << 30 ? $0 : Int.max } ?? Int.max
            if rule.min > 0 || rule.max < Int.max { shape.contains.append(rule) }
        }
        switch object["uniqueItems"] {
        case nil, .bool(false): break
        case .bool(true): if shape.max > 1 { shape.uniqueSchema = own.id }
        default: throw own.failure(.invalid, "uniqueItems", "a boolean expected")
        }
        return shape
    }

    private func schema(_ value: JSONValue, _ keyword: String) throws(ConstraintError) -> ValueID {
        own.algebra.schema(try own.algebra.document.child(of: own.id, value, keyword))
    }

    private func schemas(_ value: JSONValue, _ keyword: String) throws(ConstraintError) -> [ValueID] {
        guard let list = value.array else { throw own.failure(.invalid, keyword, "a list of schemas expected") }
        var result: [ValueID] = []
        for (number, member) in list.enumerated() {
            result.append(
                own.algebra.schema(try own.algebra.document.child(of: own.id, member, keyword, "\(number)")))
        }
        return result
    }
}
