import SigmaBase

/// `unevaluatedProperties` and `unevaluatedItems`.
struct Unevaluated {
    let reader: SchemaReader
    let keyword: String

    func applied(_ value: JSONValue) throws(ConstraintError) -> ValueID {
        throw reader.failure(.unsupported, keyword, "not supported")
    }
}
