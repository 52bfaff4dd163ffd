/// Work of one member in attention: query rows of one segment and one key-value head.
struct AttentionItem {
    var segment: Int
    /// First query row and their number, in the batch.
    var row: Int
    var rows: Int
    var kvHead: Int
    /// The only split to do, its state being kept for the merge; or -1: all splits, one after the other.
    var split: Int
    /// Where the split's state is kept: [item, heads of the group].
    var state: Int
    /// The merge that the split belongs to.
    var merge: Int
}

/// Splits of one row and key-value head; the member that finishes the last of them merges them, in order.
struct MergeItem {
    var row: Int
    var kvHead: Int
    var firstState: Int
    var splits: Int
}

/// A step's attention cut into items, head by head. A segment with few rows is split over positions, so that all members have work at depth; one
/// with many is split over rows. The arithmetic is the same: splits lie at multiples of a block, whatever the batch.
struct AttentionPlan {
    /// Query vectors that share one read of keys and values.
    static let queryTile = 128

    private(set) var items: [AttentionItem] = []
    private(set) var merges: [MergeItem] = []

    mutating func make(_ segments: [Batch.Segment], kvHeadCount: Int, headsPerGroup: Int) {
        items.removeAll(keepingCapacity: true)
        merges.removeAll(keepingCapacity: true)
        var states = 0
        let tileRows = max(1, Self.queryTile / headsPerGroup)
        for head in 0..<kvHeadCount {
            for (index, segment) in segments.enumerated() {
                if segment.count <= StepPath.rowsSplitOverPositions {
                    for row in 0..<segment.count {
                        let splits = Self.splits(segment.position + row)
                        for split in 0..<splits {
                            items.append(
                                AttentionItem(
                                    segment: index, row: segment.firstRow + row, rows: 1, kvHead: head, split: split,
                                    state: states + split, merge: merges.count))
                        }
                        merges.append(
                            MergeItem(row: segment.firstRow + row, kvHead: head, firstState: states, splits: splits))
                        states += splits
                    }
                } else {
                    // The last rows see the most positions: they come first, so that no member ends with a long one.
                    var end = segment.count
                    while end > 0 {
                        let start = max(0, end - tileRows)
                        items.append(
                            AttentionItem(
                                segment: index, row: segment.firstRow + start, rows: end - start, kvHead: head,
                                split: -1, state: 0, merge: -1))
                        end = start
                    }
                }
            }
        }
    }

    private static func splits(_ position: Int) -> Int { position / KVBlockLayout.length + 1 }

    /// Adds what `count` rows from `position` on need of the activations, as `make` will plan them.
    static func add(count: Int, position: Int, kvHeadCount: Int, to shape: inout StepShape) {
        shape.rows += count
        guard count <= StepPath.rowsSplitOverPositions else { return }
        for row in 0..<count {
            shape.splitStates += kvHeadCount * splits(position + row)
            shape.merges += kvHeadCount
        }
    }
}
