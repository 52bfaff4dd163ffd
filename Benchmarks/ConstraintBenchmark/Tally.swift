import SigmaBase
import SigmaGrammar

/// Counts and quantiles over all schemas.
struct Tally {
    private var schemas = 0
    private var compiled = 0
    private var right = 0
    private var wrong: [String] = []
    private var refusals: [String: Int] = [:]
    private var compileTimes: [Double] = []
    private var maskTimes: [Double] = []

    mutating func add(
        name: String, failure: ConstraintError?, isRight: Bool, wronglyAccepted: Bool, compile: Double, masks: [Double]
    ) {
        schemas += 1
        if let failure { refusals["\(failure.reason) \(failure.keyword)", default: 0] += 1 } else { compiled += 1 }
        if isRight { right += 1 }
        if wronglyAccepted { wrong.append(name) }
        compileTimes.append(compile)
        maskTimes += masks
    }

    func printSummary() {
        func share(_ count: Int) -> String {
            "\(count) (\(JSONWriter.fixed(100 * Double(count) / Double(max(schemas, 1)), decimals: 1)) %)"
        }
        print("schemas: \(schemas), compiled \(share(compiled)), all tests right \(share(right))")
        print("schemas with an invalid instance accepted: \(wrong.count)")
        for name in wrong { print("    \(name)") }
        for (reason, count) in refusals.sorted(by: { $0.value > $1.value }) { print("    refused: \(count) \(reason)") }
        printQuantiles("compile", compileTimes)
        printQuantiles("mask", maskTimes)
    }

    private func printQuantiles(_ name: String, _ times: [Double]) {
        let sorted = times.sorted()
        guard !sorted.isEmpty else { return }
        func microseconds(_ value: Double) -> String { JSONWriter.fixed(value * 1e6, decimals: 1) }
        func quantile(_ share: Double) -> String {
            microseconds(sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))])
        }
        let mean = sorted.reduce(0, +) / Double(sorted.count)
        print(
            "\(name), us of processor time, \(sorted.count): mean \(microseconds(mean)), median \(quantile(0.5)), "
                + "99 % \(quantile(0.99)), 99.9 % \(quantile(0.999)), most \(microseconds(sorted[sorted.count - 1]))")
    }
}
