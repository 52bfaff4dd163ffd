/// One state's largest logits by the full head and by the screen.
package struct HeadComparison: Sendable {
    package var full: [TokenLogit]
    /// Nil: the screen left the state to the full head.
    package var screened: [TokenLogit]?
    /// Standard deviations that the margins had to be wide for every one of `full` to be found, by the threshold that was used.
    package var neededDeviations: Double
    /// Rows of the head that were looked at in the fine plane, and computed exactly.
    package var fineRows: Int
    package var exactRows: Int

    package init(
        full: [TokenLogit], screened: [TokenLogit]?, neededDeviations: Double, fineRows: Int, exactRows: Int
    ) {
        self.full = full
        self.screened = screened
        self.neededDeviations = neededDeviations
        self.fineRows = fineRows
        self.exactRows = exactRows
    }

    package var isMiss: Bool { screened.map { $0 != full } ?? false }
    /// Whether another token is the likeliest.
    package var isMissOfTheFirst: Bool { screened.map { $0.first != full.first } ?? false }
}

/// What studies of a screened output head ask of a back end that has one.
package protocol HeadExperiments: AnyObject {
    /// Standard deviations that margins are wide: another number is for measurements and tests.
    var screenDeviations: Float { get set }
    /// The step's rows after the final norm [rows, hidden]; to be called inside a step, after the last layer.
    func finalStates(rows: Range<Int>) -> [Float]
    /// Both heads on states [at most headRowLimit, hidden]. Not inside a step, and only where the head is screened.
    ///
    /// - Parameters:
    ///   - mask: tokens that count.
    ///   - deviations: how wide margins are; nil: as in generation.
    /// - Throws: `SigmaError(.unavailable)` if memory ends.
    func compareHeads(
        _ states: [Float], largest count: Int, mask: TokenMask, deviations: Float?
    ) throws -> [HeadComparison]
    /// A row of the output head [hidden], exactly.
    func headRow(_ id: Int) -> [Float]
    /// What the coarse plane misses of a row [hidden]: the direction in which its estimate is worst.
    func coarseError(_ id: Int) -> [Float]
}
