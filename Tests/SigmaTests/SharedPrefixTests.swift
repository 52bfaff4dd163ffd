import SampleFiles
import Sigma
import Testing

/// Sequences that begin as others do, and steps of which a part is kept, on the CPU back end: the same bits as from the start.
@Suite struct SharedPrefixTests {
    /// Steps of sequences whose logits are read.
    private struct Steps {
        let backend: CPUBackend
        let pass: ForwardPass

        init() throws {
            let model = try SmallModel.file()
            backend = try CPUBackend(model: model, threadCount: 1)
            pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
        }

        /// One step of some sequences' tokens, of which so many are kept.
        /// - Returns: bits of the logits of each sequence's last kept row.
        @discardableResult
        func run(_ parts: [(tokens: ArraySlice<Int32>, sequence: SequenceState, kept: Int)]) throws -> [[UInt32]] {
            let batch = Batch()
            for part in parts { batch.append(part.tokens, to: part.sequence) }
            var bits: [[UInt32]] = []
            let isComplete = try pass.run(batch, isCancelled: { false }) { backend in
                for (index, part) in parts.enumerated() {
                    batch.keep(part.kept, ofSegment: index)
                    let row = batch.segments[index].firstRow + max(0, part.kept - 1)
                    bits.append(backend.head(rows: row..<row + 1).map(\.bitPattern))
                }
            }
            try #require(isComplete)
            return bits
        }

        /// Tokens of one sequence in pieces of at most `piece`.
        /// - Returns: bits of the last one's logits.
        func append(_ tokens: ArraySlice<Int32>, to sequence: SequenceState, piece: Int = 512) throws -> [UInt32] {
            var rest = tokens
            var bits: [UInt32] = []
            while !rest.isEmpty {
                let now = rest.prefix(piece)
                bits = try run([(now, sequence, now.count)])[0]
                rest = rest.dropFirst(now.count)
            }
            return bits
        }

        /// Computed from the start, in one step.
        func fresh(_ tokens: [Int32], _ kvType: KVType) throws -> [UInt32] {
            try append(tokens[...], to: backend.makeSequence(kvType: kvType))
        }
    }

    @Test(arguments: KVType.allCases) func aPrefixOfAnyLengthServesAsItsOwnTokensWould(kvType: KVType) throws {
        let steps = try Steps()
        let tokens = SmallModel.tokens(402, seed: 1)
        let whole = try steps.backend.makeSequence(kvType: kvType)
        _ = try steps.append(tokens[..<400], to: whole)
        let expected = try steps.fresh(tokens, kvType)
        for length in [0, 1, 255, 256, 257, 300, 400] {
            let sequence = try steps.backend.makeSequence(kvType: kvType)
            sequence.begin(with: whole.prefix(length))
            let found = try steps.append(tokens[length...], to: sequence, piece: 150)
            #expect(found == expected, "a prefix of \(length)")
        }
        #expect(try steps.append(tokens[400...], to: whole) == expected)
    }

    @Test(arguments: KVType.allCases) func bothGoOnWithoutSeeingEachOther(kvType: KVType) throws {
        let steps = try Steps()
        let tokens = SmallModel.tokens(400, seed: 2)
        for length in [1, 255, 256, 257, 300, 400] {
            let first = try steps.backend.makeSequence(kvType: kvType)
            _ = try steps.append(tokens[...], to: first)
            let second = try steps.backend.makeSequence(kvType: kvType)
            second.begin(with: first.prefix(length))
            // In turns: what one writes lies where the other writes.
            let (ownTokens, otherTokens) = (SmallModel.tokens(9, seed: 3), SmallModel.tokens(9, seed: 4))
            var (own, other): ([UInt32], [UInt32]) = ([], [])
            for index in 0..<9 {
                own = try steps.append(ownTokens[index...index], to: first)
                other = try steps.append(otherTokens[index...index], to: second)
            }
            #expect(own == (try steps.fresh(tokens + ownTokens, kvType)))
            #expect(other == (try steps.fresh(tokens[..<length] + otherTokens, kvType)))
            // The first goes back behind what they share, and writes there.
            let back = length / 2
            first.truncate(to: back)
            let rewritten = SmallModel.tokens(400 - back, seed: 5)
            own = try steps.append(rewritten[...], to: first)
            other = try steps.append([7], to: second)
            #expect(own == (try steps.fresh(tokens[..<back] + rewritten, kvType)), "back to \(back)")
            #expect(other == (try steps.fresh(tokens[..<length] + otherTokens + [7], kvType)), "back to \(back)")
        }
    }

    /// Tokens that are put forward and do not hold leave no trace.
    @Test(arguments: [1, 100, 253, 254, 255, 256]) func draftsThatDoNotHoldLeaveNoTrace(length: Int) throws {
        let steps = try Steps()
        let tokens = SmallModel.tokens(length, seed: 6)
        let others = SmallModel.tokens(40, seed: 7)
        let (drafts, next) = (SmallModel.tokens(4, seed: 8), SmallModel.tokens(5, seed: 9))
        for kept in 0...4 {
            let sequence = try steps.backend.makeSequence(kvType: .f16)
            let beside = try steps.backend.makeSequence(kvType: .f16)
            _ = try steps.append(tokens[...], to: sequence)
            let bits = try steps.run([
                (others[..<30], beside, 30), (drafts[...], sequence, kept),
            ])
            #expect(sequence.length == length + kept && beside.length == 30)
            if kept > 0 { #expect(bits[1] == (try steps.fresh(tokens + drafts[..<kept], .f16))) }
            let found = try steps.append(next[...], to: sequence, piece: 2)
            #expect(found == (try steps.fresh(tokens + drafts[..<kept] + next, .f16)), "\(kept) kept")
            #expect(try steps.append(others[30...], to: beside) == steps.fresh(others, .f16))
        }
    }
}
