/// The rows of one step: each row is one token of one sequence at one position.
///
/// Reused from step to step, so that a step allocates nothing.
package final class Batch {
    /// Successive tokens of one sequence.
    package struct Segment {
        package let sequence: SequenceState
        package let firstRow: Int
        package let count: Int
        /// Position of the first token: the sequence's length before the step.
        package let position: Int
        /// Of its rows, the last so many may turn out not to stay.
        package let drafts: Int
        /// Of its rows, the first so many become part of the sequence when the step ends: the others were drafts that did not hold.
        package fileprivate(set) var kept: Int

        package var rows: Range<Int> { firstRow..<firstRow + count }
    }

    package private(set) var tokens: [Int32] = []
    package private(set) var segments: [Segment] = []
    /// Where the step's routing goes; nil: nobody asks.
    package var routing: RoutingRecord?

    package init() {}

    package func removeAll() {
        tokens.removeAll(keepingCapacity: true)
        segments.removeAll(keepingCapacity: true)
    }

    /// Whether rows may turn out not to stay.
    package var hasDrafts: Bool { segments.contains { $0.drafts > 0 } }

    /// The kept rows, a bit for each: of a batch of at most 64.
    package var keptRows: RowSet {
        segments.reduce(into: RowSet()) { set, segment in
            for row in segment.firstRow..<segment.firstRow + segment.kept { set.insert(row) }
        }
    }

    /// Appends tokens to follow what `sequence` holds. A sequence appears at most once in a batch.
    /// - Parameter drafts: so many of them, the last ones, are guesses. A batch with guesses has at most 64 rows.
    package func append(_ newTokens: ArraySlice<Int32>, to sequence: SequenceState, drafts: Int = 0) {
        segments.append(
            Segment(
                sequence: sequence, firstRow: tokens.count, count: newTokens.count, position: sequence.length,
                drafts: drafts, kept: newTokens.count))
        tokens.append(contentsOf: newTokens)
    }

    /// Before the step ends: only the first `count` rows of a segment stay.
    package func keep(_ count: Int, ofSegment index: Int) {
        precondition((0...segments[index].count).contains(count))
        segments[index].kept = count
    }
}
