/// A small integer that counts one kind of thing, and cannot be mixed up with one that counts another.
package protocol TypedIndex: Hashable, Comparable, Sendable, BitwiseCopyable, CustomStringConvertible {
    init(_ index: Int)
    var index: Int { get }
}

extension TypedIndex {
    @inline(__always) package static func < (a: Self, b: Self) -> Bool { a.index < b.index }
    package var description: String { String(index) }
}
