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
            tuner.record(tokens: Int(tokens), running: tuner.limit, at: Double(tenth) / 10)
            limits.append(tuner.limit)
        }
        return limits
    }

    @Test func moreAreTriedWhileThatPays() {
        let limits = Self.settle({ 100 * Double($0) }, most: 64)
        #expect(limits.last == 64 && limits.max() == 64)
    }

    /// Where more make less, it goes back, and tries only now and then.
    @Test func whatDoesNotPayIsTakenBack() {
        let limits = Self.settle({ $0 <= 16 ? 1000 : 500 }, most: 64, seconds: 600)
        #expect(Double(limits.count { $0 == 16 }) / Double(limits.count) > 0.85)
        #expect(limits.max() == 32)
    }

    /// A machine that gets faster later is found out.
    @Test func itTriesAgain() {
        var time = 0
        let limits = Self.settle(
            {
                time += 1
                return time < 1000 || $0 <= 16 ? 1000 : 2000
            }, most: 32, seconds: 300)
        #expect(limits.last == 32)
    }

    /// With fewer answers than allowed nothing can be learned.
    @Test func idlePlacesSayNothing() {
        var tuner = ConcurrencyTuner(most: 64)
        let before = tuner.limit
        for second in 0..<100 { tuner.record(tokens: 1000 * second, running: before - 1, at: Double(second)) }
        #expect(tuner.limit == before)
        #expect(ConcurrencyTuner(most: 2).limit == 2)
    }
}
