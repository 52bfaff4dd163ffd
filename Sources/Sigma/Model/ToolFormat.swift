/// A function that answers may call, as prompts describe it: `{"type": "function", "function": {...}}`.
package struct ToolDescription: Sendable, Equatable {
    package let json: JSONValue

    package init(_ json: JSONValue) { self.json = json }
}

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

/// How functions, their calls and their results stand in a prompt: as the model's own template writes them, or, for a model that was not trained
/// on them, as Qwen's do.
package struct ToolFormat: Sendable, Equatable {
    /// How a function is described.
    package enum Description: String, Sendable, CaseIterable {
        /// Its JSON on one line.
        case json
        /// Its JSON, indented by 4.
        case indentedJSON = "indented-json"
        /// Qwen3-Coder's elements.
        case xml

        package func text(of tool: ToolDescription) -> String {
            switch self {
            case .json: tool.json.promptText
            case .indentedJSON: tool.json.promptText(indent: 4)
            case .xml: tool.xml
            }
        }
    }

    /// Where functions are described.
    package enum Place: String, Sendable, CaseIterable {
        /// At the end of the system turn.
        case systemEnd = "system-end"
        /// Before the system prompt.
        case systemStart = "system-start"
        /// At the beginning of the first turn.
        case firstTurn = "first-turn"
    }

    package var calls: CallForm
    package var description: Description
    package var place: Place
    /// Before the first function, between two, and behind the last.
    package var before: String
    package var between: String
    package var after: String
    /// What stands before a system prompt, and in the place of one, where there are functions; nil: the same as without.
    package var systemPrefix: String?
    package var defaultSystem: String?
    /// Whether arguments are written anew, as Python writes JSON; else they stay as they were written.
    package var rewritesArguments = false

    package init(
        calls: CallForm, description: Description, place: Place, before: String, between: String, after: String
    ) {
        self.calls = calls
        self.description = description
        self.place = place
        self.before = before
        self.between = between
        self.after = after
    }

    /// Whether calls in a history must have an object as their arguments.
    package var readsArguments: Bool { rewritesArguments || calls == .taggedXML }

    // MARK: - Texts

    package enum Piece: Equatable {
        case text(String)
        /// One token, where the tokenizer has it.
        case tag(String)
    }

    package func pieces(describing tools: [ToolDescription]) -> [Piece] {
        Self.pieces(before) + [.text(tools.map { description.text(of: $0) }.joined(separator: between))]
            + Self.pieces(after)
    }

    /// An answer's text, which may be empty, and the calls behind it.
    package func pieces(calling calls: [FunctionCall], behind text: String) -> [Piece] {
        guard !calls.isEmpty else { return [.text(text)] }
        switch self.calls {
        case .json:
            // Such an answer is a call and nothing else.
            return calls.enumerated().map { .text(($0 > 0 ? "\n" : "") + object(of: $1)) }
        case .taggedJSON:
            return [.text(text)]
                + calls.enumerated().flatMap { (index, call) -> [Piece] in
                    [.text(index == 0 && text.isEmpty ? "" : "\n")] + tagged("\n\(object(of: call))\n")
                }
        case .taggedXML:
            let text = text.trimmed
            return [.text(text.isEmpty ? "" : "\(text)\n\n")]
                + calls.enumerated().flatMap { (index, call) -> [Piece] in
                    [.text(index == 0 ? "" : "\n")] + tagged("\n\(element(of: call))\n")
                }
        }
    }

    private func tagged(_ text: String) -> [Piece] {
        guard let tags = calls.tags else { return [.text(text)] }
        return [.tag(tags.open), .text(text), .tag(tags.close)]
    }

    private func object(of call: FunctionCall) -> String {
        var arguments = call.arguments
        if rewritesArguments, let value = try? JSONValue.parse(arguments, exactNumbers: true) {
            arguments = value.promptText
        }
        return #"{"name": "\#(call.name)", "\#(calls.argumentsKey)": \#(arguments)}"#
    }

    private func element(of call: FunctionCall) -> String {
        var text = "\(CallForm.functionTag.open)\(call.name)>\n"
        let arguments = (try? JSONValue.parse(call.arguments, exactNumbers: true))?.object ?? JSONObject()
        for (name, value) in zip(arguments.keys, arguments.values) {
            text += "\(CallForm.parameterTag.open)\(name)>\n\(value.elementText)\n\(CallForm.parameterTag.close)\n"
        }
        return text + CallForm.functionTag.close
    }

    /// One of the results that follow each other.
    package func pieces(result text: String, isFirst: Bool) -> [Piece] {
        let (open, close) = ("<tool_response>", "</tool_response>")
        switch calls {
        case .json: return [.text(JSONValue.string(text).promptText)]
        case .taggedJSON: return [.text(isFirst ? "" : "\n"), .tag(open), .text("\n\(text)\n"), .tag(close)]
        case .taggedXML: return [.tag(open), .text("\n\(text)\n"), .tag(close), .text("\n")]
        }
    }

    /// Whether results that follow each other are one turn, which is a user's.
    package var joinsResults: Bool { calls != .json }

    /// Markup, whose tags are tokens where the tokenizer has them.
    private static func pieces(_ markup: String) -> [Piece] {
        let tags = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"].map { Array($0.utf8) }
        var pieces: [Piece] = []
        var text: [UInt8] = []
        var rest = Array(markup.utf8)[...]
        while let byte = rest.first {
            if let tag = tags.first(where: { rest.starts(with: $0) }) {
                if !text.isEmpty { pieces.append(.text(String(decoding: text, as: UTF8.self))) }
                text = []
                pieces.append(.tag(String(decoding: tag, as: UTF8.self)))
                rest = rest.dropFirst(tag.count)
            } else {
                text.append(byte)
                rest = rest.dropFirst()
            }
        }
        return text.isEmpty ? pieces : pieces + [.text(String(decoding: text, as: UTF8.self))]
    }

    // MARK: - What families do

    /// How a family whose calls have the form describes functions.
    package static func usual(_ calls: CallForm) -> ToolFormat {
        switch calls {
        case .taggedJSON:
            ToolFormat(
                calls: calls, description: .json, place: .systemEnd,
                before: """
                    # Tools

                    You may call one or more functions to assist with the user query.

                    You are provided with function signatures within <tools></tools> XML tags:
                    <tools>

                    """,
                between: "\n",
                after: """

                    </tools>

                    For each function call, return a json object with function name and arguments within \
                    <tool_call></tool_call> XML tags:
                    <tool_call>
                    {"name": <function-name>, "arguments": <args-json-object>}
                    </tool_call>
                    """)
        case .json:
            ToolFormat(
                calls: calls, description: .indentedJSON, place: .firstTurn,
                before: "Given the following functions, please respond with a JSON for a function call with its proper "
                    + "arguments that best answers the given prompt.\n\nRespond in the format {\"name\": function name, "
                    + "\"parameters\": dictionary of argument name and its value}.Do not use variables.\n\n",
                between: "\n\n", after: "\n\n")
        case .taggedXML:
            ToolFormat(
                calls: calls, description: .xml, place: .systemEnd,
                before: "# Tools\n\nYou have access to the following tools:\n\n<tools>\n", between: "\n",
                after: """

                    </tools>

                    If you choose to call a tool ONLY reply in the following format with NO suffix:

                    <tool_call>
                    <function=example_function_name>
                    <parameter=example_parameter_1>
                    value_1
                    </parameter>
                    <parameter=example_parameter_2>
                    value_2
                    </parameter>
                    </function>
                    </tool_call>

                    <IMPORTANT>
                    Reminder:
                    - Function calls MUST follow the specified format: the tool calling block MUST begin with an \
                    opening <tool_call> tag and end with a closing </tool_call> tag.
                    - Required parameters MUST be specified
                    - You may provide optional reasoning for your function call in natural language BEFORE the \
                    function call, but NOT after
                    - If there is no function call available, answer the question like normal with your current \
                    knowledge and do not tell the user about function calls
                    </IMPORTANT>
                    """)
        }
    }
}

