/// Calls of functions, one after the other, in a form that a model knows.
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
    public var form: CallForm
    /// Whether another call may follow a call.
    public var allowsSeveral: Bool

    /// - Parameter allowsSeveral: has no effect in forms in which an answer has one call.
    public init(_ functions: [Function], form: CallForm = .taggedJSON, allowsSeveral: Bool = true) {
        self.functions = functions
        self.form = form
        self.allowsSeveral = allowsSeveral && form.allowsSeveral
    }

    package var opening: CallOpening { CallOpening(form: form, names: functions.map(\.name)) }
}
