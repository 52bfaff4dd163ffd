import SampleFiles
import Testing

/// A short run of what `fuzz-headers` does for a million rounds.
@Suite struct HeaderFuzzTests {
    @Test func damagedHeadersGiveErrorsAndNothingElse() throws {
        let scratch = try Scratch()
        let fuzz = try HeaderFuzz(folder: scratch.path)
        var accepted: [HeaderFuzz.Kind: Int] = [:]
        let rounds = 3000
        for number in 0..<rounds {
            let (kind, _, outcome) = fuzz.round(seed: 7, number: number)
            switch outcome {
            case .accepted: accepted[kind, default: 0] += 1
            case .refused: break
            case .finding(let what): Issue.record("round \(number) (\(kind)): \(what)")
            }
        }
        // Neither a fuzzer whose damage is never met nor one whose files never open says anything.
        for kind in HeaderFuzz.Kind.allCases {
            let share = Double(accepted[kind, default: 0]) / Double(rounds / HeaderFuzz.Kind.allCases.count)
            #expect((0.005...0.9).contains(share), "\(kind): \(share) accepted")
        }
    }
}
