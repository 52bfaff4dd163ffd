import ArgumentParser
import Sigma
import SigmaCommand

/// What the answer, never the thinking, must be.
struct ConstraintArguments: ParsableArguments {
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "The answer is JSON, an instance of this JSON Schema: a file, or the schema itself.",
            valueName: "file or json"))
    var jsonSchema: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("The answer is a text that the regular expression matches as a whole.", valueName: "re"))
    var regex: String?

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("The answer is this text, or one of those given so. May be repeated.", valueName: "text"))
    var choice: [String] = []

    var isGiven: Bool { jsonSchema != nil || regex != nil || !choice.isEmpty }

    /// - Throws: `SigmaError`: `.usage` for two constraints, or one that cannot be honoured; as `InputFile.text(of:limit:)`.
    func constraint() throws -> Constraint? {
        let given = [jsonSchema != nil, regex != nil, !choice.isEmpty].count { $0 }
        guard given <= 1 else {
            throw usageError("expected one of --json-schema, --regex and --choice", remedy: "Leave the others out.")
        }
        if let jsonSchema {
            // A schema is an object or a boolean; a file of such a name is ./true.
            let isText = jsonSchema.first { !$0.isWhitespace } == "{" || ["true", "false"].contains(jsonSchema)
            let text = isText ? jsonSchema : try InputFile.text(of: jsonSchema, limit: Self.limit)
            return try checked(.jsonSchema(text), option: "--json-schema", path: isText ? nil : jsonSchema)
        }
        if let regex { return try checked(.regex(regex), option: "--regex") }
        return choice.isEmpty ? nil : try checked(.choice(choice), option: "--choice")
    }

    private static var limit: InputFile.Limit { InputFile.Limit("a schema may have") { ConstraintLimits().textBytes } }

    private func checked(_ constraint: Constraint, option: String, path: String? = nil) throws -> Constraint {
        do {
            try constraint.check()
            return constraint
        } catch {
            // A schema has places, and what is no file goes by its option.
            throw SigmaError(
                .usage, error.message, path: path ?? option, item: option == "--json-schema" ? error.place : nil)
        }
    }
}
