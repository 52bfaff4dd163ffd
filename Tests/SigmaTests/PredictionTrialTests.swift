import Sigma
import Testing

/// Whether predictions are used follows from measured times, step by step.
@Suite struct PredictionTrialTests {
    /// Steps whose time is what a piece of work costs, off and on, times a work that differs from step to step.
    private func share(off: Double, on: Double, steps: Int) -> Double {
        var trial = PredictionTrial(.auto)
        var random = SplitMix64(state: 1)
        var used = 0
        for _ in 0..<steps {
            if trial.isOn { used += 1 }
            let work = Double(random.next() % 400 + 100)
            trial.add((trial.isOn ? on : off) * work, work: work)
        }
        return Double(used) / Double(steps)
    }

    /// A difference that is small beside those between the steps is found, either way.
    @Test func theFasterWayIsKept() {
        #expect(share(off: 1, on: 0.95, steps: 10_000) > 0.9)
        #expect(share(off: 0.95, on: 1, steps: 10_000) < 0.1)
    }

    @Test func whoDecidesDecides() {
        for mode in [PredictionMode.on, .off] {
            var trial = PredictionTrial(mode)
            for step in 0..<1000 {
                #expect(trial.isOn == (mode == .on))
                trial.add(Double(step % 7))
            }
        }
    }
}
