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

    /// Appends tokens to follow what `sequence` holds. A sequence appears at most once in a batch.
    package func append(_ newTokens: ArraySlice<Int32>, to sequence: SequenceState) {
        segments.append(
            Segment(
                sequence: sequence, firstRow: tokens.count, count: newTokens.count, position: sequence.length,
                kept: newTokens.count))
        tokens.append(contentsOf: newTokens)
    }

    /// Before the step ends: only the first `count` rows of a segment stay.
    package func keep(_ count: Int, ofSegment index: Int) {
        precondition((0...segments[index].count).contains(count))
        segments[index].kept = count
    }
}
