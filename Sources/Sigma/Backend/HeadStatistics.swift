/// How the rows' logits came about since a back end was made, or in a stretch of its work.
package struct HeadStatistics: Equatable, Sendable {
    /// Rows of which only the allowed tokens' logits were computed: so few tokens were allowed.
    package var allowedRows = 0
    /// Rows whose largest logits the screen found.
    package var screenedRows = 0
    /// Rows that the screen could not decide cheaply: their logits were all computed.
    package var fallbackRows = 0
    /// Rows of which the full head was asked for.
    package var fullRows = 0
    /// Rows that both computed, and those where they disagreed.
    package var comparedRows = 0
    package var misses = 0
    /// Rows of the head that screening has looked at in the fine plane; and rows, or groups of rows, that were computed one by one.
    package var fineRows = 0
    package var exactRows = 0
    /// Bytes of planes and head that were read, for however many rows of a step at once.
    package var bytes = 0

    package init() {}

    private static var counts: [WritableKeyPath<HeadStatistics, Int>] {
        [
            \.allowedRows, \.screenedRows, \.fallbackRows, \.fullRows, \.comparedRows, \.misses, \.fineRows,
            \.exactRows,
            \.bytes,
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
