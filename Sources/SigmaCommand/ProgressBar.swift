import Sigma

/// A progress bar with the time left, on stderr and only if that is a terminal. One at a time; one thread at a time.
public struct ProgressBar {
    private var label: String
    private let begin = monotonicTime()
    private var lastDrawn = -1.0
    private nonisolated(unsafe) static var isShown = false

    public init(_ label: String) { self.label = SigmaError.printable(label) }

    public mutating func relabel(_ label: String) { self.label = SigmaError.printable(label) }

    /// Draws at most ten times a second.
    /// - Parameter fraction: 0...1.
    public mutating func update(_ fraction: Double) {
        guard Terminal.standardErrorIsTerminal else { return }
        let now = monotonicTime()
        guard now - lastDrawn >= 0.1 else { return }
        lastDrawn = now
        let fraction = min(max(fraction, 0), 1)
        let elapsed = now - begin
        var tail = " \(Int(fraction * 100))%"
        if fraction > 0.01, elapsed > 1 { tail += "  \(Self.duration(elapsed / fraction - elapsed)) left" }
        let room = Terminal.width - label.count - tail.count - 5
        var line = "\r\u{1b}[K" + label
        if room >= 10 {
            let width = min(room, 40)
            let filled = Int(fraction * Double(width))
            line += " [" + String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled) + "]"
        }
        StandardError.draw(line + tail)
        Self.isShown = true
    }

    /// Removes the bar.
    public func finish() { Self.clearLine() }

    /// Removes whatever bar is shown, so that a line of text can take its place.
    static func clearLine() {
        guard isShown else { return }
        StandardError.draw("\r\u{1b}[K")
        isShown = false
    }

    /// "12 s", "3 min 5 s", "2 h 4 min".
    static func duration(_ seconds: Double) -> String {
        let seconds = Int(min(max(seconds, 0), 1e8).rounded())
        if seconds < 60 { return "\(seconds) s" }
        if seconds < 3600 { return "\(seconds / 60) min \(seconds % 60) s" }
        return "\(seconds / 3600) h \(seconds % 3600 / 60) min"
    }
}
