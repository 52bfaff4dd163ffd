import Sigma

/// What a body says that its answers must be, and the field that says so.
package struct BodyConstraint: Sendable, Equatable {
    package var constraint: Constraint
    /// `response_format.json_schema.schema`
    package var param: String
}

/// Constraints in every spelling that clients use: OpenAI's `response_format`, vLLM's `guided_...` and `structured_outputs`. Two are refused.
struct ConstraintFields {
    private(set) var constraint: BodyConstraint?

    init(_ fields: inout FieldReader) throws(RequestError) {
        if let value = fields.takeExactly("response_format") { try readFormat(value) }
        try readPlain(&fields, json: "guided_json", regex: "guided_regex", choice: "guided_choice")
        if let value = fields.takeExactly("structured_outputs") {
            var outputs = try FieldReader(value, at: "structured_outputs")
            try readPlain(&outputs, json: "json", regex: "regex", choice: "choice")
            if try outputs.bool("json_object") ?? false { try set(.jsonObject, outputs.path("json_object")) }
            try outputs.finish()
        }
    }

    /// A format with its schema beside its type, as OpenAI's Responses and Anthropic's Messages have it.
    init(format value: JSONValue, at path: String) throws(RequestError) {
        var format = try FieldReader(value, at: path)
        switch try format.string("type") {
        case "text": break
        case "json_object": try set(.jsonObject, path)
        case "json_schema": try readSchema(&format)
        case nil: throw RequestError.invalid(format.path("type"), "is missing")
        case let word?: throw Self.unknownFormat(word, format.path("type"))
        }
        try format.finish()
    }

    private static func unknownFormat(_ word: String, _ param: String) -> RequestError {
        .unsupported(param, "expected text, json_object or json_schema, found \(JSONValue.string(word).kind)")
    }

    /// A schema and what stands beside it.
    private mutating func readSchema(_ named: inout FieldReader) throws(RequestError) {
        // Nobody else sees the name; and a schema is kept to whether the client insists or not.
        _ = try named.name("name")
        _ = try named.bool("strict")
        named.ignore("description")
        guard let schema = named.takeExactly("schema") else {
            throw RequestError.invalid(named.path("schema"), "is missing")
        }
        try set(.jsonSchema(schema.text), named.path("schema"))
    }

    private mutating func readFormat(_ value: JSONValue) throws(RequestError) {
        var format = try FieldReader(value, at: "response_format")
        switch try format.string("type") {
        case "text": break
        case "json_object": try set(.jsonObject, "response_format")
        case "json_schema":
            guard let value = format.takeExactly("json_schema") else {
                throw RequestError.invalid(format.path("json_schema"), "is missing")
            }
            var named = try FieldReader(value, at: format.path("json_schema"))
            try readSchema(&named)
            try named.finish()
        case nil: throw RequestError.invalid(format.path("type"), "is missing")
        case let word?: throw Self.unknownFormat(word, format.path("type"))
        }
        try format.finish()
    }

    private mutating func readPlain(
        _ fields: inout FieldReader, json: String, regex: String, choice: String
    ) throws(RequestError) {
        if let schema = fields.takeExactly(json) {
            // A schema may also come as its text.
            try set(.jsonSchema(schema.string ?? schema.text), fields.path(json))
        }
        if let expression = try fields.string(regex) { try set(.regex(expression), fields.path(regex)) }
        if let value = fields.take(choice) {
            let texts = (value.array ?? []).compactMap(\.string)
            guard !texts.isEmpty, texts.count == value.array?.count else {
                throw RequestError.invalid(fields.path(choice), "expected a list of strings, found \(value.kind)")
            }
            try set(.choice(texts), fields.path(choice))
        }
    }

    private mutating func set(_ constraint: Constraint, _ param: String) throws(RequestError) {
        if let other = self.constraint {
            throw RequestError.invalid(param, "constrains the answer, which \(other.param) does already")
        }
        self.constraint = BodyConstraint(constraint: constraint, param: param)
    }
}
