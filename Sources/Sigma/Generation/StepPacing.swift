/// How steps with prompts and steps of generation alone take turns while there are both.
///
/// A piece of a prompt makes all answers wait, so it has only as many rows as the time limit allows, by the seconds that a row of the last such
/// step took. After it the answers have steps of their own, until generation has had its share of the time. Where a step can be laid aside between
/// layers, a piece is some layers of a long step. None of it changes a result: every row is computed as it would be in any other step.
package struct StepPacing: Sendable, Equatable {
    /// Seconds that answers may wait for a piece: as long as this, or so many steps of generation.
    static let pieceSeconds = 0.1
    static let pieceSteps = 2.0
    /// Generation's share of the time.
    static let generationShare = 0.44
    /// Rows of a piece, at least, and of the first one, of which no time is known.
    static let leastRows = 8
    static let firstRows = 16
    /// Of the time that answers may wait, the part that a layer of a long step should take: layers differ.
    static let layerShare = 0.8
    /// Weight of the newest measurement.
    private static let weight = 0.3

    /// Seconds for a row of a prompt, and for a step of generation alone; 0: not known yet.
    private var rowSeconds = 0.0
    private var stepSeconds = 0.0
    /// Seconds of generation alone that are owed before the next piece.
    private var owed = 0.0
    /// Of a long step: seconds of the last layer, and of all layers since it last made way.
    private var layerSeconds = 0.0
    private var uninterrupted = 0.0

    package init() {}

    private var limit: Double { max(Self.pieceSeconds, Self.pieceSteps * stepSeconds) }

    private func rows(in seconds: Double) -> Int {
        guard rowSeconds > 0 else { return Self.firstRows }
        return max(Self.leastRows, Int(min(seconds / rowSeconds, 1e6)))
    }

    /// Rows of prompts that a step can have in the time that answers may wait.
    package var pieceRows: Int { rows(in: limit) }

    /// Rows of prompts that the next step may have while answers wait for it; 0: it has none.
    package var promptRows: Int { owed > 0 ? 0 : pieceRows }

    /// The same for a step that makes way between its layers.
    package func longStepRows(layerCount: Int) -> Int {
        owed > 0 ? 0 : rows(in: limit * Self.layerShare * Double(layerCount))
    }

    /// A step has ended.
    ///
    /// - Parameters:
    ///   - promptRows: of its rows, those of prompts.
    ///   - isShared: whether both kinds of work were there.
    package mutating func record(seconds: Double, promptRows: Int, isShared: Bool) {
        if promptRows > 0 {
            note(rowSeconds: seconds / Double(promptRows))
            owed = 0
            if isShared { owe(for: seconds) }
        } else {
            stepSeconds += (stepSeconds == 0 ? 1 : Self.weight) * (seconds - stepSeconds)
            owed = isShared ? max(0, owed - seconds) : 0
        }
    }

    private mutating func note(rowSeconds measured: Double) {
        rowSeconds += (rowSeconds == 0 ? 1 : Self.weight) * (measured - rowSeconds)
    }

    private mutating func owe(for seconds: Double) {
        owed += seconds * Self.generationShare / (1 - Self.generationShare)
    }

    // MARK: - Long steps

    /// A layer of a long step is done.
    /// - Parameter isAwaited: whether answers wait for the step.
    package mutating func recordLayer(seconds: Double, isAwaited: Bool) {
        layerSeconds = seconds
        uninterrupted += seconds
        if isAwaited { owe(for: seconds) }
    }

    /// Whether the step should make way before its next layer.
    package var isDue: Bool { uninterrupted + layerSeconds > limit }

    package var owesGeneration: Bool { owed > 0 }

    /// The step has made way.
    package mutating func settle() {
        owed = 0
        uninterrupted = 0
    }

    /// A step that made way has ended; its seconds are without those of the others.
    package mutating func recordLongStep(seconds: Double, promptRows: Int, isShared: Bool) {
        note(rowSeconds: seconds / Double(promptRows))
        uninterrupted = 0
        if !isShared { owed = 0 }
    }
}
