import SigmaBase

/// A set of JSON values: a schema, or a combination of schemas. Equal expressions have equal numbers.
typealias ValueID = Int32

/// How a set of values is put together. Resolved lazily, so that recursion needs no special case.
enum ValueExpression: Hashable {
    case any
    case none
    /// A schema with all its keywords.
    case schema(SchemaID)
    /// The keywords that say something about the value by themselves: bounds, patterns, properties.
    case own(SchemaID)
    case and([ValueID])
    case or([ValueID])
    case not(ValueID)
    /// A set that was written down as a shape; the number is its place.
    case shape(Int)
}

/// A set of values by kind: scalars as languages of their texts, arrays and objects as unions of shapes.
struct ValueShape {
    var null = false
    var isFalse = false
    var isTrue = false
    var number = NumberLanguage.none
    /// Strings that a schema lists, written without needless escapes.
    var listed = RegexArena.empty
    /// Other strings, in any spelling.
    var text = RegexArena.empty
    /// All strings that may be members. A few formats are narrowed when they are written: then it holds more than `listed`
    /// and `text`. Complements, and whether two sets have something in common, go by it.
    var strings = RegexArena.empty
    var arrays: [ArrayShape] = []
    var objects: [ObjectShape] = []
}

/// Arrays: `prefix` by position, then `rest`.
struct ArrayShape: Hashable {
    struct Contains: Hashable {
        var value: ValueID
        /// Positions before it don't count.
        var from = 0
        var min = 1
        var max = Int.max
    }

    var prefix: [ValueID] = []
    var rest: ValueID
    var min = 0
    var max = Int.max
    var contains: [Contains] = []
    /// The place of `uniqueItems`; -1 without.
    var uniqueSchema: SchemaID = -1

    func value(at index: Int) -> ValueID { index < prefix.count ? prefix[index] : rest }
}

/// Objects: named members in their order, then members whose keys are in one of the disjoint regions.
///
/// A region says nothing about keys that are among `names`. Keys in no region are forbidden.
struct ObjectShape: Hashable {
    struct Region: Hashable {
        var keys: RegexID
        var value: ValueID
    }

    var names: [ByteKey] = []
    var values: [ValueID] = []
    var required: [Bool] = []
    var regions: [Region] = []
    var min = 0
    var max = Int.max
    /// For each, some member with such a key and value exists.
    var needs: [Region] = []

    func place(of name: ByteKey) -> Int? { names.firstIndex(of: name) }
}
