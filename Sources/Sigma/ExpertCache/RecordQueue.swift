/// First in, first out; keeps its memory. Entries that became void are the caller's to skip.
struct RecordQueue {
    private var items: [Int32] = []
    private var head = 0

    var count: Int { items.count - head }
    var first: Int? { head < items.count ? Int(items[head]) : nil }

    mutating func append(_ record: Int) {
        if head > 1024, head > items.count / 2 {
            items.removeFirst(head)
            head = 0
        }
        items.append(Int32(record))
    }
    mutating func removeFirst() {
        head += 1
        if head == items.count { removeAll() }
    }
    mutating func removeAll() {
        items.removeAll(keepingCapacity: true)
        head = 0
    }
}
