import Sigma

/// A value of a chat template: the part of Python's that such templates use.
indirect enum TemplateValue {
    case undefined
    case none
    case bool(Bool)
    case integer(Int)
    case string(String)
    case list([TemplateValue])
    /// In the order of insertion.
    case map([(key: String, value: TemplateValue)])
    case namespace(Namespace)
    case macro(TemplateNode.Macro)
    /// One of the renderer's.
    case function

    /// The one value that can be changed from an inner scope.
    final class Namespace {
        var members: [String: TemplateValue]
        init(_ members: [String: TemplateValue]) { self.members = members }
    }

    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let value): value
        case .integer(let value): value != 0
        case .string(let value): !value.isEmpty
        case .list(let values): !values.isEmpty
        case .map(let members): !members.isEmpty
        case .namespace, .macro, .function: true
        }
    }

    /// As it is printed; undefined prints nothing.
    var text: String {
        switch self {
        case .undefined: ""
        case .none: "None"
        case .bool(let value): value ? "True" : "False"
        case .integer(let value): "\(value)"
        case .string(let value): value
        case .list, .map, .namespace, .macro, .function: json
        }
    }

    /// As `tojson` writes it.
    var json: String { json(indent: nil) }

    /// - Parameter indent: blanks by which members and items stand on lines of their own; nil: all is one line.
    func json(indent: Int?) -> String { jsonValue.promptText(indent: indent) }

    private var jsonValue: JSONValue {
        switch self {
        case .undefined, .none, .namespace, .macro, .function: return .null
        case .bool(let value): return .bool(value)
        case .integer(let value): return .integer(Int64(value))
        case .string(let value): return .string(value)
        case .list(let values): return .array(values.map(\.jsonValue))
        case .map(let members):
            var object = JSONObject()
            for (key, value) in members { object.set(key, value.jsonValue) }
            return .object(object)
        }
    }

    init(_ json: JSONValue) {
        switch json {
        case .null: self = .none
        case .bool(let value): self = .bool(value)
        case .integer(let value): self = .integer(Int(value))
        case .string(let text): self = .string(text)
        case .number, .decimal: self = .string(json.promptText)
        case .array(let values): self = .list(values.map { TemplateValue($0) })
        case .object(let object):
            self = .map(zip(object.keys, object.values).map { (key: $0, value: TemplateValue($1)) })
        }
    }

    /// What it takes to walk through it; at least `limit` + 1 where that is more.
    func cost(limit: Int) -> Int {
        switch self {
        case .undefined, .none, .bool, .integer, .namespace, .macro, .function: return 1
        case .string(let text): return 1 + text.utf8.count / 64
        case .list(let values):
            var sum = 1
            for value in values where sum <= limit { sum += value.cost(limit: limit - sum) }
            return sum
        case .map(let members):
            var sum = 1
            for member in members where sum <= limit { sum += member.value.cost(limit: limit - sum) }
            return sum
        }
    }

    func isEqual(to other: TemplateValue) -> Bool {
        switch (self, other) {
        case (.undefined, .undefined), (.none, .none): true
        case (.bool(let a), .bool(let b)): a == b
        case (.integer(let a), .integer(let b)): a == b
        case (.bool(let a), .integer(let b)), (.integer(let b), .bool(let a)): (a ? 1 : 0) == b
        case (.string(let a), .string(let b)): a.utf8.elementsEqual(b.utf8)
        case (.list(let a), .list(let b)): a.count == b.count && zip(a, b).allSatisfy { $0.isEqual(to: $1) }
        default: false
        }
    }

    func contains(_ item: TemplateValue) -> Bool {
        switch (self, item) {
        case (.string(let text), .string(let part)): part.isEmpty || text.range(of: part) != nil
        case (.list(let values), _): values.contains { $0.isEqual(to: item) }
        case (.map(let members), .string(let key)): members.contains { $0.key == key }
        default: false
        }
    }

    func member(_ name: String) -> TemplateValue {
        switch self {
        case .map(let members): members.first { $0.key == name }?.value ?? .undefined
        case .namespace(let space): space.members[name] ?? .undefined
        default: .undefined
        }
    }
}

extension String {
    /// The first place of `part`, which must not be empty, compared by scalars.
    func range(of part: String) -> Range<String.Index>? { ranges(of: part, limit: 1).first }

    /// The places of `part`, which must not be empty, from left to right and none within another. Takes time for each scalar of either text, and
    /// not for each pair (Knuth, Morris and Pratt's search).
    private func ranges(of part: String, limit: Int) -> [Range<String.Index>] {
        let wanted = Array(part.unicodeScalars)
        guard !wanted.isEmpty else { return [] }
        // How much of its begin a beginning of `part` ends with.
        var borders = [0]
        var border = 0
        for scalar in wanted.dropFirst() {
            while border > 0, wanted[border] != scalar { border = borders[border - 1] }
            if wanted[border] == scalar { border += 1 }
            borders.append(border)
        }
        var ranges: [Range<String.Index>] = []
        let text = unicodeScalars
        var matched = 0
        for place in text.indices where ranges.count < limit {
            while matched > 0, wanted[matched] != text[place] { matched = borders[matched - 1] }
            if wanted[matched] == text[place] { matched += 1 }
            if matched == wanted.count {
                let end = text.index(after: place)
                ranges.append(text.index(end, offsetBy: -matched)..<end)
                matched = 0
            }
        }
        return ranges
    }

    /// The parts between occurrences of `separator`, which must not be empty.
    func parts(separatedBy separator: String, limit: Int = .max) -> [String] {
        var parts: [String] = []
        var start = startIndex
        for place in ranges(of: separator, limit: limit) {
            parts.append(String(self[start..<place.lowerBound]))
            start = place.upperBound
        }
        return parts + [String(self[start...])]
    }
}

/// Why a template cannot be evaluated.
struct TemplateError: Error {
    let reason: String
    init(_ reason: String) { self.reason = reason }
}
