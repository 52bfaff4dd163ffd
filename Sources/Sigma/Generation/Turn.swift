/// One turn of a conversation.
public struct Turn: Sendable, Equatable {
    public enum Role: String, Sendable {
        case user, assistant
        /// Instructions in the middle of a conversation. A session has none: its instructions stand before its turns.
        case system
        /// The result of a function that the assistant called. A session has none.
        case tool
    }

    public var role: Role
    /// The message, or the answer without its thinking.
    public var text: String { didSet { written = nil } }
    /// The thinking before an answer; empty if there was none.
    public var reasoning: String { didSet { written = nil } }
    /// The functions that an answer calls behind its text.
    package var calls: [FunctionCall] = []

    /// The answer as it lies in the key-value cache.
    package struct Written: Sendable, Equatable {
        /// What the prompt put behind the assistant's header: `<think>`, `<think></think>` or nothing.
        package var opening: [Int32]
        /// What was generated, thinking, its end and closing phrase included, without the stop token.
        package var generated: [Int32]

        package init(opening: [Int32], generated: [Int32]) {
            self.opening = opening
            self.generated = generated
        }
    }
    /// Nil where it is not known: a turn that was written by someone else, or whose text ends before its tokens.
    package var written: Written?

    public init(_ role: Role, _ text: String, reasoning: String = "") {
        self.role = role
        self.text = text
        self.reasoning = reasoning
    }
}
