import Sigma

/// Reads a parameter's value in tagged XML, to JSON that comes piece by piece where its kind shows early.
struct ParameterReader {
    private enum Form {
        /// Nothing of it is there yet.
        case unknown
        /// A string, whatever follows.
        case string
        /// JSON as it is.
        case json
        /// Known at its end only.
        case whole
    }

    private static let end = Array("\n\(CallForm.parameterTag.close)\n".utf8)

    private let kinds: ParameterKinds
    private var form = Form.unknown
    /// Bytes of the end.
    private var matched = 0
    /// What is the value's for sure, and not in the JSON yet.
    private var text: [UInt8] = []
    private var isOver = false

    init(_ kinds: ParameterKinds) { self.kinds = kinds }

    /// - Returns: whether the value has ended.
    mutating func take(_ byte: UInt8) -> Bool {
        if byte == Self.end[matched] {
            matched += 1
            isOver = matched == Self.end.count
            return isOver
        }
        // The end's first byte is otherwise its last alone.
        text += Self.end.prefix(matched)
        matched = byte == Self.end[0] ? 1 : 0
        if matched == 0 { text.append(byte) }
        return false
    }

    /// What of the JSON is certain now; the text so far has whole characters.
    mutating func flush() -> [UInt8] {
        var json: [UInt8] = []
        if case .unknown = form {
            guard let first = text.first ?? (isOver ? 0 : nil) else { return [] }
            if kinds.isString {
                form = .string
                json = [UInt8(ascii: "\"")]
            } else {
                let isNested =
                    first == UInt8(ascii: "[") && kinds.contains(.array)
                    || first == UInt8(ascii: "{") && kinds.contains(.object)
                form = isNested ? .json : .whole
            }
        }
        switch form {
        case .string:
            var quoted = ""
            JSONWriter.escape(String(decoding: text, as: UTF8.self), .python, into: &quoted)
            json += quoted.utf8.dropFirst().dropLast()
            if isOver { json.append(UInt8(ascii: "\"")) }
        case .json: json += text
        case .whole:
            guard isOver else { return [] }
            json = Array(kinds.json(of: String(decoding: text, as: UTF8.self)).utf8)
        case .unknown: break
        }
        text = []
        return json
    }
}
