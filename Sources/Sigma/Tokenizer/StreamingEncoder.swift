/// Encodes a text that comes in pieces, in bounded memory: the same ids as of the whole text.
///
/// A text is cut behind a single line end that stands between a character that is no white space and a letter or a digit. Each split
/// pattern ends a piece there, and normalization combines nothing across it. A text without such a place for `limit` bytes is cut
/// where it is, between characters: that may change the ids on both sides of the cut.
package struct StreamingEncoder {
    private let tokenizer: Tokenizer
    private let recognizingSpecials: Bool
    private let limit: Int
    private var pending: [UInt8] = []
    /// Bytes of `pending` in which no cut was found.
    private var searched = 0
    /// Cuts that may have changed ids.
    package private(set) var forcedCuts = 0

    /// - Parameter limit: bytes that are held at most, beside the last piece.
    package init(_ tokenizer: Tokenizer, recognizingSpecials: Bool, limit: Int = 1 << 24) {
        precondition(limit >= 8)
        self.tokenizer = tokenizer
        self.recognizingSpecials = recognizingSpecials
        self.limit = limit
    }

    /// Bytes that have no ids yet.
    package var heldBytes: Int { pending.count }

    /// Takes the next bytes.
    /// - Returns: the ids that are certain.
    package mutating func append(_ bytes: UnsafeRawBufferPointer) -> [Int32] {
        pending.append(contentsOf: bytes)
        let cut: Int
        if let found = lastCut() {
            cut = found
        } else if pending.count > limit {
            cut = endOfWholeCharacters()
            forcedCuts += 1
        } else {
            return []
        }
        return takeIDs(through: cut)
    }

    /// The ids of what is left.
    package mutating func finish() -> [Int32] { takeIDs(through: pending.count) }

    private mutating func takeIDs(through cut: Int) -> [Int32] {
        let ids = pending.withUnsafeBufferPointer {
            tokenizer.encode(UnsafeBufferPointer(rebasing: $0[..<cut]), recognizingSpecials: recognizingSpecials)
        }
        pending.removeSubrange(..<cut)
        searched = 0
        return ids
    }

    /// The last place where the text may be cut.
    private mutating func lastCut() -> Int? {
        guard tokenizer.allowsCuts else { return nil }
        let classes = ScalarClasses.shared
        let found: Int? = pending.withUnsafeBufferPointer { text in
            guard let base = text.baseAddress else { return nil }
            let end = base + text.count
            // Four bytes from the end a character is surely whole.
            var place = text.count - 4
            while place > max(searched, 1) {
                defer { place -= 1 }
                guard text[place - 1] == UInt8(ascii: "\n") else { continue }
                var before = place - 2
                // Back to where the character before the line end begins.
                while before > 0, place - before < 5, text[before] & 0xc0 == 0x80 { before -= 1 }
                guard before >= 0 else { continue }
                let (last, length) = classes.classify(base + before, before: end)
                let (next, _) = classes.classify(base + place, before: end)
                if before + length == place - 1, !last.has(.space), next.has(.letter) || next.has(.number) {
                    return place
                }
            }
            return nil
        }
        if found == nil { searched = max(0, pending.count - 4) }
        return found
    }

    private func endOfWholeCharacters() -> Int {
        var end = pending.count - 1
        while end > pending.count - 4, pending[end] & 0xc0 == 0x80 { end -= 1 }
        return end
    }
}
