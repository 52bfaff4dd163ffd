/// Draws the line that is edited, again and again at the same place.
struct LinePainter {
    private let device: TerminalDevice
    /// What is on the screen now; nil: nothing of ours.
    private var shown: LineLayout?
    /// Terminal rows above the cursor, for a window that shows only a part of the layout.
    private var firstRow = 0

    init(_ device: TerminalDevice) { self.device = device }

    /// - Parameter style: put around the first row's prompt.
    mutating func draw(_ layout: LineLayout) {
        let (_, height) = device.size
        // Where there are more rows than the terminal has, those around the cursor.
        let visible = min(layout.rows.count, max(1, height - 1))
        var first = min(firstRow, layout.rows.count - visible)
        first = max(min(first, layout.cursorRow), layout.cursorRow - visible + 1)

        var output = "\u{1b}[?25l" + toTop() + "\u{1b}[J"
        output += layout.rows[first..<first + visible].map(\.text).joined(separator: "\r\n")
        let below = first + visible - 1 - layout.cursorRow
        if below > 0 { output += "\u{1b}[\(below)A" }
        output += "\r"
        if layout.cursorColumn > 0 { output += "\u{1b}[\(layout.cursorColumn)C" }
        device.write(output + "\u{1b}[?25h")
        shown = layout
        firstRow = first
    }

    /// Removes what is drawn; the cursor stands where it began.
    mutating func clear() {
        guard shown != nil else { return }
        device.write(toTop() + "\u{1b}[J")
        shown = nil
        firstRow = 0
    }

    /// Leaves what is drawn in place, and goes to a new row after it.
    mutating func finish(_ layout: LineLayout) {
        draw(layout)
        let below = min(layout.rows.count - 1, firstRow + max(1, device.size.rows - 1) - 1) - layout.cursorRow
        device.write((below > 0 ? "\u{1b}[\(below)B" : "") + "\r\n")
        shown = nil
        firstRow = 0
    }

    /// The screen was cleared: nothing of ours is there any more.
    mutating func forget() {
        shown = nil
        firstRow = 0
    }

    /// To the first column of the first row that is drawn. A window that has become narrower has broken the rows in two.
    private func toTop() -> String {
        guard let shown else { return "\r" }
        let (columns, height) = device.size
        let hidden = shown.rows[..<firstRow].reduce(0) { $0 + max(1, ($1.width + columns - 1) / columns) }
        let rows = min(shown.rowsAboveCursor(columns: columns) - hidden, height - 1)
        return (rows > 0 ? "\u{1b}[\(rows)A" : "") + "\r"
    }
}
