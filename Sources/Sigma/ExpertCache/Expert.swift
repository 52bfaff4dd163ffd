/// An expert within its layer.
package struct Expert: TypedIndex {
    private let value: Int32
    @inline(__always) package init(_ index: Int) { value = Int32(index) }
    @inline(__always) package var index: Int { Int(value) }
}
