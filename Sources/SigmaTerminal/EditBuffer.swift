/// Text with a cursor, in characters as people see them; a line end is a character like others.
public struct EditBuffer: Sendable, Equatable {
    public private(set) var before: String
    public private(set) var after: String
    /// What was cut last.
    private var cut = ""
    private var isCutting = false

    public init(_ text: String = "") {
        before = text
        after = ""
    }

    public var text: String { before + after }
    public var isEmpty: Bool { before.isEmpty && after.isEmpty }

    public static func == (a: EditBuffer, b: EditBuffer) -> Bool { a.before == b.before && a.after == b.after }

    /// Other text, the cursor at its end. What was cut is kept.
    public mutating func replace(with text: String) {
        before = text
        after = ""
        isCutting = false
    }

    public mutating func insert(_ text: String) {
        before += text
        isCutting = false
    }

    public mutating func insert(_ scalar: Unicode.Scalar) {
        before.unicodeScalars.append(scalar)
        isCutting = false
    }

    // MARK: - Moving

    public mutating func moveLeft() {
        move(to: before.isEmpty ? before.endIndex : before.index(before: before.endIndex))
    }
    public mutating func moveRight() {
        moveForward(to: after.isEmpty ? after.startIndex : after.index(after: after.startIndex))
    }
    public mutating func moveWordLeft() { move(to: wordStart) }
    public mutating func moveWordRight() { moveForward(to: wordEnd) }
    public mutating func moveToLineStart() { move(to: lineStart) }
    public mutating func moveToLineEnd() { moveForward(to: lineEnd) }

    /// To the same column of the line above; false if there is none.
    public mutating func moveUp() -> Bool {
        let start = lineStart
        guard start > before.startIndex else { return false }
        let column = DisplayWidth.of(before[start...])
        let above = before.index(before: start)
        let aboveStart = before[..<above].lastIndex(of: "\n").map { before.index(after: $0) } ?? before.startIndex
        move(to: Self.index(in: before[aboveStart..<above], column: column))
        return true
    }

    /// To the same column of the line below; false if there is none.
    public mutating func moveDown() -> Bool {
        guard let end = after.firstIndex(of: "\n") else { return false }
        let column = DisplayWidth.of(before[lineStart...])
        let below = after[after.index(after: end)...].prefix { $0 != "\n" }
        moveForward(to: Self.index(in: below, column: column))
        return true
    }

    private static func index(in line: Substring, column: Int) -> String.Index {
        var width = 0
        for index in line.indices {
            if width >= column { return index }
            width += DisplayWidth.of(line[index])
        }
        return line.endIndex
    }

    private mutating func move(to index: String.Index) {
        after = before[index...] + after
        before = String(before[..<index])
        isCutting = false
    }

    private mutating func moveForward(to index: String.Index) {
        before += after[..<index]
        after = String(after[index...])
        isCutting = false
    }

    // MARK: - Removing

    /// Removes one scalar of the last character where that is written with several: a mark that was typed last can be taken back.
    public mutating func backspace() {
        guard let last = before.last else { return }
        if last.unicodeScalars.count > 1, last.unicodeScalars.last?.properties.generalCategory == .nonspacingMark {
            before.unicodeScalars.removeLast()
        } else {
            before.removeLast()
        }
        isCutting = false
    }

    public mutating func delete() {
        if !after.isEmpty { after.removeFirst() }
        isCutting = false
    }

    public mutating func cutWordLeft() { cutLeft(to: wordStart) }
    public mutating func cutWordRight() { cutRight(to: wordEnd) }
    public mutating func cutToLineStart() { cutLeft(to: lineStart) }
    /// To the line's end; at its end the line end itself.
    public mutating func cutToLineEnd() {
        cutRight(to: after.first == "\n" ? after.index(after: after.startIndex) : lineEnd)
    }

    public mutating func paste() { insert(cut) }

    /// Cuts in a row add up.
    private mutating func cutLeft(to index: String.Index) {
        cut = String(before[index...]) + (isCutting ? cut : "")
        before = String(before[..<index])
        isCutting = true
    }

    private mutating func cutRight(to index: String.Index) {
        cut = (isCutting ? cut : "") + String(after[..<index])
        after = String(after[index...])
        isCutting = true
    }

    /// Exchanges the two characters around the cursor, at the end the last two.
    public mutating func exchange() {
        if after.isEmpty { moveLeft() }
        guard let left = before.last, let right = after.first else { return }
        before.removeLast()
        after.removeFirst()
        before += String(right) + String(left)
        isCutting = false
    }

    // MARK: - Places

    private var lineStart: String.Index {
        before.lastIndex(of: "\n").map { before.index(after: $0) } ?? before.startIndex
    }
    private var lineEnd: String.Index { after.firstIndex(of: "\n") ?? after.endIndex }

    private var wordStart: String.Index {
        let word = before[...].reversed().drop { !Self.isWord($0) }.drop { Self.isWord($0) }
        return word.startIndex.base
    }
    private var wordEnd: String.Index {
        after[...].drop { !Self.isWord($0) }.drop { Self.isWord($0) }.startIndex
    }
    private static func isWord(_ character: Character) -> Bool {
        character.isLetter || character.isNumber || character == "_"
    }
}
