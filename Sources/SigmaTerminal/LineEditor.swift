/// Reads messages from a person at a terminal: editing, history, search, completion, several lines.
public final class LineEditor {
    public enum Result: Equatable, Sendable {
        case text(String)
        /// Ctrl-C with nothing typed.
        case interrupted
        /// Ctrl-D with nothing typed, or the terminal has gone.
        case ended
        /// A key that the caller asked for (`keys`); what was typed so far is kept for the next call.
        case key(Character)
    }

    private let device: TerminalDevice
    private var decoder = KeyDecoder()
    private var waiting: [Key] = []
    public private(set) var history: InputHistory
    /// Letters that with Ctrl end the reading: `.key`.
    public var keys: Set<Character> = []
    /// What a text could be completed to.
    public var completions: (String) -> [String] = { _ in [] }

    private var buffer = EditBuffer()
    private var prompt = ""
    private var continuation = ""
    private var painter: LinePainter
    /// Where in the history we are; its count: in what is typed now.
    private var place = 0
    /// The message that was typed before the history was looked at.
    private var typed = ""
    private var search: Search?

    private struct Search {
        var query = ""
        /// Entry that is shown; nil: none has the query in it.
        var place: Int?
        /// What was there before.
        var original: EditBuffer
    }

    /// How long a lone Escape is waited for, in milliseconds.
    private static let escapeTime = 40

    public init(_ device: TerminalDevice, history: InputHistory) {
        self.device = device
        self.history = history
        painter = LinePainter(device)
    }

    /// Bytes that somebody else has read, to be taken as typed next.
    public func type(ahead bytes: [UInt8]) { waiting += decoder.append(bytes) }

    /// Whether Ctrl-C was typed behind the message that was read last; it is then no longer waiting.
    public func takeInterrupt() -> Bool {
        guard let index = waiting.firstIndex(of: .control("c")) else { return false }
        waiting.remove(at: index)
        return true
    }

    /// Reads one message.
    ///
    /// - Parameters:
    ///   - prompt: before its first line, without control sequences.
    ///   - continuation: before its other lines.
    public func read(prompt: String, continuation: String) -> Result {
        self.prompt = prompt
        self.continuation = continuation
        place = history.entries.count
        search = nil
        draw()
        while true {
            while !waiting.isEmpty {
                let key = waiting.removeFirst()
                if let result = handle(key) { return result }
                // Drawn when all that came together is in.
                if waiting.isEmpty { draw() }
            }
            switch device.next(within: decoder.isWaitingForMore ? Self.escapeTime : nil) {
            case .bytes(let bytes): waiting += decoder.append(bytes)
            case .timedOut: waiting += decoder.timeOut()
            case .resized, .continued: draw()
            case .interrupted: waiting.append(.control("c"))
            case .ended:
                finish()
                return .ended
            case .woken: break
            }
        }
    }

    private func draw() {
        painter.draw(layout)
    }

    private var layout: LineLayout {
        let columns = device.size.columns
        guard let search else {
            return LineLayout(prompt: prompt, continuation: continuation, buffer: buffer, columns: columns)
        }
        let label = search.place == nil && !search.query.isEmpty ? "not found: " : "search: "
        return LineLayout(
            prompt: "(\(label)\(search.query)) ", continuation: continuation, buffer: buffer, columns: columns)
    }

    /// Leaves the message on the screen, with the cursor after it.
    private func finish() {
        search = nil
        buffer.replace(with: buffer.text)
        painter.finish(layout)
    }

    // MARK: - Keys

