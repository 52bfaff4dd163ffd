import Sigma

/// The members of an object in a request. Each is taken once, and a member that was not taken is refused by its name: nothing is dropped silently.
///
/// A member that is null counts as absent.
struct FieldReader {
    private let object: JSONObject
    /// Put before a member's name in errors; ends with a dot unless it is empty.
    private let prefix: String
    private var isTaken: [Bool]

    /// - Parameter path: where the object is in the body; empty: it is the body.
    init(_ value: JSONValue, at path: String = "") throws(RequestError) {
        guard let object = value.object else {
            throw RequestError.invalid(path, "expected an object, found \(value.kind)")
        }
        self.object = object
        prefix = path.isEmpty ? "" : path + "."
        isTaken = Array(repeating: false, count: object.count)
    }

    /// The member's place in the body.
    func path(_ key: String) -> String { prefix + key }

    mutating func take(_ key: String) -> JSONValue? { takeExactly(key)?.withDoubles }

    /// With numbers as they are written, where they are no integers.
    mutating func takeExactly(_ key: String) -> JSONValue? {
        guard let place = object.place(of: key) else { return nil }
        isTaken[place] = true
        let value = object.values[place]
        return value.isNull ? nil : value
    }

    mutating func bool(_ key: String) throws(RequestError) -> Bool? {
        try taken(key, "true or false") { $0.bool }
    }

    mutating func string(_ key: String) throws(RequestError) -> String? {
        try taken(key, "a string") { $0.string }
    }

    /// A string that names something.
    mutating func name(_ key: String) throws(RequestError) -> String? {
        try taken(key, "a string of 1 to \(RequestLimits.nameBytes) bytes") {
            $0.string.flatMap { (1...RequestLimits.nameBytes).contains($0.utf8.count) ? $0 : nil }
        }
    }

    mutating func integer(_ key: String, in range: ClosedRange<Int64>) throws(RequestError) -> Int? {
        let words =
            range.upperBound == .max
            ? "an integer of \(range.lowerBound) or more" : "an integer from \(range.lowerBound) to \(range.upperBound)"
        return try taken(key, words) { $0.integer.flatMap { range.contains($0) ? Int($0) : nil } }
    }

    /// - Parameter words: what is allowed: "a number from 0 to 1".
    mutating func number(
        _ key: String, _ words: String, _ isAllowed: (Double) -> Bool
    ) throws(RequestError) -> Double? {
        try taken(key, words) { $0.double.flatMap { $0.isFinite && isAllowed($0) ? $0 : nil } }
    }

    private mutating func taken<Value>(
        _ key: String, _ words: String, _ convert: (JSONValue) -> Value?
    ) throws(RequestError) -> Value? {
        guard let value = take(key) else { return nil }
        guard let result = convert(value) else {
            throw RequestError.invalid(path(key), "expected \(words), found \(value.kind)")
        }
        return result
    }

    /// Members that change nothing in an answer, whatever they say.
    mutating func ignore(_ keys: String...) {
        for key in keys { _ = take(key) }
    }

    /// A member that is not supported, and may be there with values that ask for nothing.
    mutating func allow(_ key: String, only neutral: JSONValue..., otherwise message: String = "is not supported")
        throws(RequestError)
    {
        guard let value = take(key) else { return }
        guard neutral.contains(where: { $0 == value || ($0.double != nil && $0.double == value.double) }) else {
            throw RequestError.unsupported(path(key), message)
        }
    }

    /// Refuses the first member that was not taken.
    mutating func finish() throws(RequestError) {
        for (place, key) in object.keys.enumerated() where !isTaken[place] && !object.values[place].isNull {
            let name = key.utf8.count <= RequestLimits.nameBytes ? SigmaError.printable(key) : "a long name"
            throw RequestError.unsupported(path(name), "is not a field that is supported here")
        }
    }
}

extension JSONValue {
    /// A body, or a line of a batch.
    /// - Parameter nesting: arrays and objects inside one another, at most.
    static func request(_ bytes: UnsafeRawBufferPointer, nesting: Int = RequestLimits.nesting) throws(RequestError)
        -> JSONValue
    {
        guard bytes.count <= RequestLimits.bodyBytes else {
            throw RequestError(
                status: 413, "the body has \(bytes.count) bytes, and \(RequestLimits.bodyBytes) are allowed",
                code: "body_too_large")
        }
        let value: JSONValue
        do {
            value = try JSONValue.parse(bytes, exactNumbers: true)
        } catch let error as SigmaError {
            throw RequestError(status: 400, error.description(remedy: nil), code: "invalid_json")
        } catch {
            throw RequestError(status: 400, "not valid JSON", code: "invalid_json")
        }
        guard value.isNested(atMost: nesting) else {
            throw RequestError(status: 400, "the body is nested deeper than \(nesting) levels", code: "invalid_json")
        }
        if let number = value.tooLargeNumber {
            let shown = number.utf8.count <= 40 ? number : "with \(number.utf8.count) characters"
            throw RequestError(status: 400, "the number \(shown) is too large", code: "invalid_json")
        }
        return value
    }

    /// A number that no double holds; nil: there is none.
    private var tooLargeNumber: String? {
        switch self {
        case .decimal(let text): Double(text)?.isFinite == true ? nil : text
        case .array(let values): values.lazy.compactMap(\.tooLargeNumber).first
        case .object(let object): object.values.lazy.compactMap(\.tooLargeNumber).first
        default: nil
        }
    }

    /// With doubles in the place of numbers as they are written.
    fileprivate var withDoubles: JSONValue {
        switch self {
        case .decimal(let text): .number(Double(text) ?? 0)
        case .array(let values): .array(values.map(\.withDoubles))
        case .object(let object): .object(object.mapValues(\.withDoubles))
        default: self
        }
    }

    private func isNested(atMost levels: Int) -> Bool {
        switch self {
        case .array(let values): levels > 0 && values.allSatisfy { $0.isNested(atMost: levels - 1) }
        case .object(let object): levels > 0 && object.values.allSatisfy { $0.isNested(atMost: levels - 1) }
        default: true
        }
    }
}
