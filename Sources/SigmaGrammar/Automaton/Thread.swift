/// One of the ways in which the bytes so far can be read, inside one value.
enum ThreadKind: UInt8 {
    // The answer's outside.
    case rootValue, rootEnd, rawText
    // What stands around calls: `operand` is the place in it, `value` the call's value, as in the call's rootValue.
    case callOpening, callClosing
    // Calls in tagged XML. Of a parameter's value, what is expected comes before what is text, as elsewhere.
    case functionName, parameterTag, parameterName, parameterKey, parameterValue, parameterText, parameterEnd
    // A value's first byte, and scalars.
    case value, literal, number, string
    // Objects, in the order of their text.
    case objectOpen, keyStart, name, key, colon, memberValue, memberEnd, objectClosing
    // Arrays.
    case arrayOpen, itemStart, itemEnd, arrayClosing

    /// Whether it reads text outside of JSON, where white space is like any other character.
    var isPlainText: Bool {
        switch self {
        case .rawText, .callOpening, .callClosing, .functionName, .parameterTag, .parameterName, .parameterKey,
            .parameterValue, .parameterText, .parameterEnd:
            true
        default: false
        }
    }
}

/// How a text's scalars are spelled.
enum Spelling: UInt8 {
    /// As UTF-8.
    case raw
    /// In a JSON string, with any escapes.
    case free
    /// In a JSON string, with escapes only where they are needed.
    case listed
}

/// Where a scalar's spelling stands.
enum Pending: UInt8 {
    case none
    /// UTF-8 bytes to come; `low...high` are the scalars that they may make.
    case bytes
    /// UTF-8 bytes to come that all lead to `operand`.
    case uniformBytes
    /// Behind a backslash.
    case escape
    /// Hexadecimal digits to come.
    case digits
    case uniformDigits
    /// Behind the first half of a surrogate pair: `\`, `u`, digits.
    case lowEscape, lowLetter, lowDigits
}

/// A thread's state. Which fields mean something depends on the kind.
struct Thread: Hashable {
    var kind: ThreadKind
    var spelling = Spelling.raw
    var pending = Pending.none
    /// Bytes or digits that are to come.
    var left: UInt8 = 0
    /// The object's or array's progress.
    var site: Int32 = -1
    /// An expression, a value, a literal's number, or the depth in a name.
    var operand: Int32 = 0
    /// For keys that the schema doesn't name: the member's value. For calls: theirs; -1 in a rootValue that is the answer's.
    var value: Int32 = -1
    var low: UInt32 = 0
    var high: UInt32 = 0

    init(_ kind: ThreadKind, site: Int32 = -1, operand: Int32 = 0, value: Int32 = -1) {
        self.kind = kind
        self.site = site
        self.operand = operand
        self.value = value
    }

    static func text(_ kind: ThreadKind, _ expression: RegexID, _ spelling: Spelling) -> Thread {
        var thread = Thread(kind, operand: expression)
        thread.spelling = spelling
        return thread
    }

    private var order: (UInt64, UInt64, UInt64) {
        (
            UInt64(kind.rawValue) << 56 | UInt64(spelling.rawValue) << 48 | UInt64(pending.rawValue) << 40
                | UInt64(left) << 32 | UInt64(UInt32(bitPattern: site)),
            UInt64(UInt32(bitPattern: operand)) << 32 | UInt64(UInt32(bitPattern: value)),
            UInt64(low) << 32 | UInt64(high)
        )
    }

    static func < (a: Thread, b: Thread) -> Bool { a.order < b.order }
}

/// A thread, and which of the values that the surrounding frame expects it is reading.
struct TaggedThread: Hashable {
    var thread: Thread
    /// The number of a set of expectations.
    var tags: Int32
}
