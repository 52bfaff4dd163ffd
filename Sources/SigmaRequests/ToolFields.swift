import Sigma

/// `tools` and `tool_choice` of the three protocols that have them.
enum ToolFields {
    /// - Parameter fields: of Chat Completions: `{"type":"function","function":{...}}`
    static func chat(_ fields: inout FieldReader) throws(RequestError) -> ToolSet? {
        var reader = Reader()
        for (path, tool) in try tools(&fields) {
            var tool = try FieldReader(tool, at: path)
            let type = try tool.string("type")
            guard type == nil || type == "function" else {
                throw RequestError.unsupported(
                    tool.path("type"), "expected function, found \(JSONValue.string(type ?? "").kind)")
            }
            guard let value = tool.takeExactly("function") else {
                throw RequestError.invalid(tool.path("function"), "is missing")
            }
            try tool.finish()
            var function = try FieldReader(value, at: tool.path("function"))
            try reader.read(&function, schema: "parameters")
            try function.finish()
        }
        let choice = try choice(&fields) { (choice: inout FieldReader) throws(RequestError) in
            guard let value = choice.take("function") else { return nil }
            var function = try FieldReader(value, at: choice.path("function"))
            let name = try function.string("name")
            try function.finish()
            return name
        }
        return try reader.set(choice, several: try fields.bool("parallel_tool_calls"))
    }

    /// - Parameter fields: of Responses: functions have their members beside the type. Tools that only OpenAI's servers have are skipped: agents
    ///   always list them.
    static func responses(_ fields: inout FieldReader) throws(RequestError) -> ToolSet? {
        var reader = Reader()
        for (path, tool) in try tools(&fields) {
            guard let type = tool["type"]?.string else {
                throw RequestError.invalid("\(path).type", "is missing")
            }
            guard type == "function" else { continue }
            var function = try FieldReader(tool, at: path)
            function.ignore("type", "defer_loading", "output_schema")
            try reader.read(&function, schema: "parameters")
            try function.finish()
        }
        let choice = try choice(&fields) { (choice: inout FieldReader) throws(RequestError) in
            try choice.string("name")
        }
        return try reader.set(choice, several: try fields.bool("parallel_tool_calls"))
    }

    /// - Parameter fields: of Messages.
    static func messages(_ fields: inout FieldReader) throws(RequestError) -> ToolSet? {
        var reader = Reader()
        for (path, tool) in try tools(&fields) {
            var function = try FieldReader(tool, at: path)
            let type = try function.string("type")
            guard type == nil || type == "custom" else {
                throw RequestError.unsupported(
                    function.path("type"),
                    "only functions with a schema are supported, and this is \(JSONValue.string(type ?? "").kind)")
            }
            // Prefixes are kept, and arguments streamed, without being told to.
            function.ignore(
                "cache_control", "eager_input_streaming", "defer_loading", "allowed_callers", "input_examples")
            try reader.read(&function, schema: "input_schema")
            try function.finish()
        }
        var choice: ToolSet.Choice?
        var several: Bool?
        if let value = fields.take("tool_choice") {
            var members = try FieldReader(value, at: "tool_choice")
            switch try members.string("type") {
            case "auto": choice = .auto
            case "any": choice = .required
            case "none": choice = ToolSet.Choice.none
            case "tool":
                guard let name = try members.string("name") else {
                    throw RequestError.invalid("tool_choice.name", "is missing")
                }
                choice = .named(name)
            case nil: throw RequestError.invalid("tool_choice.type", "is missing")
            case let word?:
                throw RequestError.invalid(
                    "tool_choice.type", "expected auto, any, tool or none, found \(JSONValue.string(word).kind)")
            }
            several = try members.bool("disable_parallel_tool_use").map { !$0 }
            try members.finish()
        }
        return try reader.set(choice, several: several)
    }

    // MARK: - Parts

    /// The tools with their places.
    private static func tools(_ fields: inout FieldReader) throws(RequestError) -> [(path: String, tool: JSONValue)] {
        guard let value = fields.takeExactly("tools") else { return [] }
        guard let list = value.array else {
            throw RequestError.invalid("tools", "expected a list of tools, found \(value.kind)")
        }
        return list.enumerated().map { ("tools[\($0)]", $1) }
    }

    /// OpenAI's: a word, or an object with `type` and a function's name.
    private static func choice(
        _ fields: inout FieldReader, _ name: (inout FieldReader) throws(RequestError) -> String?
    ) throws(RequestError) -> ToolSet.Choice? {
        guard let value = fields.take("tool_choice") else { return nil }
        if let word = value.string {
            switch word {
            case "none": return ToolSet.Choice.none
            case "auto": return .auto
            case "required": return .required
            default:
                throw RequestError.invalid("tool_choice", "expected none, auto or required, found \(value.kind)")
            }
        }
        var choice = try FieldReader(value, at: "tool_choice")
        guard let type = try choice.string("type") else {
            throw RequestError.invalid("tool_choice.type", "is missing")
        }
        guard type == "function" else {
            throw RequestError.unsupported("tool_choice", "expected a function, found \(JSONValue.string(type).kind)")
        }
        guard let name = try name(&choice) else {
            throw RequestError.invalid("tool_choice", "does not name a function")
        }
        try choice.finish()
        return .named(name)
    }

    /// Functions as they are read.
    private struct Reader {
        private var functions: [ToolFunction] = []
        /// The fields that have their names.
        private var names: [String] = []

        mutating func read(_ fields: inout FieldReader, schema: String) throws(RequestError) {
            guard let name = try fields.string("name") else {
                throw RequestError.invalid(fields.path("name"), "is missing")
            }
            // What needs no escape, anywhere.
            let isName = name.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "."):
                    true
                default: false
                }
            }
            guard isName, (1...RequestLimits.functionNameCharacters).contains(name.utf8.count) else {
                throw RequestError.invalid(
                    fields.path("name"),
                    "expected 1 to \(RequestLimits.functionNameCharacters) letters, digits, _, - and ., found "
                        + JSONValue.string(name).kind)
            }
            let parameters = fields.takeExactly(schema)
            if let parameters, parameters.object == nil {
                throw RequestError.invalid(
                    fields.path(schema), "expected a JSON Schema, which is an object, found \(parameters.kind)")
            }
            names.append(fields.path("name"))
            functions.append(
                ToolFunction(
                    name: name, description: try fields.string("description"), parameters: parameters,
                    isStrict: try fields.bool("strict") ?? false, param: fields.path(schema)))
        }

        func set(_ choice: ToolSet.Choice?, several: Bool?) throws(RequestError) -> ToolSet? {
            var set = try ToolSet(functions, choice, names: names)
            if let several { set?.allowsSeveral = several }
            return set
        }
    }
}