    private func handle(_ key: Key) -> Result? {
        if search != nil { return handleInSearch(key) }
        switch key {
        case .text(let scalar): buffer.insert(scalar)
        case .paste(let text): buffer.insert(text)
        case .lineEnd, .control("j"): buffer.insert("\n")
        case .enter: return submit()
        case .tab: complete()
        case .backspace: buffer.backspace()
        case .backspaceWord, .control("w"): buffer.cutWordLeft()
        case .delete: buffer.delete()
        case .left, .control("b"): buffer.moveLeft()
        case .right, .control("f"): buffer.moveRight()
        case .wordLeft, .alt("b"): buffer.moveWordLeft()
        case .wordRight, .alt("f"): buffer.moveWordRight()
        case .home, .control("a"): buffer.moveToLineStart()
        case .end, .control("e"): buffer.moveToLineEnd()
        case .up: if !buffer.moveUp() { showHistory(place - 1) }
        case .down: if !buffer.moveDown() { showHistory(place + 1) }
        case .control("p"): showHistory(place - 1)
        case .control("n"): showHistory(place + 1)
        case .control("k"): buffer.cutToLineEnd()
        case .control("u"): buffer.cutToLineStart()
        case .alt("d"): buffer.cutWordRight()
        case .control("y"): buffer.paste()
        case .control("t"): buffer.exchange()
        case .control("r"): search = Search(original: buffer)
        case .control("l"):
            device.write("\u{1b}[H\u{1b}[2J")
            painter.forget()
        case .control("z"):
            finish()
            device.suspend()
        case .control("c"):
            let wasEmpty = buffer.isEmpty
            finish()
            buffer.replace(with: "")
            place = history.entries.count
            if wasEmpty { return .interrupted }
        case .control("d"):
            if buffer.isEmpty {
                finish()
                return .ended
            }
            buffer.delete()
        case .control(let letter) where keys.contains(letter):
            painter.clear()
            return .key(letter)
        case .control, .alt, .escape, .unknown: break
        }
        return nil
    }

    private func submit() -> Result? {
        let text = buffer.text
        guard text.contains(where: { !$0.isWhitespace }) else { return nil }
        finish()
        history.append(text)
        buffer.replace(with: "")
        return .text(text)
    }

    private func showHistory(_ wanted: Int) {
        guard (0...history.entries.count).contains(wanted), wanted != place else { return }
        if place == history.entries.count { typed = buffer.text }
        place = wanted
        buffer.replace(with: wanted == history.entries.count ? typed : history.entries[wanted])
    }

    /// Completes as far as all possibilities agree.
    private func complete() {
        guard buffer.after.isEmpty else { return }
        let found = completions(buffer.before)
        guard var common = found.first else { return }
        for other in found { common = String(zip(common, other).prefix { $0 == $1 }.map(\.0)) }
        if common.count > buffer.before.count { buffer.replace(with: common) }
    }

    // MARK: - Search

    /// Ctrl-R: the newest entry that has the query in it; again: the one before.
    private func handleInSearch(_ key: Key) -> Result? {
        guard var current = search else { return nil }
        switch key {
        case .text(let scalar):
            current.query.unicodeScalars.append(scalar)
            find(&current, before: history.entries.count)
        case .backspace:
            if !current.query.isEmpty { current.query.removeLast() }
            find(&current, before: history.entries.count)
        case .control("r"): find(&current, before: current.place ?? history.entries.count)
        case .control("c"), .control("g"), .escape:
            buffer = current.original
            search = nil
            return nil
        default:
            // Any other key takes what was found, and does what it does.
            search = nil
            if let found = current.place { place = found }
            if key == .enter { return submit() }
            waiting.insert(key, at: 0)
            return nil
        }
        search = current
        return nil
    }

    private func find(_ search: inout Search, before end: Int) {
        guard !search.query.isEmpty else {
            search.place = nil
            buffer = search.original
            return
        }
        let query = search.query
        guard let found = history.entries[..<end].lastIndex(where: { $0.contains(query) }) else {
            // Where an earlier one was found it stays.
            if search.place.map({ !history.entries[$0].contains(query) }) ?? true { search.place = nil }
            return
        }
        search.place = found
        buffer.replace(with: history.entries[found])
    }
}
