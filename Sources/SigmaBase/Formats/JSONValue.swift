/// A JSON text as values. Numbers that are written as integers and fit are `.integer`, all others `.number` (finite).
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    /// A number as it is written: instead of `.number`, and only where `JSONValue.parse` was asked for exact numbers.
    case decimal(String)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    /// The member `key` of an object; nil for other kinds and missing keys.
    package subscript(key: String) -> JSONValue? {
        if case .object(let object) = self { return object[key] }
        return nil
    }

    package var isNull: Bool { self == .null }
    package var bool: Bool? {
        if case .bool(let value) = self { return value }
        return nil
    }
    /// An integer; also one written as `1e6` or `2.0`, as long as it is exact.
    package var integer: Int64? {
        switch self {
        case .integer(let value): value
        case .number(let value) where value.magnitude <= 9_007_199_254_740_992: Int64(exactly: value)
        default: nil
        }
    }
    package var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }
    package var string: String? {
        if case .string(let value) = self { return value }
        return nil
    }
    package var array: [JSONValue]? {
        if case .array(let value) = self { return value }
        return nil
    }
    package var object: JSONObject? {
        if case .object(let value) = self { return value }
        return nil
    }

    /// For error messages: "a string", "an object".
    package var kind: String {
        switch self {
        case .null: "null"
        case .bool(let value): value ? "true" : "false"
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .decimal(let text): text
        case .string(let value): value.utf8.count <= 40 ? "\"\(value)\"" : "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}

/// Members in the order of the text. Keys are compared byte by byte, not by Unicode's canonical equivalence as `String` does:
/// two tokens of a vocabulary may differ in nothing else.
package struct JSONObject: Sendable, Equatable {
    package private(set) var keys: [String] = []
    package private(set) var values: [JSONValue] = []
    /// Empty for small objects, which are searched one by one.
    private var places: [ByteKey: Int32] = [:]
    private static let smallCount = 8

    package init() {}

    package var count: Int { keys.count }

    package subscript(key: String) -> JSONValue? { place(of: key).map { values[$0] } }

    package func place(of key: String) -> Int? {
        if keys.count > Self.smallCount { return places[ByteKey(text: key)].map(Int.init) }
        let wanted = ByteKey(text: key)
        return keys.firstIndex { ByteKey(text: $0) == wanted }
    }

    /// False, and nothing is changed, if there is such a key already.
    package mutating func append(_ key: String, _ value: JSONValue) -> Bool {
        guard keys.count < Int(Int32.max), place(of: key) == nil else { return false }
        keys.append(key)
        values.append(value)
        if keys.count == Self.smallCount + 1 {
            for (i, name) in keys.enumerated() { places[ByteKey(text: name)] = Int32(i) }
        } else if keys.count > Self.smallCount {
            places[ByteKey(text: key)] = Int32(keys.count - 1)
        }
        return true
    }

    /// Replaces a member or adds one at the end.
    package mutating func set(_ key: String, _ value: JSONValue) {
        if let place = place(of: key) { values[place] = value } else { _ = append(key, value) }
    }

    /// The same keys with other values.
    package func mapValues(_ transform: (JSONValue) -> JSONValue) -> JSONObject {
        var result = self
        for index in values.indices { result.values[index] = transform(values[index]) }
        return result
    }

    package static func == (a: JSONObject, b: JSONObject) -> Bool {
        a.keys.elementsEqual(b.keys) { ByteKey(text: $0) == ByteKey(text: $1) } && a.values == b.values
    }
}
