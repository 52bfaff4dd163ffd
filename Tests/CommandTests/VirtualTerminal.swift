import SigmaTerminal

/// What a terminal would show of a program's output: as much of xterm as the chat uses, with rows that are broken anew when the size changes,
/// as terminals of today do. Anything else is recorded as unknown.
struct VirtualTerminal {
    private struct Row: Equatable {
        /// One entry a column; nil behind a wide character.
        var cells: [Character?] = []
        /// The next row goes on with the same line.
        var continues = false

        var text: String {
            let text = String(cells.compactMap { $0 })
            return String(text.reversed().drop { $0 == " " }.reversed())
        }
    }

    private(set) var columns: Int
    private(set) var height: Int
    /// All rows since the beginning; the last `height` are on the screen.
    private var buffer: [Row] = [Row()]
    /// The screen's first row in the buffer.
    private var top = 0
    private(set) var row = 0
    private(set) var column = 0
    /// A full row has been written, and the next character goes to the next one.
    private var wrapsNext = false
    private var pending: [UInt8] = []
    private(set) var unknown: [String] = []
    private(set) var cursorIsVisible = true
    private(set) var pasteIsBracketed = false

    init(columns: Int = 80, height: Int = 24) {
        self.columns = columns
        self.height = height
    }

    var rows: [String] { buffer.map(\.text) }
    var text: String { rows.joined(separator: "\n") }
    /// The row with the cursor, and the cursor's place in it.
    var cursorRow: String { buffer[row].text }

    // MARK: - Output of the program

    mutating func write(_ bytes: some Sequence<UInt8>) {
        pending += bytes
        while let first = pending.first {
            if first == 0x1b {
                guard let used = escape() else { return }
                pending.removeFirst(used)
            } else if first < 0x20 {
                control(first)
                pending.removeFirst()
            } else {
                let length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4
                guard pending.count >= length else { return }
                put(String(decoding: pending[..<length], as: UTF8.self).unicodeScalars.first!)
                pending.removeFirst(length)
            }
        }
    }

    private mutating func control(_ byte: UInt8) {
        wrapsNext = false
        switch byte {
        case 0x0d: column = 0
        case 0x09: column = min(columns - 1, (column / 8 + 1) * 8)
        case 0x0a: lineFeed()
        default: unknown.append("byte \(byte)")
        }
    }

    private mutating func lineFeed() {
        row += 1
        if row == buffer.count { buffer.append(Row()) }
        if row >= top + height { top = row - height + 1 }
    }

    private mutating func put(_ scalar: Unicode.Scalar) {
        let character = Character(scalar)
        let width = DisplayWidth.of(character)
        if width == 0 {
            // Combines with the character before it.
            guard let index = buffer[row].cells[..<min(column, buffer[row].cells.count)].lastIndex(where: { $0 != nil })
            else { return }
            buffer[row].cells[index]!.unicodeScalarsAppend(scalar)
            return
        }
        if wrapsNext || column + width > columns {
            buffer[row].continues = true
            lineFeed()
            column = 0
            wrapsNext = false
        }
        while buffer[row].cells.count < column + width { buffer[row].cells.append(" ") }
        buffer[row].cells[column] = character
        if width == 2 { buffer[row].cells[column + 1] = nil }
        column += width
        if column == columns {
            column = columns - 1
            wrapsNext = true
        }
    }

    /// - Returns: bytes of the sequence; nil while it is incomplete.
    private mutating func escape() -> Int? {
        guard pending.count > 1 else { return nil }
        guard pending[1] == UInt8(ascii: "[") else {
            unknown.append("escape \(pending[1])")
            return 2
        }
        guard let end = pending.dropFirst(2).firstIndex(where: { (0x40...0x7e).contains($0) }) else { return nil }
        let parameters = String(decoding: pending[2..<end], as: UTF8.self)
        let count = Int(parameters) ?? 1
        wrapsNext = false
        switch (Character(UnicodeScalar(pending[end])), parameters) {
        case ("A", _): row = max(top, row - count)
        case ("B", _):
            row = min(top + height - 1, row + count)
            while buffer.count <= row { buffer.append(Row()) }
        case ("C", _): column = min(columns - 1, column + count)
        case ("D", _): column = max(0, column - count)
        case ("H", ""): (row, column) = (top, 0)
        case ("J", ""), ("J", "0"):
            cutRow()
            buffer.removeSubrange((row + 1)...)
        case ("J", "2"):
            buffer.removeSubrange(top...)
            while buffer.count <= row { buffer.append(Row()) }
        case ("K", ""), ("K", "0"): cutRow()
        case ("m", _): break
        case ("h", "?25"): cursorIsVisible = true
        case ("l", "?25"): cursorIsVisible = false
        case ("h", "?2004"): pasteIsBracketed = true
        case ("l", "?2004"): pasteIsBracketed = false
        default: unknown.append(String(decoding: pending[...end], as: UTF8.self))
        }
        return end + 1
    }

    private mutating func cutRow() {
        if buffer[row].cells.count > column { buffer[row].cells.removeSubrange(column...) }
        buffer[row].continues = false
    }

    // MARK: - Another size

    /// Lines are broken anew; the cursor stays on its character.
    mutating func resize(columns newColumns: Int, height newHeight: Int) {
        var result: [Row] = []
        var (newRow, newColumn) = (0, 0)
        var index = 0
        while index < buffer.count {
            var cells: [Character?] = []
            var cursor: Int?
            while true {
                if index == row {
                    while buffer[index].cells.count < column { buffer[index].cells.append(" ") }
                    cursor = cells.count + column
                }
                cells += buffer[index].cells
                index += 1
                if index == buffer.count || !buffer[index - 1].continues { break }
            }
            let first = result.count
            repeat {
                var end = min(newColumns, cells.count)
                if end < cells.count, cells[end] == nil { end -= 1 }
                if let place = cursor, place <= end, newRow < first || result.count >= first {
                    // At a row's end where the line goes on, the cursor is at the next row's begin.
                    if place < end || end == cells.count {
                        newRow = result.count
                        newColumn = min(place, newColumns - 1)
                        cursor = nil
                    }
                }
                if let place = cursor { cursor = place - end }
                result.append(Row(cells: Array(cells[..<end]), continues: end < cells.count))
                cells.removeFirst(end)
            } while !cells.isEmpty
        }
        buffer = result
        (columns, height) = (newColumns, newHeight)
        (row, column) = (newRow, newColumn)
        wrapsNext = false
        top = max(0, min(max(top, buffer.count - height), row))
        if row >= top + height { top = row - height + 1 }
    }
}

extension Character {
    fileprivate mutating func unicodeScalarsAppend(_ scalar: Unicode.Scalar) {
        var text = String(self)
        text.unicodeScalars.append(scalar)
        if text.count == 1 { self = Character(text) }
    }
}
