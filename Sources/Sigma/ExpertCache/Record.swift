/// An expert's record in the model file: layer * experts + expert, which is the order of the file.
package struct Record: TypedIndex {
    private let value: Int32
    @inline(__always) package init(_ index: Int) { value = Int32(index) }
    @inline(__always) package var index: Int { Int(value) }
}
