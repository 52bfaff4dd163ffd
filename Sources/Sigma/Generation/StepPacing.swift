/// How steps with prompts and steps of generation alone take turns while there are both.
///
/// A step that reads a piece of a prompt makes all answers wait, so it has only as many rows as the time limit allows, by the seconds that a row
/// of the last such step took. After it the answers have steps of their own, until generation has had its share of the time. The pieces change no
/// result: every row is computed as it would be in any other step.
package struct StepPacing: Sendable, Equatable {
    /// Seconds that a step with prompt rows may take beside answers: as long as this, or so many steps of generation.
    static let pieceSeconds = 0.1
    static let pieceSteps = 2.0
    /// Generation's share of the time.
    static let generationShare = 0.45
    /// Rows of a piece, at least, and of the first one, of which no time is known.
    static let leastRows = 8
    static let firstRows = 16
    /// Weight of the newest measurement.
    private static let weight = 0.3

    /// Seconds for a row of a prompt, and for a step of generation alone; 0: not known yet.
    private var rowSeconds = 0.0
    private var stepSeconds = 0.0
    /// Seconds of generation alone that are owed before the next piece.
    private var owed = 0.0

    package init() {}

    /// Rows of prompts that the next step may have while answers wait for it; 0: it has none.
    package var promptRows: Int {
        if owed > 0 { return 0 }
        guard rowSeconds > 0 else { return Self.firstRows }
        let seconds = max(Self.pieceSeconds, Self.pieceSteps * stepSeconds)
        return max(Self.leastRows, Int(min(seconds / rowSeconds, 1e6)))
    }

    /// A step has ended.
    ///
    /// - Parameters:
    ///   - promptRows: of its rows, those of prompts.
    ///   - isShared: whether both kinds of work were there.
    package mutating func record(seconds: Double, promptRows: Int, isShared: Bool) {
        if promptRows > 0 {
            let measured = seconds / Double(promptRows)
            rowSeconds += (rowSeconds == 0 ? 1 : Self.weight) * (measured - rowSeconds)
            owed = isShared ? seconds * Self.generationShare / (1 - Self.generationShare) : 0
        } else {
            stepSeconds += (stepSeconds == 0 ? 1 : Self.weight) * (seconds - stepSeconds)
            owed = isShared ? max(0, owed - seconds) : 0
        }
    }
}
