/// A call of a function in a conversation.
package struct FunctionCall: Sendable, Equatable {
    package var name: String
    /// JSON, as it was written.
    package var arguments: String

    package init(name: String, arguments: String) {
        self.name = name
        self.arguments = arguments
    }
}

/// How functions, their calls and their results stand in a prompt: as Qwen's templates write them, for all models. Those of a model that was not
/// trained on them are described by the same words.
enum ToolMarkup {
    enum Piece {
        case text(String)
        /// One token, where the tokenizer has it.
        case tag(String)
    }

    private static let callStart = Piece.tag(TokenConstraint.callTags.open)
    private static let callEnd = Piece.tag(TokenConstraint.callTags.close)

    /// What the system turn ends with.
    /// - Parameter tools: each function's JSON.
    static func description(of tools: [String]) -> [Piece] {
        [
            .text(
                """
                # Tools

                You may call one or more functions to assist with the user query.

                You are provided with function signatures within <tools></tools> XML tags:
                <tools>
                \(tools.joined(separator: "\n"))
                </tools>

                For each function call, return a json object with function name and arguments within \

                """),
            callStart, callEnd, .text(" XML tags:\n"), callStart,
            .text("\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n"), callEnd,
        ]
    }

    /// What follows an answer's text, which may be empty.
    static func calls(_ calls: [FunctionCall], behind text: String) -> [Piece] {
        calls.enumerated().flatMap { (index, call) -> [Piece] in
            let separator = index == 0 && text.isEmpty ? "" : "\n"
            return [
                .text(separator), callStart,
                .text("\n{\"name\": \"\(call.name)\", \"arguments\": \(call.arguments)}\n"), callEnd,
            ]
        }
    }

    /// One of the results that stand in a turn together.
    static func result(_ text: String, isFirst: Bool) -> [Piece] {
        [
            .text(isFirst ? "" : "\n"), .tag("<tool_response>"), .text("\n" + text + "\n"), .tag("</tool_response>"),
        ]
    }
}
