/// A place in memory that holds one record.
package struct Slot: TypedIndex {
    private let value: Int32
    @inline(__always) package init(_ index: Int) { value = Int32(index) }
    @inline(__always) package var index: Int { Int(value) }
}
