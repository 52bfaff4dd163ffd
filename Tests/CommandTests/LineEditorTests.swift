import Foundation
import SigmaTerminal
import Testing

/// The parts of line editing that need no terminal.
@Suite struct LineEditorTests {
    // MARK: - Keys

    static let sequences: [(String, [Key])] = [
        ("aé漢🦉", ["a", "é", "漢", "🦉"].map { .text($0) }),
        ("\r\u{1}\u{3}\u{f}\t", [.enter, .control("a"), .control("c"), .control("o"), .tab]),
        ("\n\u{7f}\u{8}", [.control("j"), .backspace, .backspace]),
        ("\u{1b}[A\u{1b}[B\u{1b}[C\u{1b}[D\u{1b}OA\u{1b}OF", [.up, .down, .right, .left, .up, .end]),
        ("\u{1b}[H\u{1b}[F\u{1b}[1~\u{1b}[4~\u{1b}[3~", [.home, .end, .home, .end, .delete]),
        ("\u{1b}[1;5C\u{1b}[1;3D\u{1b}[1;2C", [.wordRight, .wordLeft, .right]),
        ("\u{1b}b\u{1b}f\u{1b}\r\u{1b}\u{7f}", [.alt("b"), .alt("f"), .lineEnd, .backspaceWord]),
        ("\u{1b}[200~a\rb\r\nc\u{1b}[Ad\u{1b}[201~x", [.paste("a\nb\nc\u{1b}[Ad"), .text("x")]),
        ("\u{1b}[15~\u{1b}[<0;1;2Mz", [.unknown, .enter, .text("z")]),
    ]

    @Test(arguments: sequences) func keysArriveInAnyPieces(sequence: (String, [Key])) {
        let bytes = Array(sequence.0.utf8)
        for size in 1...max(1, bytes.count) {
            var decoder = KeyDecoder()
            var keys: [Key] = []
            for start in stride(from: 0, to: bytes.count, by: size) {
                keys += decoder.append(bytes[start..<min(start + size, bytes.count)])
            }
            #expect(keys == sequence.1, "in pieces of \(size)")
        }
    }

    @Test func aLoneEscapeIsKnownByWaiting() {
        var decoder = KeyDecoder()
        var keys = decoder.append([0x1b])
        #expect(keys.isEmpty && decoder.isWaitingForMore)
        keys = decoder.timeOut()
        #expect(keys == [.escape] && !decoder.isWaitingForMore)
        keys = decoder.append([0x1b, 0x5b])
        #expect(keys.isEmpty)
        keys = decoder.timeOut()
        #expect(keys == [.escape, .text("[")])
    }

