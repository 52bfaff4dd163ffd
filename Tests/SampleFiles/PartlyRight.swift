import Sigma

/// Guesses that equal the answer with a known chance, each for itself.
package struct PartlyRight: DraftSource {
    private let sequence: [Int32]
    private let share: Double

    /// - Parameters:
    ///   - sequence: as it will be, its prompt included.
    ///   - share: the part of the guesses that is right, 0 to 1.
    package init(sequence: [Int32], share: Double) {
        self.sequence = sequence
        self.share = share
    }

    package func guess(after tokens: [Int32], newest: Int32, limit: Int) -> [Int32] {
        sequence.indices.dropFirst(tokens.count + 1).prefix(limit).map { place in
            let isRight = Double(SplitMix64.mixed(UInt64(place)) >> 11) * 0x1p-53 < share
            return isRight ? sequence[place] : sequence[place] == 0 ? 1 : sequence[place] - 1
        }
    }
}
