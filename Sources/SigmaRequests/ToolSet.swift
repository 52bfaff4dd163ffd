import Sigma

/// A function that answers may call.
package struct ToolFunction: Sendable, Equatable {
    package var name: String
    package var description: String?
    /// JSON Schema of the arguments, with numbers as they are written; nil: there are none.
    package var parameters: JSONValue?
    /// Whether a schema that cannot be honoured exactly is refused.
    package var isStrict: Bool
    /// The field that has the schema: `tools[0].function.parameters`
    package var param: String

    /// As prompts have it.
    var promptDescription: ToolDescription {
        var function = JSONObject()
        _ = function.append("name", .string(name))
        if let description { _ = function.append("description", .string(description)) }
        if let parameters { _ = function.append("parameters", parameters) }
        var tool = JSONObject()
        _ = tool.append("type", .string("function"))
        _ = tool.append("function", .object(function))
        return ToolDescription(.object(tool))
    }

    var callable: FunctionCalls.Function {
        FunctionCalls.Function(name: name, parameters: parameters?.text, isStrict: isStrict)
    }
}

/// The functions of a request, and which of them its answers call.
package struct ToolSet: Sendable, Equatable {
    package enum Choice: Sendable, Equatable {
        /// No function is called. The prompt names them anyway, so that it stays the same.
        case none
        /// As the model likes.
        case auto
        case required
        case named(String)
    }

    /// At least one. Their names differ.
    package var functions: [ToolFunction]
    package var choice = Choice.auto
    /// Whether one answer may have several calls.
    package var allowsSeveral = true

    /// Those that may be called.
    var callable: [ToolFunction] {
        switch choice {
        case .none: []
        case .auto, .required: functions
        case .named(let name): functions.filter { $0.name == name }
        }
    }

    /// What the answers must be.
    func calls(_ form: CallForm) -> FunctionCalls {
        // Who names a function wants one call of it.
        let allowsSeveral = if case .named = choice { false } else { allowsSeveral }
        return FunctionCalls(callable.map(\.callable), form: form, allowsSeveral: allowsSeveral)
    }

    /// Nil where there are no functions.
    /// - Throws: `RequestError` for two functions of the same name, too many, and a choice of functions that are not there.
    init?(_ functions: [ToolFunction], _ choice: Choice?, names: [String]) throws(RequestError) {
        guard functions.count <= RequestLimits.tools else {
            throw RequestError.invalid(
                "tools", "expected at most \(RequestLimits.tools) functions, found \(functions.count)")
        }
        var places: [String: Int] = [:]
        for (place, function) in functions.enumerated() {
            if let other = places.updateValue(place, forKey: function.name) {
                throw RequestError.invalid(names[place], "is also that of \(names[other])")
            }
        }
        switch choice {
        case .required? where functions.isEmpty:
            throw RequestError.invalid("tool_choice", "asks for a call, and there are no functions in tools")
        case .named(let name)? where places[name] == nil:
            throw RequestError.invalid(
                "tool_choice", "\(JSONValue.string(name).kind) is not the name of a function in tools")
        default: break
        }
        guard !functions.isEmpty else { return nil }
        self.functions = functions
        self.choice = choice ?? .auto
    }
}
