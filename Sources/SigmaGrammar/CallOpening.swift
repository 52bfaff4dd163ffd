/// What shows that a text goes on with a call: a tag anywhere in it; or, where calls have no tags, the head of a call that the text begins with.
///
/// What begins so is a call, and nothing else may follow; what does not is text.
package struct CallOpening: Sendable {
    package let form: CallForm
    /// The functions that can be called. Tags need none.
    private let names: [[UInt8]]
    package let tag: [UInt8]

    package init(form: CallForm, names: [String]) {
        self.form = form
        self.names = names.map { Array($0.utf8) }
        tag = Array((form.tags?.open ?? "").utf8)
    }

    /// How much of an opening ends a text.
    package enum Progress: Sendable, Equatable {
        /// So many bytes of the tag.
        case tag(Int)
        /// All of the text, which may be a call's head.
        case head([UInt8])
        /// None, and no call can begin any more.
        case text
    }

    /// Of an empty text.
    package var start: Progress { form.tags == nil ? .head([]) : .tag(0) }

    /// Takes in a byte of the text.
    /// - Returns: nil, or what of the text is the opening, where that is complete now.
    package func take(_ byte: UInt8, _ progress: inout Progress) -> [UInt8]? {
        switch progress {
        case .text: return nil
        case .tag(var matched):
            // A tag's first byte is nowhere else in it.
            matched = byte == tag[matched] ? matched + 1 : byte == tag[0] ? 1 : 0
            progress = .tag(matched == tag.count ? 0 : matched)
            return matched == tag.count ? tag : nil
        case .head(var head):
            head.append(byte)
            switch reading(of: head) {
            case .part: progress = .head(head)
            case .whole:
                progress = .text
                return head
            case .none: progress = .text
            }
            return nil
        }
    }

    private enum Reading { case none, part, whole }

    /// A call's text up to its arguments, with white space as the automaton takes it.
    private func reading(of head: [UInt8]) -> Reading {
        var rest = head[...]
        func literal(_ text: String) -> Reading {
            let text = Array(text.utf8)
            if rest.starts(with: text) {
                rest = rest.dropFirst(text.count)
                return .whole
            }
            return text.starts(with: rest) ? .part : .none
        }
        for (place, part) in ["{", "\"name\":", "\"", ",", "\"parameters\":"].enumerated() {
            let found = literal(part)
            guard found == .whole, place < 4 else { return found }
            if place == 2 {
                let name = rest.prefix { $0 != UInt8(ascii: "\"") }
                rest = rest.dropFirst(name.count)
                guard !rest.isEmpty else { return names.contains { $0.starts(with: name) } ? .part : .none }
                guard names.contains(Array(name)) else { return .none }
                rest = rest.dropFirst()
            } else {
                dropSpace(&rest, breaksLines: place != 1)
            }
        }
        return .none
    }

    private func dropSpace(_ rest: inout ArraySlice<UInt8>, breaksLines: Bool) {
        if rest.first == 0x20 {
            rest = rest.dropFirst()
        } else if breaksLines, rest.first == 0x0A {
            rest = rest.dropFirst()
            let (indent, limit) = rest.first == 0x09 ? (UInt8(0x09), Automaton.tabs) : (0x20, Automaton.blanks)
            rest = rest.dropFirst(min(rest.prefix { $0 == indent }.count, Int(limit)))
        }
    }

    /// The texts that cannot stand beside calls: those that begin with a tag, or as any object does, since an automaton reads that as JSON.
    func language(in arena: inout RegexArena) -> RegexID {
        arena.concat(arena.literal(form.tags?.open ?? "{"), RegexArena.anything)
    }
}
