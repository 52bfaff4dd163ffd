#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A type that a model can answer with: its JSON Schema says what `Decodable` takes.
///
///     struct Person: AnswerValue {
///         var name: String
///         var born: Int?
///
///         static let jsonSchema = """
///             {"type": "object", "properties": {"name": {"type": "string"}, "born": {"type": "integer"}},
///              "required": ["name"], "additionalProperties": false}
///             """
///     }
///     let person = try await session.respond(to: "Who wrote Dubliners?", as: Person.self)
public protocol AnswerValue: Decodable, Sendable {
    /// A JSON Schema (2020-12). Every instance must be a value of the type: `JSONDecoder` with its defaults reads it.
    static var jsonSchema: String { get }
}

extension Session {
    /// The answer to `message` as a value: JSON that fits the type's schema, and is then decoded.
    ///
    /// - Parameters:
    ///   - message: the next turn, in the user's words. The model does not see the schema: say what is wanted.
    ///   - type: what the answer becomes.
    ///   - options: for this answer; nil: the session's.
    /// - Throws: as `respond(to:options:constraint:)`; `SigmaError(.usage)` if a limit or a stop string cut the answer before it was complete;
    ///   `CancellationError` if `stop()` did; `DecodingError` for a schema with instances that the type does not take.
    public func respond<Value: AnswerValue>(
        to message: String, as type: Value.Type, options: GenerationOptions? = nil
    ) async throws -> Value {
        let (text, statistics) = try await wholeAnswer(
            to: message, options: options, constraint: .jsonSchema(type.jsonSchema))
        if statistics?.reason == .length {
            throw SigmaError(
                .usage, "the answer was cut by its limit of tokens before its value was complete",
                remedy: "Raise GenerationOptions.maximumTokens, or bound the schema's texts and lists.")
        }
        if statistics?.reason == .interrupted { throw CancellationError() }
        if let stopString = statistics?.stopString {
            throw SigmaError(.usage, "the answer was cut by the stop string '\(SigmaError.printable(stopString))'")
        }
        return try JSONDecoder().decode(type, from: Data(text.utf8))
    }
}
