/// How the rows' logits came about since a back end was made, or in a stretch of its work.
package struct HeadStatistics: Equatable, Sendable {
    /// Rows whose largest logits the screen found.
    package var screenedRows = 0
    /// Rows that the screen could not decide cheaply: their logits were all computed.
    package var fallbackRows = 0
    /// Rows of which the full head was asked for.
    package var fullRows = 0
    /// Rows that both computed, and those where they disagreed.
    package var comparedRows = 0
    package var misses = 0
    /// Rows of the head that screening has looked at in the fine plane, and computed exactly.
    package var fineRows = 0
    package var exactRows = 0
    /// Bytes of planes and head that were read, for however many rows of a step at once.
    package var bytes = 0

    package init() {}

    private static var counts: [WritableKeyPath<HeadStatistics, Int>] {
        [
            \.screenedRows, \.fallbackRows, \.fullRows, \.comparedRows, \.misses, \.fineRows, \.exactRows, \.bytes,
        ]
    }

    package static func - (a: HeadStatistics, b: HeadStatistics) -> HeadStatistics {
        var result = a
        for count in counts { result[keyPath: count] -= b[keyPath: count] }
        return result
    }

    package static func + (a: HeadStatistics, b: HeadStatistics) -> HeadStatistics {
        var result = a
        for count in counts { result[keyPath: count] += b[keyPath: count] }
        return result
    }
}
