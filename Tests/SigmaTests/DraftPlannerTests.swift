import Sigma
import Testing

/// How many guesses pay, by what steps cost and how often guesses held.
@Suite struct DraftPlannerTests {
    /// A step of one row, and what a further one costs of it.
    private static func planner(row: Double, rows: ClosedRange<Int> = 1...32) -> DraftPlanner {
        let planner = DraftPlanner()
        for _ in 0..<24 {
            for count in rows { planner.costs.note(rows: count, seconds: 0.02 * (1 + row * Double(count - 1))) }
        }
        return planner
    }

    private static func count(_ planner: DraftPlanner, chance: Double, guesses: Int = 15) -> Int {
        var candidates = [
            DraftPlanner.Candidate(mode: .auto, chances: (1...guesses).map { power(chance, $0) })
        ]
        planner.plan(rows: 1, sequences: 1, limit: 64, &candidates)
        return candidates[0].count
    }

    private static func power(_ base: Double, _ exponent: Int) -> Double {
        (0..<exponent).reduce(1) { product, _ in product * base }
    }

    @Test func theNumberThatMakesTheMostTokensPerSecondIsTaken() {
        for row in [0.05, 0.25, 0.5, 0.9] {
            let planner = Self.planner(row: row)
            for chance in [0.1, 0.3, 0.5, 0.7, 0.9, 0.99] {
                /// Tokens/s, in tokens a step of one row.
                func speed(_ count: Int) -> Double {
                    (0...count).reduce(0) { $0 + Self.power(chance, $1) } / (1 + row * Double(count))
                }
                let best = (0...15).max { speed($0) < speed($1) }!
                let found = Self.count(planner, chance: chance)
                #expect(found == 0 || speed(best) > 1.01, "a row costs \(row), \(chance) hold")
                #expect(speed(found) > 0.97 * speed(best), "a row costs \(row), \(chance) hold")
            }
        }
        #expect(Self.count(Self.planner(row: 0.25), chance: 0.1) == 0)
        #expect(Self.count(Self.planner(row: 0.25), chance: 0.99) > 8)
        #expect(Self.count(Self.planner(row: 1.0), chance: 0.9) == 0)
    }

    @Test func nothingIsDraftedBeforeAStepWasMeasured() {
        #expect(Self.count(DraftPlanner(), chance: 0.99) == 0)
        // One size is enough for a guess at the others.
        #expect(Self.count(Self.planner(row: 0, rows: 1...1), chance: 0.9) > 1)
        #expect(Self.count(Self.planner(row: 0.25, rows: 4...4), chance: 0.05) == 0)
    }

    @Test func theLikeliestGuessesOfAllComeFirst() {
        let planner = Self.planner(row: 0.2)
        var candidates = [
            DraftPlanner.Candidate(mode: .auto, chances: [0.2, 0.1]),
            DraftPlanner.Candidate(mode: .auto, chances: [0.95, 0.9, 0.85, 0.8, 0.2]),
            DraftPlanner.Candidate(mode: .auto, chances: [0.9, 0.1]),
        ]
        planner.plan(rows: 3, sequences: 3, limit: 64, &candidates)
        #expect(candidates.map(\.count) == [0, 4, 1])
        planner.plan(rows: 3, sequences: 3, limit: 5, &candidates)
        #expect(candidates.map(\.count).reduce(0, +) <= 15)
        // On means on, whatever it costs, within the step's rows.
        var on = [
            DraftPlanner.Candidate(mode: .on, chances: [0.01, 0.01, 0.01]),
            DraftPlanner.Candidate(mode: .on, chances: [0.01, 0.01, 0.01]),
        ]
        DraftPlanner().plan(rows: 2, sequences: 2, limit: 6, &on)
        #expect(on.map(\.count) == [3, 1])
    }

    /// Text that never repeats as guessed: a few rows, then none.
    @Test func guessesThatNeverHoldAreSoonLeft() {
        let planner = Self.planner(row: 0.25)
        for kind in DraftKind.allCases {
            var chances = planner.chances.inherited
            var rows = 0
            for _ in 0..<128 {
                var draft = Draft()
                for _ in 0..<15 { draft.append(1, kind) }
                var candidates = [DraftPlanner.Candidate(mode: .auto, chances: [])]
                chances.chances(of: draft, into: &candidates[0].chances)
                planner.plan(rows: 1, sequences: 1, limit: 64, &candidates)
                rows += candidates[0].count
                chances.note(kind, held: false)
            }
            // At most 2 % of the time of 128 steps.
            #expect(0.25 * Double(rows) < 0.02 * 128, "\(kind)")
        }
    }

    @Test func guessesThatHoldAreSoonLong() {
        let planner = Self.planner(row: 0.25)
        var chances = planner.chances.inherited
        for _ in 0..<12 { chances.note(.match9, held: true) }
        var draft = Draft()
        for _ in 0..<15 { draft.append(1, .match9) }
        var candidates = [DraftPlanner.Candidate(mode: .auto, chances: [])]
        chances.chances(of: draft, into: &candidates[0].chances)
        planner.plan(rows: 1, sequences: 1, limit: 64, &candidates)
        #expect(candidates[0].count >= 5)
        // And short again, when they do not.
        for _ in 0..<40 { chances.note(.match9, held: false) }
        chances.chances(of: draft, into: &candidates[0].chances)
        candidates[0].count = 0
        planner.plan(rows: 1, sequences: 1, limit: 64, &candidates)
        #expect(candidates[0].count == 0)
    }

    @Test func costsFollowWhatIsMeasured() throws {
        var costs = StepCosts()
        #expect(costs.seconds(rows: 1) == nil)
        costs.note(rows: 1, seconds: 0.02)
        #expect(costs.seconds(rows: 1) == 0.02)
        #expect(abs(try #require(costs.seconds(rows: 5)) - 0.04) < 1e-9)
        for _ in 0..<30 { costs.note(rows: 5, seconds: 0.03) }
        #expect(abs(try #require(costs.seconds(rows: 5)) - 0.03) < 1e-3)
        // Between them on a line.
        let (one, five) = (try #require(costs.seconds(rows: 1)), try #require(costs.seconds(rows: 5)))
        #expect(abs(try #require(costs.seconds(rows: 3)) - (one + five) / 2) < 1e-9)
        // A step that something held up hardly counts.
        costs.note(rows: 5, seconds: 10)
        #expect(try #require(costs.seconds(rows: 5)) < 0.04)
        // Depth moves all sizes, also those that were not met again.
        let before = try #require(costs.seconds(rows: 1))
        for step in 0..<200 { costs.note(rows: 5, seconds: 0.03 * (1 + Double(step) / 200)) }
        #expect(try #require(costs.seconds(rows: 1)) > 1.25 * before)
        #expect(costs.seconds(rows: 0) == nil && costs.seconds(rows: StepCosts.rowLimit + 1) == nil)
    }
}
