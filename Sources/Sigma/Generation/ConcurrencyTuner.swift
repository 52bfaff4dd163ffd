/// How many answers side by side make the most tokens/s, found by measuring.
///
/// It begins with a few and doubles them while that pays; where it does not, it goes back and stays, and tries again after a while: prompts,
/// depths and memory change.
package struct ConcurrencyTuner: Sendable {
    /// Answers side by side.
    package private(set) var limit: Int

    private let most: Int
    /// The best speed seen, in tokens/s, and with how many answers.
    private var best: (speed: Double, limit: Int)?
    private var windowStart: (tokens: Int, time: Double)?
    /// Windows until another number is tried.
    private var rest = 0

    static let first = 16
    /// Seconds of a measurement.
    static let window = 2.0
    /// More answers must make at least so much of the speed before to stay.
    static let gain = 1.03
    private static let restWindows = 15

    package init(most: Int) {
        self.most = max(1, most)
        limit = min(Self.first, self.most)
    }

    /// - Parameters:
    ///   - tokens: generated since the begin.
    ///   - running: answers that run: a window in which there are fewer than allowed says nothing.
    ///   - time: in seconds.
    package mutating func record(tokens: Int, running: Int, at time: Double) {
        guard running >= limit, let start = windowStart else {
            windowStart = running >= limit ? (tokens, time) : nil
            return
        }
        guard time - start.time >= Self.window else { return }
        let speed = Double(tokens - start.tokens) / (time - start.time)
        windowStart = (tokens, time)
        if rest > 0 {
            rest -= 1
            if rest == 0 { best = (speed, limit) }
            if rest == 0, limit < most { limit = min(most, 2 * limit) }
            return
        }
        guard let best else {
            self.best = (speed, limit)
            limit = min(most, 2 * limit)
            return
        }
        if speed >= best.speed * Self.gain || limit <= best.limit {
            self.best = (speed, limit)
            if limit < most { limit = min(most, 2 * limit) } else { rest = Self.restWindows }
        } else {
            limit = best.limit
            rest = Self.restWindows
        }
    }
}
