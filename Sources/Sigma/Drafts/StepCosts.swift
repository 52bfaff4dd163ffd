/// Measured seconds of steps that only generate, by their number of rows.
///
/// All grow with the depth of the sequences and change with what is in the expert cache: a step's time also moves what is known of steps of other sizes
/// a little.
package struct StepCosts: Sendable {
    private struct Entry {
        var seconds = 0.0
        /// Steps that it was measured by, up to `trusted`; 0: none.
        var steps = 0
        /// The number of the newest.
        var newest = 0
    }

    /// Rows of the largest step that is known.
    package static let rowLimit = 32
    /// What a further row is taken to cost before it is measured, in steps of one row.
    static let firstRowShare = 0.25
    /// Weight of a measurement for its own size, and for others.
    private static let weight = 0.25
    private static let weightForOthers = 0.125
    /// One step that others of the machine held up counts as at most so many times what was expected.
    private static let outlier = 2.0
    /// Steps after which a size is no longer known, and from which on it is.
    private static let memory = 512
    private static let trusted = 4

    /// [rows]
    private var entries = [Entry](repeating: Entry(), count: Self.rowLimit + 1)
    private var count = 0

    package init() {}

    package mutating func note(rows: Int, seconds: Double) {
        guard (1...Self.rowLimit).contains(rows), seconds > 0 else { return }
        count += 1
        for index in entries.indices where count - entries[index].newest > Self.memory { entries[index].steps = 0 }
        let expected = self.seconds(rows: rows)
        let measured = min(seconds, Self.outlier * (expected ?? seconds))
        var entry = entries[rows]
        if entry.steps == 0 {
            entry.seconds = expected.map { ($0 + measured) / 2 } ?? measured
        } else {
            if entry.steps >= Self.trusted { moveOthers(of: rows, by: measured / entry.seconds) }
            entry.seconds += Self.weight * (measured - entry.seconds)
        }
        entry.steps = min(entry.steps + 1, Self.trusted)
        entry.newest = count
        entries[rows] = entry
    }

    private mutating func moveOthers(of rows: Int, by ratio: Double) {
        for index in entries.indices where index != rows && entries[index].steps > 0 {
            entries[index].seconds *= 1 + Self.weightForOthers * (ratio - 1)
        }
    }

    /// What a step of so many rows takes: between sizes that were measured on a line, beyond them by an assumption. nil: nothing was measured.
    package func seconds(rows: Int) -> Double? {
        guard (1...Self.rowLimit).contains(rows) else { return nil }
        if entries[rows].steps > 0 { return entries[rows].seconds }
        let below = (1..<rows).last { entries[$0].steps > 0 }
        let above = (rows + 1..<Self.rowLimit + 1).first { entries[$0].steps > 0 }
        /// Seconds of a step of one row, if its further rows cost what is assumed.
        func one(_ rows: Int) -> Double { entries[rows].seconds / (1 + Self.firstRowShare * Double(rows - 1)) }
        switch (below, above) {
        case (let below?, let above?):
            let share = Double(rows - below) / Double(above - below)
            return entries[below].seconds + share * (entries[above].seconds - entries[below].seconds)
        case (let below?, nil):
            return entries[below].seconds + Self.firstRowShare * Double(rows - below) * one(below)
        case (nil, let above?): return one(above) * (1 + Self.firstRowShare * Double(rows - 1))
        case (nil, nil): return nil
        }
    }
}
