/// Text with its prompt and cursor in the rows of a terminal.
package struct LineLayout: Equatable {
    package struct Row: Equatable {
        package var text = ""
        /// Columns that it takes.
        package var width = 0
    }

    package private(set) var rows = [Row()]
    package private(set) var cursorRow = 0
    package private(set) var cursorColumn = 0

    /// - Parameters:
    ///   - prompt: before the first line. Without control sequences.
    ///   - continuation: before the others.
    ///   - columns: of the terminal. A row is broken where the next character has no room, never by the terminal.
    package init(prompt: String, continuation: String, buffer: EditBuffer, columns: Int) {
        let columns = max(columns, 4)
        func write(_ text: String, _ width: Int) {
            if rows[rows.count - 1].width + width > columns { rows.append(Row()) }
            rows[rows.count - 1].text += text
            rows[rows.count - 1].width += width
        }
        func write(_ text: some StringProtocol) {
            for character in text {
                if character == "\n" || character == "\r\n" {
                    rows.append(Row())
                    write(continuation)
                } else if character == "\t" {
                    write("    ", 4)
                } else {
                    let shown = DisplayText.printable(String(character))
                    if shown.utf8.count == 1 || shown == String(character) {
                        write(shown, DisplayWidth.of(character))
                    } else {
                        write(shown, DisplayWidth.of(shown))
                    }
                }
            }
        }
        write(prompt)
        write(buffer.before)
        // The cursor stands on the next character; where a row is full, that is on the next row.
        let next = buffer.after.first.map { $0 == "\n" ? 0 : max(1, DisplayWidth.of($0)) } ?? 1
        if rows[rows.count - 1].width + next > columns { rows.append(Row()) }
        cursorRow = rows.count - 1
        cursorColumn = rows[cursorRow].width
        write(buffer.after)
    }

    /// Rows that the terminal needs for those above the cursor, and above it in its own, if they were written for more columns than it has
    /// now: it breaks rows that are too long.
    package func rowsAboveCursor(columns: Int) -> Int {
        rows[..<cursorRow].reduce(0) { $0 + max(1, ($1.width + columns - 1) / columns) } + cursorColumn / columns
    }
}