    @Test func bytesThatAreNoText() {
        var decoder = KeyDecoder()
        let keys = decoder.append([0xff, 0xc3, 0x28, 0xe6, 0xbc, 0x61, 0xf5])
        #expect(
            keys == [
                .text("\u{fffd}"), .text("\u{fffd}"), .text("("), .text("\u{fffd}"), .text("a"), .text("\u{fffd}"),
            ])
        #expect(decoder.append(Array("\u{1b}[1;-9223372036854775808A".utf8)) == [.up])
        // Any bytes at all: no crash, and what follows is understood.
        var random = SystemRandomNumberGenerator()
        for _ in 0..<500 {
            var decoder = KeyDecoder()
            let noise = (0..<Int.random(in: 1...60, using: &random)).map { _ in
                [UInt8(0x1b), 0x5b, 0x3b, 0x7e, 0x80, 0xe0, UInt8.random(in: 0...255, using: &random)].randomElement()!
            }
            _ = decoder.append(noise)
            _ = decoder.timeOut()
        }
    }

    // MARK: - Widths

    @Test func widths() {
        for (text, width) in [
            ("", 0), ("abc", 3), ("é", 1), ("e\u{301}", 1), ("漢字", 4), ("ｱ", 1), ("Ａ", 2), ("🦉", 2), ("👩‍👩‍👧", 2),
            ("🇩🇪", 2), ("❤️", 2), ("❤", 1), ("한", 2), ("한", 2), ("\u{200b}", 0), ("ก็", 1), ("→", 1),
        ] { #expect(DisplayWidth.of(text) == width, "\(text)") }
        #expect(DisplayWidth.end(of: "ab漢字", columns: 3) == "字" && DisplayWidth.end(of: "ab漢字", columns: 4) == "漢字")
    }

    @Test func controlCharactersAreShown() {
        #expect(DisplayText.printable("a\u{1b}[31mb\n\tc\u{7f}\u{9b}1m\u{0}") == "a^[[31mb\n\tc^?^[[1m^@")
        #expect(DisplayText.printable("plain 漢") == "plain 漢")
    }

    // MARK: - Editing

    @Test func wordsAndLines() {
        var buffer = EditBuffer("one two-three\nfour 五六")
        buffer.moveWordLeft()
        #expect(buffer.before == "one two-three\nfour ")
        buffer.moveToLineStart()
        #expect(buffer.before == "one two-three\n")
        var moves = [buffer.moveUp()]
        #expect(buffer.before == "")
        moves.append(buffer.moveUp())
        buffer.moveWordRight()
        buffer.moveWordRight()
        #expect(buffer.before == "one two")
        moves.append(buffer.moveDown())
        #expect(buffer.before == "one two-three\nfour 五")
        moves.append(buffer.moveDown())
        #expect(moves == [true, false, true, false])
        buffer.cutToLineStart()
        #expect(buffer.text == "one two-three\n六")
        buffer.paste()
        #expect(buffer.text == "one two-three\nfour 五六")
    }

    @Test func cutsAddUp() {
        var buffer = EditBuffer("a bc def")
        buffer.cutWordLeft()
        buffer.cutWordLeft()
        #expect(buffer.text == "a ")
        buffer.paste()
        #expect(buffer.text == "a bc def")
        buffer.moveToLineStart()
        buffer.cutToLineEnd()
        #expect(buffer.isEmpty)
        buffer.paste()
        buffer.exchange()
        #expect(buffer.text == "a bc dfe")
    }

    @Test func charactersArePeoples() {
        var buffer = EditBuffer("👩‍👩‍👧e\u{301}漢")
        buffer.backspace()
        // The mark first, then the letter.
        buffer.backspace()
        #expect(buffer.text == "👩‍👩‍👧e")
        buffer.backspace()
        buffer.moveLeft()
        #expect(buffer.before.isEmpty && buffer.after == "👩‍👩‍👧")
        buffer.delete()
        #expect(buffer.isEmpty)
        buffer.delete()
        buffer.backspace()
        buffer.moveLeft()
        buffer.moveRight()
        buffer.exchange()
        #expect(buffer.isEmpty)
        for scalar in "한".decomposedStringWithCanonicalMapping.unicodeScalars { buffer.insert(scalar) }
        #expect(buffer.text.count == 1)
    }

    // MARK: - Layout

    static func layout(_ before: String, _ after: String = "", columns: Int) -> LineLayout {
        var buffer = EditBuffer(before + after)
        for _ in after { buffer.moveLeft() }
        return LineLayout(prompt: "> ", continuation: ". ", buffer: buffer, columns: columns)
    }

    @Test func rowsAreBrokenAtTheTerminalsWidth() {
        let plain = Self.layout("hello", columns: 20)
        #expect(plain.rows.map(\.text) == ["> hello"] && plain.cursorRow == 0 && plain.cursorColumn == 7)
        // Full: the cursor is on the next row.
        let full = Self.layout("12345678", columns: 10)
        #expect(full.rows.map(\.text) == ["> 12345678", ""] && full.cursorRow == 1 && full.cursorColumn == 0)
        let inside = Self.layout("123", "4567890", columns: 10)
        #expect(inside.rows.map(\.text) == ["> 12345678", "90"] && inside.cursorRow == 0 && inside.cursorColumn == 5)
        // A wide character is not divided.
        let wide = Self.layout("1234567漢", columns: 10)
        #expect(wide.rows.map(\.text) == ["> 1234567", "漢"] && wide.cursorRow == 1 && wide.cursorColumn == 2)
        let lines = Self.layout("a\n\nb", "\nc", columns: 10)
        #expect(
            lines.rows.map(\.text) == ["> a", ". ", ". b", ". c"] && lines.cursorRow == 2 && lines.cursorColumn == 3)
        #expect(Self.layout("a\u{1}\t", columns: 20).rows.map(\.text) == ["> a^A    "])
        #expect(full.rowsAboveCursor(columns: 10) == 1 && full.rowsAboveCursor(columns: 5) == 2)
    }

    // MARK: - History

    @Test func historyIsKept() throws {
        let path = Scratch.path("history")
        var history = InputHistory(path: path)
        #expect(history.entries.isEmpty)
        let entries = ["one", "two\nlines \\n", "漢\\", "one"]
        for entry in entries + ["one", ""] { history.append(entry) }
        #expect(history.entries == entries)
        #expect(InputHistory(path: path).entries == entries)
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        #expect(mode == 0o600)
    }

    @Test func longHistoriesAreShortened() throws {
        let path = try Scratch.file("history", (0..<50).map { "entry \($0)\n" }.joined())
        #expect(InputHistory(path: path, limit: 10).entries.first == "entry 40")
        #expect(try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").count == 10)
        // Bytes of any kind, and places where nothing can be written.
        let bytes = try Scratch.file("history", [0xff, 0x0a, 0x5c, 0x0a, 0x00, 0x0a])
        #expect(InputHistory(path: bytes).entries.count == 3)
        var nowhere = InputHistory(path: "/no/such/folder/history")
        nowhere.append("a")
        #expect(nowhere.entries == ["a"])
        #expect(InputHistory(path: "/dev/zero").entries.isEmpty)
    }
}