extension ToolDescription {
    /// As Qwen3-Coder's template describes a function.
    fileprivate var xml: String {
        let function = json["function"]?.object ?? JSONObject()
        let parameters = function["parameters"]
        var text = "<function>\n<name>\(function["name"]?.pythonText ?? "")</name>"
        if let words = function["description"] {
            text += "\n<description>\(words.pythonText.trimmed)</description>"
        }
        text += "\n<parameters>"
        if let properties = parameters?["properties"]?.object {
            for (name, schema) in zip(properties.keys, properties.values) {
                text += "\n<parameter>\n<name>\(name)</name>"
                if let type = schema["type"] { text += "\n<type>\(type.pythonText)</type>" }
                if let words = schema["description"] {
                    text += "\n<description>\(words.pythonText.trimmed)</description>"
                }
                text += Self.elements(of: schema, but: ["name", "type", "description"]) + "\n</parameter>"
            }
        }
        text += Self.elements(of: parameters, but: ["type", "properties"]) + "\n</parameters>"
        text += Self.elements(of: .object(function), but: ["type", "name", "description", "parameters"])
        return text + "\n</function>"
    }

    private static func elements(of value: JSONValue?, but handled: [String]) -> String {
        guard let object = value?.object else { return "" }
        var text = ""
        for (key, value) in zip(object.keys, object.values) where !handled.contains(key) {
            text += "\n<\(key)>\(value.elementText)</\(key)>"
        }
        return text
    }
}

extension JSONValue {
    /// Arrays and objects as JSON, all else as Python shows it.
    fileprivate var elementText: String {
        switch self {
        case .array, .object: promptText
        default: pythonText
        }
    }
}

extension String {
    /// Without white space around it.
    package var trimmed: String {
        var scalars = unicodeScalars.drop { $0.properties.isWhitespace }
        while scalars.last?.properties.isWhitespace == true { scalars.removeLast() }
        return String(scalars)
    }
}
