/// How often guesses of each kind held. Newer guesses count more, so a text that begins or ceases to repeat is noticed within some tokens.
package struct DraftChances: Sendable {
    private struct Count {
        var held: Double
        var all: Double
    }

    /// [kinds]
    private var counts: [Count]

    /// What a first assumption weighs, in guesses; what an answer takes over of others' guesses at most; and what remains of a guess's weight after
    /// each further one of its kind.
    private static let firstWeight = 2.0
    private static let inheritedWeight = 4.0
    private static let decay = 0.95

    package init() {
        counts = DraftKind.allCases.map { Count(held: Self.firstWeight * $0.firstChance, all: Self.firstWeight) }
    }

    /// What another answer begins with: the same chances, which its own guesses soon outweigh.
    package var inherited: DraftChances {
        var copy = self
        for index in counts.indices {
            let share = min(1, Self.inheritedWeight / counts[index].all)
            copy.counts[index] = Count(held: counts[index].held * share, all: counts[index].all * share)
        }
        return copy
    }

    package subscript(kind: DraftKind) -> Double { counts[kind.rawValue].held / counts[kind.rawValue].all }

    package mutating func note(_ kind: DraftKind, held: Bool) {
        let count = counts[kind.rawValue]
        counts[kind.rawValue] = Count(
            held: Self.decay * count.held + (held ? 1 : 0), all: Self.decay * count.all + 1)
    }

    /// For each of the draft's tokens, the chance that it and all before it hold.
    package func chances(of draft: Draft, into chances: inout [Double]) {
        chances.removeAll(keepingCapacity: true)
        var all = 1.0
        for kind in draft.kinds {
            all *= self[kind]
            chances.append(all)
        }
    }

    /// Tokens of the draft that hold, on the mean.
    package func expectation(of draft: Draft) -> Double {
        var (all, sum) = (1.0, 0.0)
        for kind in draft.kinds {
            all *= self[kind]
            sum += all
        }
        return sum
    }
}
