import SigmaBase

/// The automaton of a constraint: deterministic, with a stack, and made as it is walked.
///
/// JSON shows its structure in its bytes, so however many alternatives are open, they open and close values together. A
/// frame holds all the ways to read one value (a subset construction); the stack holds the frames around it. Which of
/// the expected values the text turned out to be is known when the value ends, and decides how the outer frame goes on.
/// Each state and each transition is computed once.
final class Automaton {
    // One thread at a time runs an automaton, and no access overlaps another.
    @exclusivity(unchecked) var arena: RegexArena
    let grammar: Grammar
    @exclusivity(unchecked) var sites = Sites()
    @exclusivity(unchecked) var table = FrameTable()
    /// By object rule: the keys that it doesn't name.
    @exclusivity(unchecked) var unnamed: [Int32: RegexID] = [:]
    let start: Int32
    let walkBuffers = WalkBuffers()

    init(grammar: Grammar) {
        self.grammar = grammar
        arena = grammar.arena
        var threads: [Thread] = []
        switch grammar.answer {
        case .text(let expression): threads.append(.text(.rawText, expression, .raw))
        case .value(let value): threads.append(Thread(.rootValue, operand: value))
        case nil: break
        }
        // The first call has none before it to be separated from.
        if let calls = grammar.calls { threads.append(Self.firstCall(calls)) }
        start = table.number(threads.map { TaggedThread(thread: $0, tags: 0) })
    }

    /// What the state does with the byte.
    @inline(__always) func transition(_ state: Int32, _ byte: UInt8) -> Int32 {
        let known = table.transition(state, byte)
        return known != Transition.unknown ? known : compute(state, byte)
    }

    /// The state of a frame after a value that it expected and that turned out to be `tags`.
    func returned(to state: Int32, _ tags: Int32) -> Int32 {
        let key = UInt64(UInt32(bitPattern: state)) << 32 | UInt64(UInt32(bitPattern: tags))
        if let known = table.returns[key] { return known }
        let expected = expectedValues(state)
        let found = Set(table.tagSets[Int(tags)].map { expected[Int($0)] })
        var threads: [TaggedThread] = []
        for tagged in table.frames[Int(state)].threads {
            for (value, next) in expectations(of: tagged.thread) where found.contains(value) {
                threads.append(TaggedThread(thread: next, tags: tagged.tags))
            }
        }
        let result = table.number(threads)
        table.returns[key] = result
        return result
    }

    /// What the threads expect, and how each continues after it.
    private func expectations(of thread: Thread) -> [(value: Int32, next: Thread)] {
        switch thread.kind {
        case .rootValue:
            [(thread.operand, thread.value < 0 ? Thread(.rootEnd) : Thread(.callClosing, value: thread.value))]
        case .memberValue: [(thread.operand, Thread(.memberEnd, site: thread.site))]
        case .parameterValue: [(thread.operand, Thread(.parameterEnd, site: thread.site))]
        case .arrayOpen, .itemStart:
            sites.choices(ofArray: thread.site, in: grammar.arrays).items.map {
                ($0.value, Thread(.itemEnd, site: $0.next))
            }
        default: []
        }
    }

    private func expectedValues(_ state: Int32) -> [Int32] {
        var values: Set<Int32> = []
        for tagged in table.frames[Int(state)].threads {
            for (value, _) in expectations(of: tagged.thread) { values.insert(value) }
        }
        return values.sorted()
    }

    /// The frame that reads the values which `state` expects; -1 if it expects none.
    func child(of state: Int32) -> Int32 {
        let known = table.children[Int(state)]
        if known >= -1 && known != -1 { return known }
        let expected = expectedValues(state)
        guard !expected.isEmpty else { return -1 }
        let threads = expected.enumerated().map { place, value in
            TaggedThread(thread: Thread(.value, operand: value), tags: table.tags([UInt16(truncatingIfNeeded: place)]))
        }
        let number = table.number(threads)
        table.children[Int(state)] = number
        return number
    }

    // MARK: The end

    /// Whether the answer may end in this configuration: `outer` gives the stack's states, innermost first.
    func allowsEnd(_ state: Int32, stack: [Int32]) -> Bool {
        var state = state
        var depth = stack.count
        while true {
            let frame = table.frames[Int(state)]
            switch frame.threads[0].thread.kind {
            case .rootEnd: return true
            case .callClosing: return Int(frame.threads[0].thread.operand) == grammar.calls?.closing.count
            case .rawText:
                return frame.threads.contains {
                    $0.thread.kind == .rawText && $0.thread.pending == .none && arena.isNullable($0.thread.operand)
                }
            case .number:
                let tags = numberTags(frame)
                guard tags != 0 && depth > 0 else { return false }
                depth -= 1
                state = returned(to: stack[depth], tags)
            default: return false
            }
        }
    }

    /// The values that the number could be if it ended here; 0 for none.
    func numberTags(_ frame: Frame) -> Int32 {
        var tags: Int32 = 0
        for tagged in frame.threads where arena.isNullable(tagged.thread.operand) {
            tags = tags == 0 ? tagged.tags : table.union(tags, tagged.tags)
        }
        return tags
    }
}
