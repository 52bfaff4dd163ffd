/// An array that is indexed by one kind of thing: one element for each record, say, or for each slot.
package struct TypedArray<Index: TypedIndex, Element>: RandomAccessCollection, MutableCollection {
    private var elements: [Element]

    package init(_ elements: [Element]) { self.elements = elements }
    package init(repeating element: Element, count: Int) { elements = Array(repeating: element, count: count) }

    package var startIndex: Index { Index(0) }
    package var endIndex: Index { Index(elements.count) }
    package func index(after index: Index) -> Index { Index(index.index + 1) }
    package func index(before index: Index) -> Index { Index(index.index - 1) }
    package func index(_ index: Index, offsetBy distance: Int) -> Index { Index(index.index + distance) }
    package func distance(from start: Index, to end: Index) -> Int { end.index - start.index }

    package subscript(index: Index) -> Element {
        @inline(__always) get { elements[index.index] }
        @inline(__always) _modify { yield &elements[index.index] }
    }
}

extension TypedArray: Sendable where Element: Sendable {}
