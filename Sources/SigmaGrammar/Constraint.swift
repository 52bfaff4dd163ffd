/// What an answer must be. docs/constraints.md says what is exact, and what is refused.
public enum Constraint: Sendable, Equatable {
    /// An instance of a JSON Schema (2020-12, or draft 4 to 7 where `$schema` says so), given as its text.
    case jsonSchema(String)
    /// Any JSON value.
    case json
    /// Any JSON object: OpenAI's `json_object`.
    case jsonObject
    /// A text that the regular expression matches as a whole.
    case regex(String)
    /// One of the texts.
    case choice([String])
    /// One or more calls of functions.
    case calls(FunctionCalls)
    /// Calls, or else an answer that is constrained itself. What begins as a call does is a call.
    indirect case callsOr(FunctionCalls, Constraint)

    /// The calls that it allows.
    package var calls: FunctionCalls? {
        switch self {
        case .calls(let calls), .callsOr(let calls, _): calls
        default: nil
        }
    }

    /// - Throws: `ConstraintError`, as compiling does.
    package func check(limits: ConstraintLimits = ConstraintLimits()) throws(ConstraintError) {
        _ = try ConstraintCompiler(limits: limits).grammar(of: self)
    }
}

/// Why a constraint isn't taken, and where.
package struct ConstraintError: Error, Sendable, CustomStringConvertible {
    package enum Reason: String, Sendable {
        /// Not a schema, not an expression, not JSON.
        case invalid
        /// It can't be done exactly.
        case unsupported
        /// No text satisfies it.
        case unsatisfiable
        /// It needs more time or memory than the limits allow.
        case limit
    }

    package let reason: Reason
    /// JSON Pointer to the schema, from the root; empty for the root itself.
    package let pointer: String
    package let keyword: String
    package let message: String
    /// Of a constraint on calls: the place of the function whose schema is to blame.
    package private(set) var function: Int?
    /// Of a constraint on calls or an answer: whether it is the answer's that is to blame.
    package private(set) var isAnswers = false
    /// Whether it took too long: on another day it may not.
    package private(set) var isTime = false

    package init(_ reason: Reason, pointer: String = "", keyword: String = "", _ message: String) {
        self.reason = reason
        self.pointer = pointer
        self.keyword = keyword
        self.message = message
    }

    init(time seconds: Double) {
        self.init(.limit, "compiling takes over \(seconds) s")
        isTime = true
    }

    func with(function: Int) -> ConstraintError {
        var error = self
        error.function = function
        return error
    }

    func ofAnswer() -> ConstraintError {
        var error = self
        error.isAnswers = true
        error.function = nil
        return error
    }

    /// The keyword by JSON Pointer, or the schema that has it.
    package var place: String { keyword.isEmpty ? "#\(pointer)" : "#\(pointer)/\(keyword)" }

    package var description: String { "\(place): \(message)" }
}

/// What a constraint may cost.
package struct ConstraintLimits: Sendable {
    package var compileSeconds: Double = 1
    /// Bytes of a constraint's text.
    package var textBytes = 4 << 20
    /// Schemas and combinations of schemas.
    package var values = 50_000
    /// Alternatives that one value may have.
    package var alternatives = 1_000
    /// Expressions that compiling may make.
    package var expressions = 400_000
    /// Derivatives that finding out how one text may begin may combine.
    package var beginnings = 100_000
    /// The automaton's states, each a little over 1 KiB. Past it the automaton starts afresh.
    package var states = 24_000
    /// States that one mask may visit.
    package var statesPerMask = 4_096
    /// Bytes of masks kept for a constraint.
    package var maskBytes = 16 << 20

    package init() {}
}
