import SigmaBase

/// How a model writes calls of functions. Prompts, constraints and the reading of answers all go by it.
public enum CallForm: String, Sendable, CaseIterable {
    /// Qwen's:
    ///
    ///     <tool_call>
    ///     {"name": "weather", "arguments": {"city": "Paris"}}
    ///     </tool_call>
    case taggedJSON = "tagged-json"
    /// Llama 3's, the whole answer: `{"name": "weather", "parameters": {"city": "Paris"}}`
    case json
    /// Qwen3-Coder's. Values that are no strings, arrays or objects are written as Python shows them, and read as JSON, too:
    ///
    ///     <tool_call>
    ///     <function=weather>
    ///     <parameter=city>
    ///     Paris
    ///     </parameter>
    ///     </function>
    ///     </tool_call>
    case taggedXML = "tagged-xml"

    /// For messages.
    package static let names = allCases.map(\.rawValue).joined(separator: ", ")

    /// What stands around a call; nil: nothing.
    package var tags: (open: String, close: String)? { self == .json ? nil : ("<tool_call>", "</tool_call>") }

    /// Whether text may stand before calls.
    package var followsText: Bool { self != .json }

    /// Whether an answer may have several.
    package var allowsSeveral: Bool { self != .json }

    /// The member that has the arguments, in the forms that are JSON.
    package var argumentsKey: String { self == .json ? "parameters" : "arguments" }

    // Of tagged XML.
    package static let functionTag = (open: "<function=", close: "</function>")
    package static let parameterTag = (open: "<parameter=", close: "</parameter>")

    /// What stands before a call's own text, with the line end that separates it from another.
    var opening: [UInt8] {
        switch self {
        case .taggedJSON: Array("\n<tool_call>\n".utf8)
        case .json: []
        case .taggedXML: Array("\n<tool_call>\n\(Self.functionTag.open)".utf8)
        }
    }

    /// What stands behind it.
    var closing: [UInt8] {
        switch self {
        case .taggedJSON: Array("\n</tool_call>".utf8)
        case .json: []
        case .taggedXML: Array("\(Self.functionTag.close)\n</tool_call>".utf8)
        }
    }
}

/// What a parameter's value can be: what reads a call in tagged XML goes by it.
package struct ParameterKinds: OptionSet, Sendable, Equatable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    package static let string = ParameterKinds(rawValue: 1)
    package static let null = ParameterKinds(rawValue: 2)
    package static let bool = ParameterKinds(rawValue: 4)
    package static let number = ParameterKinds(rawValue: 8)
    package static let array = ParameterKinds(rawValue: 16)
    package static let object = ParameterKinds(rawValue: 32)

    /// Whether a value is known to be a string before it has ended.
    package var isString: Bool { self == .string }

    /// A value's JSON. What may be a string is one unless it can be read as something else that the value can be.
    package func json(of text: String) -> String {
        if contains(.null), text == "null" || text == "None" { return "null" }
        if contains(.bool) {
            if text == "true" || text == "True" { return "true" }
            if text == "false" || text == "False" { return "false" }
        }
        if contains(.number), Self.isNumber(text.utf8) { return text }
        if contains(.array), text.utf8.first == UInt8(ascii: "[") { return text }
        if contains(.object), text.utf8.first == UInt8(ascii: "{") { return text }
        var json = ""
        JSONWriter.escape(text, .python, into: &json)
        return json
    }

    /// As JSON writes numbers.
    static func isNumber(_ text: String.UTF8View) -> Bool {
        var rest = text[...]
        func digits() -> Int {
            let count = rest.prefix { (0x30...0x39).contains($0) }.count
            rest = rest.dropFirst(count)
            return count
        }
        if rest.first == UInt8(ascii: "-") { rest = rest.dropFirst() }
        let isZero = rest.first == UInt8(ascii: "0")
        let whole = digits()
        guard whole > 0, !isZero || whole == 1 else { return false }
        if rest.first == UInt8(ascii: ".") {
            rest = rest.dropFirst()
            guard digits() > 0 else { return false }
        }
        if rest.first.map({ $0 | 0x20 }) == UInt8(ascii: "e") {
            rest = rest.dropFirst()
            if rest.first == UInt8(ascii: "+") || rest.first == UInt8(ascii: "-") { rest = rest.dropFirst() }
            guard digits() > 0 else { return false }
        }
        return rest.isEmpty
    }
}

/// What a function's parameters can be.
package struct FunctionParameters: Sendable, Equatable {
    package var named: [ByteKey: ParameterKinds] = [:]
    /// Those that the schema does not name.
    package var others: ParameterKinds = []

    package init() {}

    package func kinds(of name: String) -> ParameterKinds { named[ByteKey(text: name)] ?? others }
}
