import SampleFiles
import Sigma
import Testing

/// An answer that has the engine for itself ends at the limit that was promised, to the token, whatever the budget.
@Suite struct PositionLimitTests {
    private static let promptLengths = [1, 50, 300]

    /// From the least that works upwards, in steps that are no multiples of a block or a page.
    @Test(arguments: 0..<10, [true, false]) func anAnswerAloneEndsExactlyAtTheLimit(step: Int, isResident: Bool) throws {
        let engine = try SmallModel.engine(budget: step * 60_001, isResident: isResident)
        let kvType = step % 3 == 2 ? KVType.q8_0 : .f16
        let limit = engine.positionLimit(kvType: kvType)
        #expect(limit >= KVBlockLayout.length)
        for length in Self.promptLengths {
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
