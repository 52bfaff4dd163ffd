import SampleFiles
import Sigma
import Testing

/// An answer that has the engine for itself ends at the limit that was promised, to the token, whatever the budget.
@Suite struct PositionLimitTests {
    struct Budget: Sendable, CustomTestStringConvertible {
        /// Bytes beyond the least that works.
        var bytes: Int
        var isResident: Bool
        var kvType: KVType
        var promptLengths = [1, 50, 300]

        var testDescription: String { "\(bytes) bytes more, \(kvType), \(isResident ? "resident" : "slots")" }

        /// Steps that are no multiples of a block or a page; and some far up, where the end alone is computed token by token.
        static let all =
            (0..<10).map { Budget(bytes: $0 * 35_003, isResident: $0 % 2 == 0, kvType: $0 % 3 == 2 ? .q8_0 : .f16) }
            + [700_000, 1_500_001, 2_200_000].flatMap { bytes in
                [true, false].map { Budget(bytes: bytes, isResident: $0, kvType: .f16, promptLengths: []) }
            }
    }

    @Test(arguments: Budget.all) func anAnswerAloneEndsExactlyAtTheLimit(_ budget: Budget) throws {
        let engine = try SmallModel.engine(budget: budget.bytes, isResident: budget.isResident)
        let kvType = budget.kvType
        let limit = engine.positionLimit(kvType: kvType)
        #expect(limit >= KVBlockLayout.length)
        for length in budget.promptLengths + [limit - 30] {
            let request = engine.request(
                SmallModel.tokens(length, seed: UInt64(length)), engine.endless(5000, temperature: 0))
            guard length <= limit else {
                #expect(throws: SigmaError.self) { try AnswerOutcome(request, on: engine, kvType: kvType) }
                continue
            }
            let outcome = try AnswerOutcome(request, on: engine, kvType: kvType)
            #expect(outcome.reason == .context)
            #expect(length + outcome.ids.count == limit, "a prompt of \(length) with a limit of \(limit)")
        }
        // A prompt that fills all there is.
        let full = engine.request(SmallModel.tokens(limit, seed: 9), engine.endless(10))
        #expect(try AnswerOutcome(full, on: engine, kvType: kvType).reason == .context)
        let more = engine.request(SmallModel.tokens(limit + 1, seed: 9), engine.endless(10))
        #expect(throws: SigmaError.self) { try AnswerOutcome(more, on: engine, kvType: kvType) }
    }

    @Test func limitsGrowWithTheBudget() throws {
        let limits = try (0..<10).map { try SmallModel.engine(budget: $0 * 60_001).positionLimit(kvType: .f16) }
        #expect(limits == limits.sorted() && limits[9] > limits[0])
    }
}
