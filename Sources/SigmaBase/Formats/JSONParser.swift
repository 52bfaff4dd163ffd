extension JSONValue {
    /// Parses a whole text (RFC 8259): UTF-8 without byte-order mark, no comments, no trailing commas, no NaN, no duplicate keys.
    ///
    /// With `exactNumbers`, numbers that are not `.integer` are `.decimal`: their text, of any size and precision.
    ///
    /// - Throws: `SigmaError` (`.damaged`) with the byte offset inside `bytes`.
    package static func parse(
        _ bytes: UnsafeRawBufferPointer, path: String? = nil, exactNumbers: Bool = false
    ) throws -> JSONValue {
        var parser = JSONParser(bytes: bytes, path: path, exactNumbers: exactNumbers)
        return try parser.parseText()
    }

    package static func parse(_ text: String, path: String? = nil, exactNumbers: Bool = false) throws -> JSONValue {
        var text = text
        return try text.withUTF8 {
            try parse(UnsafeRawBufferPointer($0), path: path, exactNumbers: exactNumbers)
        }
    }

    /// - Throws: `SigmaError`: as `MappedFile`, or `.damaged` if the file is larger than `limit` bytes or not JSON.
    package static func parse(file path: String, limit: Int = 1 << 28) throws -> JSONValue {
        let file = try MappedFile(path: path)
        try StandIn.check(file, expected: "JSON")
        guard file.bytes.count <= limit else {
            throw SigmaError(.damaged, "expected at most \(limit) bytes of JSON, found \(file.bytes.count)", path: path)
        }
        let value = try parse(file.bytes, path: path)
        try file.checkIntact()
        return value
    }
}

private struct JSONParser {
    /// Deeper texts are refused: the parser recurses.
    static let depthLimit = 128

    let bytes: UnsafeRawBufferPointer
    let path: String?
    let exactNumbers: Bool
    var position = 0
    /// Strings with escapes are put together here.
    var scratch: [UInt8] = []
    /// The key whose value is read, for errors that a person mends by hand.
    var key: String?

    init(bytes: UnsafeRawBufferPointer, path: String?, exactNumbers: Bool) {
        self.bytes = bytes
        self.path = path
        self.exactNumbers = exactNumbers
    }

    func failure(_ message: String, at offset: Int? = nil) -> SigmaError {
        SigmaError(.damaged, "not valid JSON: " + message, path: path, offset: UInt64(offset ?? position))
    }

    /// What stands at the position, for "expected X, found Y".
    var found: String {
        guard position < bytes.count else { return "the end" }
        let byte = bytes[position]
        return (0x21...0x7e).contains(byte)
            ? "'\(Character(UnicodeScalar(byte)))'" : "byte 0x" + String(byte, radix: 16)
    }

    /// Words for numbers that JSON doesn't have, but some writers write.
    func notANumber() -> SigmaError? {
        for word in ["NaN", "Infinity", "-Infinity", "nan", "inf", "-inf"] {
            let end = position + word.utf8.count
            guard end <= bytes.count, bytes[position..<end].elementsEqual(word.utf8) else { continue }
            var error = failure("expected a number, found \(word), which JSON does not have (Python writes it)")
            error.item = key
            error.remedy = "Write a finite number or null instead, or save the file again without it."
            return error
        }
        return nil
    }

    mutating func parseText() throws -> JSONValue {
        if bytes.count >= 3, bytes[0] == 0xef, bytes[1] == 0xbb, bytes[2] == 0xbf {
            throw failure("it begins with a byte-order mark", at: 0)
        }
        skipSpace()
        let value = try parseValue(depth: 0)
        skipSpace()
        guard position == bytes.count else { throw failure("expected the end, found \(found)") }
        return value
    }

