import SigmaBase

/// What a constraint compiles to: expressions, and how values are made of them. The automaton runs on it.
struct Grammar {
    /// A value by kind, without what is empty.
    struct Value {
        var null = false
        var isFalse = false
        var isTrue = false
        var number = RegexArena.empty
        var listed = RegexArena.empty
        var text = RegexArena.empty
        var arrays: [Int32] = []
        var objects: [Int32] = []

        var isEmpty: Bool {
            !null && !isFalse && !isTrue && number == RegexArena.empty && listed == RegexArena.empty
                && text == RegexArena.empty && arrays.isEmpty && objects.isEmpty
        }
    }

    enum Answer {
        /// The whole answer is a match, byte by byte.
        case text(RegexID)
        case value(Int32)
    }

    struct Calls {
        let form: CallForm
        let opening: [UInt8]
        let closing: [UInt8]
        /// One call, without its tags; -1 where calls are tagged XML.
        var value: Int32 = -1
        /// Those of tagged XML.
        var functions = ParameterLists()
        var allowsSeveral: Bool

        init(_ form: CallForm, allowsSeveral: Bool) {
            self.form = form
            self.allowsSeveral = allowsSeveral
            opening = form.opening
            closing = form.closing
        }
    }

    var arena: RegexArena
    /// Nil where nothing but calls may come.
    var answer: Answer?
    /// What may come in the place of the answer; nil where there are no calls. No answer begins as they do.
    var calls: Calls?
    var values: [Value] = []
    var arrays: [ArrayRule] = []
    var objects: [ObjectRule] = []

    /// Computes how each text may begin. An expression for which that is much would make masks slow, in the middle of an answer: every state
    /// that a mask visits costs about as much.
    ///
    /// - Throws: `ConstraintError` (`.limit`).
    mutating func deriveBeginnings(_ limits: ConstraintLimits) throws(ConstraintError) {
        arena.deadline = ContinuousClock.now + .seconds(limits.compileSeconds)
        defer { arena.deadline = nil }
        var texts = values.map(\.text)
        if case .text(let text) = answer { texts.append(text) }
        for text in texts where !arena.isOutOfTime {
            let before = arena.combinations
            _ = arena.partition(of: text)
            guard arena.combinations - before <= limits.beginnings else {
                throw ConstraintError(.limit, "an expression can begin in too many ways")
            }
        }
        guard !arena.isOutOfTime else { throw ConstraintError(time: limits.compileSeconds) }
    }
}

/// How objects of one shape are written.
final class ObjectRule {
    struct Region {
        /// Keys that are among `names` don't count.
        var keys: RegexID
        var value: Int32
    }

    var names: [String] = []
    /// As in the text, with the closing quotation mark, sorted by bytes.
    var spellings: [[UInt8]] = []
    /// For each spelling, the member's place in the declared order.
    var places: [Int] = []
    /// By place; -1 where no value is possible.
    var values: [Int32] = []
    /// By position: the next place that is required; `values.count` if none is.
    var nextRequired: [Int] = [0]
    /// By position: required members from there on, and possible ones.
    var requiredAfter: [Int] = [0]
    var possibleAfter: [Int] = [0]
    var regions: [Region] = []
    /// The last member is one of these, where there are any.
    var needs: [Region] = []
    let min: Int
    let max: Int

    init(min: Int, max: Int) {
        self.min = min
        self.max = max
    }

    func setMembers(_ values: [Int32], required: [Bool]) {
        self.values = values
        let count = values.count
        nextRequired = [Int](repeating: count, count: count + 1)
        requiredAfter = [Int](repeating: 0, count: count + 1)
        possibleAfter = requiredAfter
        for place in stride(from: count - 1, through: 0, by: -1) {
            nextRequired[place] = required[place] ? place : nextRequired[place + 1]
            requiredAfter[place] = requiredAfter[place + 1] + (required[place] ? 1 : 0)
            possibleAfter[place] = possibleAfter[place + 1] + (values[place] >= 0 ? 1 : 0)
        }
    }
}

/// How arrays of one shape are written.
final class ArrayRule {
    let shape: ArrayShape
    /// By position, up to where they stay the same: the possible items.
    var ways: [[(value: Int32, way: ArrayWay)]] = []

    init(shape: ArrayShape) { self.shape = shape }

    func ways(at index: Int) -> [(value: Int32, way: ArrayWay)] { ways[min(index, ways.count - 1)] }

    func canComplete(from progress: ArrayProgress) -> Bool? {
        shape.canComplete(from: progress) { ways(at: $0).map(\.way) }
    }
}

/// A name or another listed string as it is written in JSON: with the shortest escapes.
func jsonSpelling(of text: String) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(text.utf8.count + 1)
    for byte in text.utf8 {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): result += [UInt8(ascii: "\\"), byte]
        case 0x08: result += Array("\\b".utf8)
        case 0x09: result += Array("\\t".utf8)
        case 0x0A: result += Array("\\n".utf8)
        case 0x0C: result += Array("\\f".utf8)
        case 0x0D: result += Array("\\r".utf8)
        case 0..<0x20:
            let digits = String(byte, radix: 16)
            result += Array(("\\u00" + (byte < 16 ? "0" : "") + digits).utf8)
        default: result.append(byte)
        }
    }
    return result
}
