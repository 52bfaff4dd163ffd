/// Decides from measured times whether something that costs and gains is used: by trying both, step by step, and keeping to what was faster.
///
/// Steps come in windows. The first few alternate; afterwards the better way goes on, and the other has one window now and then, less often
/// the longer it loses. Results never depend on the decision, only times do.
package struct PredictionTrial: Sendable {
    package let mode: PredictionMode
    package private(set) var isOn: Bool
    /// Seconds for a piece of work in the newest windows, off and on; nil: not tried yet.
    private var seconds: [Double?] = [nil, nil]
    private var favourite = false
    private var windowSteps = 0
    private var windowSeconds = 0.0
    private var windowWork = 0.0
    private var windows = 0
    private var nextTrial = Self.alternations
    private var pause = Self.firstPause

    package static let stepsPerWindow = 16
    private static let alternations = 6
    private static let firstPause = 8
    private static let longestPause = 128

    package init(_ mode: PredictionMode) {
        self.mode = mode
        isOn = mode != .off
    }

    /// A step took `time` seconds.
    /// - Parameter work: how much there was to do in it, above 0: steps may differ in that.
    package mutating func add(_ time: Double, work: Double = 1) {
        guard mode == .auto else { return }
        windowSteps += 1
        windowSeconds += time
        windowWork += work
        guard windowSteps == Self.stepsPerWindow else { return }
        let mean = windowSeconds / windowWork
        windowSteps = 0
        windowSeconds = 0
        windowWork = 0
        windows += 1
        let index = isOn ? 1 : 0
        // Windows while the cache fills are slower: the newest counts most.
        seconds[index] = seconds[index].map { 0.4 * $0 + 0.6 * mean } ?? mean
        if windows < Self.alternations {
            isOn.toggle()
            return
        }
        let isTrial = isOn != favourite
        let better = seconds[1]! < seconds[0]!
        if better != favourite {
            favourite = better
            pause = Self.firstPause
        } else if isTrial {
            pause = min(2 * pause, Self.longestPause)
        }
        if windows >= nextTrial + pause {
            isOn = !favourite
            nextTrial = windows
        } else {
            isOn = favourite
        }
    }
}
