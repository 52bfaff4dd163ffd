/// Calls of functions, one after the other, as models write them:
///
///     <tool_call>
///     {"name": "weather", "arguments": {"city": "Paris"}}
///     </tool_call>
public struct FunctionCalls: Sendable, Equatable {
    public struct Function: Sendable, Equatable {
        /// Letters, digits and other characters that need no escape in JSON.
        public var name: String
        /// JSON Schema of the arguments, which are an object, as its text; nil: there are none.
        public var parameters: String?
        /// Whether a schema that cannot be honoured exactly is refused; else such a function takes any object.
        public var isStrict: Bool

        public init(name: String, parameters: String?, isStrict: Bool = true) {
            self.name = name
            self.parameters = parameters
            self.isStrict = isStrict
        }
    }

    /// Their names differ.
    public var functions: [Function]
    /// Whether another call may follow a call.
    public var allowsSeveral: Bool

    public init(_ functions: [Function], allowsSeveral: Bool = true) {
        self.functions = functions
        self.allowsSeveral = allowsSeveral
    }

    /// What stands around a call.
    public static let openTag = "<tool_call>"
    public static let closeTag = "</tool_call>"

    /// What stands before a call, with the line end that separates it from another.
    static let opening = Array("\n\(openTag)\n".utf8)
    static let closing = Array("\n\(closeTag)".utf8)
}
