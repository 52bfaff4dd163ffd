/// Doubly linked lists of records: a record is in one list at most. Every call is O(1) and allocates nothing.
package struct RecordLists: Sendable {
    /// Of a record: its neighbours; the lists' heads are behind the last record.
    private var previous: [Int32]
    private var next: [Int32]
    /// [records]: the list that each is in; -1: none.
    private var list: TypedArray<Record, Int32>
    private let recordCount: Int
    package private(set) var counts: [Int]

    package init(recordCount: Int, listCount: Int) {
        precondition(recordCount + listCount < Int(Int32.max))
        self.recordCount = recordCount
        previous = (0..<(recordCount + listCount)).map { Int32($0) }
        next = previous
        list = TypedArray(repeating: -1, count: recordCount)
        counts = Array(repeating: 0, count: listCount)
    }

    package func list(of record: Record) -> Int? { list[record] < 0 ? nil : Int(list[record]) }
    package func first(_ list: Int) -> Record? { counts[list] == 0 ? nil : Record(Int(next[recordCount + list])) }

    package mutating func append(_ record: Record, to list: Int) {
        insert(record, before: recordCount + list, in: list)
    }
    package mutating func prepend(_ record: Record, to list: Int) {
        insert(record, before: Int(next[recordCount + list]), in: list)
    }

    private mutating func insert(_ record: Record, before neighbour: Int, in list: Int) {
        precondition(self.list[record] < 0)
        let before = Int(previous[neighbour])
        previous[record.index] = Int32(before)
        next[record.index] = Int32(neighbour)
        next[before] = Int32(record.index)
        previous[neighbour] = Int32(record.index)
        self.list[record] = Int32(list)
        counts[list] += 1
    }

    package mutating func remove(_ record: Record) {
        let list = Int(self.list[record])
        precondition(list >= 0)
        next[Int(previous[record.index])] = next[record.index]
        previous[Int(next[record.index])] = previous[record.index]
        self.list[record] = -1
        counts[list] -= 1
    }

    package mutating func removeFirst(_ list: Int) -> Record? {
        guard let record = first(list) else { return nil }
        remove(record)
        return record
    }
}
