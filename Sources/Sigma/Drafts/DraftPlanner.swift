/// Decides how many rows of which drafts a step computes, by what steps cost and how often guesses held. The engine's thread alone uses it.
package final class DraftPlanner: @unchecked Sendable {
    /// Guesses of one answer in a step, at most.
    package static let guessLimit = 15
    /// With `DraftMode.on`.
    package static let guessLimitWhenOn = 8
    /// A draft is computed only for this much more tokens per second.
    static let leastGain = 1.03

    /// A member of the step whose next tokens are guessed.
    package struct Candidate {
        package var mode: DraftMode
        /// For each guess, the chance that it and all before it hold: never rising.
        package var chances: [Double]
        /// Of the guesses, the first so many are computed.
        package var count = 0

        package init(mode: DraftMode, chances: [Double]) {
            self.mode = mode
            self.chances = chances
        }
    }

    package var costs = StepCosts()
    /// How often guesses of all answers held.
    package var chances = DraftChances()

    package init() {}

    /// Sets the candidates' counts.
    ///
    /// - Parameters:
    ///   - rows: of the step without drafts, at least 1.
    ///   - sequences: members that get a token from it.
    ///   - limit: rows that the step may have.
    package func plan(rows: Int, sequences: Int, limit: Int, _ candidates: inout [Candidate]) {
        var rows = rows
        var tokens = Double(sequences)
        for index in candidates.indices { candidates[index].count = 0 }
        for index in candidates.indices where candidates[index].mode == .on {
            let count = min(candidates[index].chances.count, Self.guessLimitWhenOn, limit - rows)
            candidates[index].count = max(0, count)
            rows += candidates[index].count
            tokens += candidates[index].chances.prefix(candidates[index].count).reduce(0, +)
        }
        let limit = min(limit, StepCosts.rowLimit)
        guard let seconds = costs.seconds(rows: rows) else { return }
        var best = candidates
        var bestSpeed = tokens / seconds * Self.leastGain
        // The likeliest guess of all comes first. Costs are no straight line, so every number of rows is looked at.
        while rows < limit {
            var next: Int?
            for (index, candidate) in candidates.enumerated()
            where candidate.mode == .auto && candidate.count < candidate.chances.count {
                if let old = next, candidates[old].nextChance >= candidate.nextChance { continue }
                next = index
            }
            guard let next else { break }
            tokens += candidates[next].nextChance
            candidates[next].count += 1
            rows += 1
            guard let seconds = costs.seconds(rows: rows) else { break }
            if tokens / seconds > bestSpeed {
                bestSpeed = tokens / seconds
                best = candidates
            }
        }
        candidates = best
    }
}

extension DraftPlanner.Candidate {
    fileprivate var nextChance: Double { chances[count] }
}