    mutating func skipSpace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x0a, 0x0d, 0x09: position += 1
            default: return
            }
        }
    }

    mutating func parseValue(depth: Int) throws -> JSONValue {
        guard position < bytes.count else { throw failure("expected a value, found the end") }
        switch bytes[position] {
        case UInt8(ascii: "{"): return .object(try parseObject(depth: depth))
        case UInt8(ascii: "["): return .array(try parseArray(depth: depth))
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try parseNumber()
        case UInt8(ascii: "t"): return try parseWord("true", .bool(true))
        case UInt8(ascii: "f"): return try parseWord("false", .bool(false))
        case UInt8(ascii: "n"):
            if let error = notANumber() { throw error }
            return try parseWord("null", .null)
        default: throw notANumber() ?? failure("expected a value, found \(found)")
        }
    }

    mutating func parseWord(_ word: StaticString, _ value: JSONValue) throws -> JSONValue {
        let count = word.utf8CodeUnitCount
        guard bytes.count - position >= count,
            (0..<count).allSatisfy({ bytes[position + $0] == word.utf8Start[$0] })
        else { throw failure("expected \(word)") }
        position += count
        return value
    }

    mutating func parseObject(depth: Int) throws -> JSONObject {
        guard depth < Self.depthLimit else { throw failure("nested deeper than \(Self.depthLimit) levels") }
        var object = JSONObject()
        position += 1
        skipSpace()
        if take(UInt8(ascii: "}")) { return object }
        while true {
            skipSpace()
            guard position < bytes.count, bytes[position] == UInt8(ascii: "\"") else {
                throw failure("expected a key, found \(found)")
            }
            let start = position
            let key = try parseString()
            self.key = key
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw failure("expected ':', found \(found)") }
            skipSpace()
            let value = try parseValue(depth: depth + 1)
            guard object.append(key, value) else { throw failure("the key \"\(key)\" appears twice", at: start) }
            skipSpace()
            if take(UInt8(ascii: "}")) { return object }
            guard take(UInt8(ascii: ",")) else { throw failure("expected ',' or '}', found \(found)") }
        }
    }

    mutating func parseArray(depth: Int) throws -> [JSONValue] {
        guard depth < Self.depthLimit else { throw failure("nested deeper than \(Self.depthLimit) levels") }
        var values: [JSONValue] = []
        position += 1
        skipSpace()
        if take(UInt8(ascii: "]")) { return values }
        while true {
            skipSpace()
            values.append(try parseValue(depth: depth + 1))
            skipSpace()
            if take(UInt8(ascii: "]")) { return values }
            guard take(UInt8(ascii: ",")) else { throw failure("expected ',' or ']', found \(found)") }
        }
    }

    mutating func take(_ byte: UInt8) -> Bool {
        guard position < bytes.count, bytes[position] == byte else { return false }
        position += 1
        return true
    }

    mutating func parseNumber() throws -> JSONValue {
        let start = position
        _ = take(UInt8(ascii: "-"))
        let isZero = position < bytes.count && bytes[position] == UInt8(ascii: "0")
        let digits = skipDigits()
        guard digits > 0 else {
            let failure = failure("expected a digit, found \(found)")
            position = start
            throw notANumber() ?? failure
        }
        guard !isZero || digits == 1 else { throw failure("a number begins with 0", at: start) }
        var isInteger = true
        if take(UInt8(ascii: ".")) {
            isInteger = false
            guard skipDigits() > 0 else { throw failure("expected a digit, found \(found)") }
        }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            isInteger = false
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            guard skipDigits() > 0 else { throw failure("expected a digit, found \(found)") }
        }
        // Longer digits cannot be an exact Int64, and Double parsing of megabytes of them is a way to stall a program.
        guard position - start <= 1024 else { throw failure("a number of more than 1024 characters", at: start) }
        let text = String(decoding: UnsafeRawBufferPointer(rebasing: bytes[start..<position]), as: UTF8.self)
        if isInteger, let value = Int64(text) { return .integer(value) }
        if exactNumbers { return .decimal(text) }
        guard let value = Double(text), value.isFinite else {
            throw failure("the number \(text) is too large", at: start)
        }
        return .number(value)
    }

    /// - Returns: how many there were.
    mutating func skipDigits() -> Int {
        let start = position
        while position < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[position]) {
            position += 1
        }
        return position - start
    }

    mutating func parseString() throws -> String {
        position += 1
        let start = position
        while position < bytes.count {
            let byte = bytes[position]
            if byte == UInt8(ascii: "\"") {
                let text = try decode(UnsafeRawBufferPointer(rebasing: bytes[start..<position]), at: start)
                position += 1
                return text
            }
            if byte == UInt8(ascii: "\\") { return try parseEscapedString(from: start) }
            guard byte >= 0x20 else { throw failure("a control character inside a string") }
            position += 1
        }
        throw failure("a string without end", at: start - 1)
    }

    func decode(_ slice: UnsafeRawBufferPointer, at offset: Int) throws -> String {
        guard let text = String(validating: slice.bindMemory(to: UInt8.self), as: UTF8.self) else {
            throw failure("a string is not valid UTF-8", at: offset)
        }
        return text
    }

    /// `position` is at the first backslash.
    mutating func parseEscapedString(from start: Int) throws -> String {
        scratch.removeAll(keepingCapacity: true)
        scratch.append(contentsOf: bytes[start..<position])
        while position < bytes.count {
            let byte = bytes[position]
            switch byte {
            case UInt8(ascii: "\""):
                position += 1
                return try scratch.withUnsafeBytes { try decode($0, at: start) }
            case UInt8(ascii: "\\"):
                try parseEscape()
            case 0..<0x20:
                throw failure("a control character inside a string")
            default:
                scratch.append(byte)
                position += 1
            }
        }
        throw failure("a string without end", at: start - 1)
    }

    mutating func parseEscape() throws {
        let start = position
        position += 1
        guard position < bytes.count else { throw failure("a string without end", at: start) }
        let byte = bytes[position]
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): scratch.append(byte)
        case UInt8(ascii: "b"): scratch.append(0x08)
        case UInt8(ascii: "f"): scratch.append(0x0c)
        case UInt8(ascii: "n"): scratch.append(0x0a)
        case UInt8(ascii: "r"): scratch.append(0x0d)
        case UInt8(ascii: "t"): scratch.append(0x09)
        case UInt8(ascii: "u"):
            var code = try parseHex()
            if (0xd800..<0xdc00).contains(code), position + 1 < bytes.count,
                bytes[position] == UInt8(ascii: "\\"), bytes[position + 1] == UInt8(ascii: "u")
            {
                position += 2
                let low = try parseHex()
                guard (0xdc00..<0xe000).contains(low) else { throw failure("half of a surrogate pair", at: start) }
                code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
            }
            guard let scalar = UnicodeScalar(code) else { throw failure("half of a surrogate pair", at: start) }
            scratch.append(contentsOf: UTF8.encode(scalar)!)
        default:
            throw failure("an unknown escape", at: start)
        }
    }

    mutating func parseHex() throws -> UInt32 {
        guard bytes.count - position >= 4 else { throw failure("expected four hexadecimal digits") }
        var code: UInt32 = 0
        for _ in 0..<4 {
            let byte = bytes[position]
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
            default: throw failure("expected four hexadecimal digits, found \(found)")
            }
            code = code << 4 | UInt32(digit)
            position += 1
        }
        return code
    }
}
