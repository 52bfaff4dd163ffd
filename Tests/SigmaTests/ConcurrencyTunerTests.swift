import Sigma
import Testing

@Suite struct ConcurrencyTunerTests {
    /// Runs the tuner on a machine whose speed depends on the number of answers.
    private static func settle(_ speed: (Int) -> Double, most: Int, seconds: Int = 60) -> [Int] {
        var tuner = ConcurrencyTuner(most: most)
        var tokens = 0.0
        var limits: [Int] = []
        for tenth in 0..<10 * seconds {
            tokens += speed(tuner.limit) / 10
            tuner.record(tokens: Int(tokens), seconds: Double(tenth) / 10, running: tuner.limit)
            limits.append(tuner.limit)
        }
        return limits
    }

    @Test func moreAreTriedWhileThatPays() {
        let limits = Self.settle({ 100 * Double($0) }, most: 64)
        #expect(limits.last == 64 && limits.max() == 64)
    }

    /// In memory a doubling gains little, and answers that grow get slower meanwhile.
    @Test func asFastIsEnough() {
        var time = 0
        let limits = Self.settle(
            { limit in
                time += 1
                return 160 * (limit > 32 ? 1.02 : 1) * (1 - 0.0005 * Double(time))
            }, most: 128, seconds: 20)
        #expect(limits.last == 128)
    }

    /// Where more make less, it goes back, and tries only now and then.
    @Test func whatDoesNotPayIsTakenBack() {
        let limits = Self.settle({ $0 <= 16 ? 1000 : 500 }, most: 64, seconds: 600)
        #expect(Double(limits.count { $0 == 16 }) / Double(limits.count) > 0.85)
        #expect(limits.max() == 32)
    }

    /// Small losses add up: what each doubling makes is compared with the best of all.
    @Test func theBestIsRemembered() {
        let limits = Self.settle({ [16: 1000, 32: 960, 64: 920][$0] ?? 880 }, most: 128, seconds: 600)
        #expect(limits.max() == 64)
        #expect(Double(limits.count { $0 == 16 }) / Double(limits.count) > 0.7)
    }

    /// A machine that gets faster later is found out.
    @Test func itTriesAgain() {
        var time = 0
        let limits = Self.settle(
            {
                time += 1
                return $0 <= 16 ? 1000 : time < 1000 ? 500 : 2000
            }, most: 32, seconds: 300)
        #expect(limits.last == 32)
    }

    /// With fewer answers than allowed, or more, nothing can be learned.
    @Test(arguments: [-1, 1]) func otherNumbersSayNothing(difference: Int) {
        var tuner = ConcurrencyTuner(most: 64)
        let before = tuner.limit
        for second in 0..<100 {
            tuner.record(tokens: 1000 * second, seconds: Double(second), running: before + difference)
        }
        #expect(tuner.limit == before)
        #expect(ConcurrencyTuner(most: 2).limit == 2)
    }

    /// What memory allows is measured as any other number, and left where it is slower.
    @Test(arguments: [(speed: 2000.0, limit: 24), (speed: 500.0, limit: 16)])
    func theLimitThatMemorySetsIsMeasured(later: (speed: Double, limit: Int)) {
        var tuner = ConcurrencyTuner(most: 64)
        var tokens = 0.0
        for second in 0..<12 {
            let running = min(tuner.limit, 24)
            if running < tuner.limit { tuner.memoryEnds(running: running) }
            tokens += running == 16 ? 1000 : later.speed
            tuner.record(tokens: Int(tokens), seconds: Double(second), running: running)
        }
        #expect(min(tuner.limit, 24) == later.limit)
    }
}
