/// Separates thinking from the answer in streamed text, without the tags themselves.
///
/// `<think>` and `</think>` may arrive in pieces: what could be the beginning of a tag is held back until it is clear.
package struct ThinkingSplitter: Sendable {
    package enum State: Sendable, Equatable {
        /// Before the first words: `<think>` may follow, after white space.
        case undetermined
        case thinking
        case answer
    }

    package private(set) var state: State
    /// Whether `<think>` was there, in the text or before it.
    package private(set) var hasThought: Bool
    private var held: [UInt8] = []

    private static let open = Array("<think>".utf8)
    private static let close = Array("</think>".utf8)

    package init(_ state: State) {
        self.state = state
        hasThought = state == .thinking
    }

    /// The parts of the text so far that are certain, in order: thinking, then answer.
    package mutating func append(_ text: String) -> (thinking: String, answer: String) {
        held += Array(text.utf8)
        if state == .undetermined {
            let start = held.firstIndex { !isSpace($0) } ?? held.count
            let word = held[start...]
            if word.starts(with: Self.open) {
                held.removeFirst(start + Self.open.count)
                state = .thinking
                hasThought = true
            } else if Self.open.starts(with: word) {
                return ("", "")
            } else {
                state = .answer
            }
        }
        if state == .thinking {
            if let place = firstOccurrence(of: Self.close, in: held) {
                let thinking = held[..<place]
                let answer = held[(place + Self.close.count)...]
                state = .answer
                held = []
                return (String(decoding: thinking, as: UTF8.self), String(decoding: answer, as: UTF8.self))
            }
            let keep = longestSuffix(of: held, thatBegins: [Self.close])
            let thinking = String(decoding: held[..<(held.count - keep)], as: UTF8.self)
            held.removeFirst(held.count - keep)
            return (thinking, "")
        }
        return ("", finish())
    }

    /// What is still held back: it was no tag after all.
    package mutating func finish() -> String {
        defer { held = [] }
        return String(decoding: held, as: UTF8.self)
    }

    /// The answer begins by decision, not by the model's word. What is held back stays for `finish()`.
    package mutating func beginAnswer() { state = .answer }

    private func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0d).contains(byte) }
}

/// Finds stop strings in streamed text and holds back what could become one.
package struct StopMatcher: Sendable {
    private let stops: [[UInt8]]
    private var held: [UInt8] = []
    /// The stop string that is complete; nil: none is.
    package private(set) var match: String?

    /// Empty strings are ignored.
    package init(_ stops: [String]) { self.stops = stops.map { Array($0.utf8) }.filter { !$0.isEmpty } }

    /// The text that is certain not to belong to a stop string, and whether one is complete (nothing after it is given out).
    package mutating func append(_ text: String) -> (text: String, isStopped: Bool) {
        if stops.isEmpty { return (text, false) }
        held += Array(text.utf8)
        var found: (place: Int, stop: [UInt8])?
        for stop in stops {
            guard let place = firstOccurrence(of: stop, in: held), place < found?.place ?? .max else { continue }
            found = (place, stop)
        }
        if let found {
            defer { held = [] }
            match = String(decoding: found.stop, as: UTF8.self)
            return (String(decoding: held[..<found.place], as: UTF8.self), true)
        }
        let keep = longestSuffix(of: held, thatBegins: stops)
        let certain = String(decoding: held[..<(held.count - keep)], as: UTF8.self)
        held.removeFirst(held.count - keep)
        return (certain, false)
    }

    package mutating func finish() -> String {
        defer { held = [] }
        return String(decoding: held, as: UTF8.self)
    }
}

private func firstOccurrence(of pattern: [UInt8], in text: [UInt8]) -> Int? {
    guard pattern.count <= text.count else { return nil }
    return (0...(text.count - pattern.count)).first { text[$0..<($0 + pattern.count)].elementsEqual(pattern) }
}

/// Length of the longest proper beginning of any pattern that the text ends with.
///
/// A pattern that begins inside a character would split it, so patterns are whole strings.
private func longestSuffix(of text: [UInt8], thatBegins patterns: [[UInt8]]) -> Int {
    var longest = 0
    for pattern in patterns {
        var length = min(pattern.count - 1, text.count)
        while length > longest {
            if text[(text.count - length)...].elementsEqual(pattern[..<length]) {
                longest = length
                break
            }
            length -= 1
        }
    }
    return longest
}
