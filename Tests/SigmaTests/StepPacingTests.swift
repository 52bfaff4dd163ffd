import Testing

@testable import Sigma

@Suite struct StepPacingTests {
    /// A machine on which a row of a prompt takes a millisecond, and a step of generation seven.
    private static func run(_ pacing: inout StepPacing, seconds: Double) -> (
        prompt: Double, generation: Double, longest: Double, rows: Int
    ) {
        var (prompt, generation, longest, rows) = (0.0, 0.0, 0.0, 0)
        while prompt + generation < seconds {
            let count = pacing.promptRows
            if count > 0 {
                let time = 0.007 + 0.001 * Double(count)
                prompt += time
                longest = max(longest, time)
                rows += count
                pacing.record(seconds: time, promptRows: count, isShared: true)
            } else {
                generation += 0.007
                pacing.record(seconds: 0.007, promptRows: 0, isShared: true)
            }
        }
        return (prompt, generation, longest, rows)
    }

    @Test func piecesAreShortAndGenerationHasItsShare() {
        var pacing = StepPacing()
        let shares = Self.run(&pacing, seconds: 60)
        #expect(shares.longest < 0.15)
        #expect(shares.generation / 60 > 0.35 && shares.prompt / 60 > 0.4)
        // Rows of the prompt, of those that it would have alone.
        #expect(Double(shares.rows) / 60_000 > 0.4)
    }

    /// Where a step of generation is long, so may a piece be.
    @Test func slowGenerationAllowsLongerPieces() {
        var pacing = StepPacing()
        pacing.record(seconds: 0.5, promptRows: 0, isShared: false)
        pacing.record(seconds: 0.1, promptRows: 100, isShared: false)
        #expect(pacing.promptRows == 1000)
    }

    @Test func aPromptAloneOwesNothing() {
        var pacing = StepPacing()
        pacing.record(seconds: 10, promptRows: 100, isShared: false)
        #expect(pacing.promptRows > 0)
        pacing.record(seconds: 10, promptRows: 100, isShared: true)
        #expect(pacing.promptRows == 0)
    }

    /// A machine that is so slow that one row takes longer than a piece may: prompts are read all the same.
    @Test func noPromptStarves() {
        var pacing = StepPacing()
        pacing.record(seconds: 100, promptRows: 1, isShared: false)
        #expect(pacing.promptRows == StepPacing.leastRows)
    }

    /// Steps that make way between eight layers: pieces are as short, and the prompt keeps more of its speed, since each layer is read for many rows.
    @Test func longStepsMakeWayInTime() {
        var pacing = StepPacing()
        var (prompt, generation, wait, longest, rows) = (0.0, 0.0, 0.0, 0.0, 0)
        func generate(_ pacing: inout StepPacing) {
            while pacing.owesGeneration {
                generation += 0.007
                longest = max(longest, wait)
                wait = 0
                pacing.record(seconds: 0.007, promptRows: 0, isShared: true)
            }
        }
        while prompt + generation < 60 {
            let count = min(256, pacing.longStepRows(layerCount: 8))
            guard count > 0 else {
                generate(&pacing)
                continue
            }
            let layer = (0.007 + 0.001 * Double(count)) / 8
            for index in 0..<8 {
                prompt += layer
                wait += layer
                pacing.recordLayer(seconds: layer, isAwaited: true)
                if index < 7, pacing.isDue {
                    generate(&pacing)
                    pacing.settle()
                }
            }
            rows += count
            pacing.recordLongStep(seconds: 8 * layer, promptRows: count, isShared: true)
        }
        #expect(longest < 0.15)
        #expect(generation / 60 > 0.35 && prompt / 60 > 0.5)
        #expect(Double(rows) / 60_000 > 0.5)
    }

    /// A step that nobody waits for goes on; who comes in the middle of it is seen before the next layer.
    @Test func longStepsOweNothingToNobody() {
        var pacing = StepPacing()
        for _ in 0..<9 { pacing.recordLayer(seconds: 0.3, isAwaited: false) }
        #expect(pacing.isDue && !pacing.owesGeneration)
        pacing.recordLayer(seconds: 0.3, isAwaited: true)
        #expect(pacing.isDue && pacing.owesGeneration)
        pacing.settle()
        #expect(!pacing.owesGeneration)
    }
}
