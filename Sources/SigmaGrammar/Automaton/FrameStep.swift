/// How a frame's threads read a byte.
extension Automaton {
    /// Computes and keeps what `state` does with `byte`.
    func compute(_ state: Int32, _ byte: UInt8) -> Int32 {
        let frame = table.frames[Int(state)]
        if frame.threads.count == 1 {
            if let filled = fillString(state, frame.threads[0], byte) { return filled }
            if let only = onlyBytes(of: frame.threads[0].thread), !only.contains(byte) {
                table.setTransition(state, byte, Transition.dead)
                return Transition.dead
            }
        }
        let code = step(state, frame, byte)
        table.setTransition(state, byte, code)
        return code
    }

    private func step(_ state: Int32, _ frame: Frame, _ byte: UInt8) -> Int32 {
        let kind = frame.threads[0].thread.kind
        if !kind.isPlainText, byte == 0x20 || byte == 0x0A || byte == 0x09, let code = space(frame, kind, byte) {
            return code
        }
        if expectsValue(kind) {
            let inner = child(of: state)
            if inner >= 0 {
                let next = transition(inner, byte)
                if next >= 0 { return Transition.encode(Transition.push, next) }
            }
        }
        var next: [TaggedThread] = []
        var finished: Int32 = 0
        for tagged in frame.threads {
            let isFinished = step(tagged.thread, byte) { thread in
                next.append(TaggedThread(thread: thread, tags: tagged.tags))
            }
            if isFinished { finished = finished == 0 ? tagged.tags : table.union(finished, tagged.tags) }
        }
        if !next.isEmpty { return table.number(next) }
        if finished != 0 { return Transition.encode(Transition.popAfter, finished) }
        if kind == .number {
            let tags = numberTags(frame)
            if tags != 0 { return Transition.encode(Transition.popBefore, tags) }
        }
        return Transition.dead
    }

    private func expectsValue(_ kind: ThreadKind) -> Bool {
        kind == .rootValue || kind == .memberValue || kind == .arrayOpen || kind == .itemStart
            || kind == .parameterValue
    }

    // MARK: Whitespace

    /// Limits of indentation after a line end: blanks, or tabs.
    static let blanks: UInt8 = 32
    static let tabs: UInt8 = 16

    /// Whitespace as `Frame.space` counts it: none, a blank, a line end, and blanks or tabs after it. Nil where
    /// `byte` isn't whitespace's, because the frame is inside a string.
    private func space(_ frame: Frame, _ kind: ThreadKind, _ byte: UInt8) -> Int32? {
        let next: UInt8
        switch (byte, frame.space) {
        case (0x20, 0): next = 1
        case (0x0A, 0): next = 2
        case (0x20, 2..<(2 + Self.blanks)): next = frame.space + 1
        case (0x09, 2): next = 64
        case (0x09, 64..<(64 + Self.tabs - 1)): next = frame.space + 1
        default: next = 0
        }
        var threads = frame.threads
        switch kind {
        case .name, .key, .string: return nil
        // Other texts than JSON may stand beside it.
        case .rootValue: return nil
        case .objectOpen, .keyStart, .arrayOpen, .itemStart: break
        case .memberValue: if next > 1 { return Transition.dead }
        case .memberEnd, .itemEnd:
            threads = threads.compactMap { tagged in
                guard canClose(tagged.thread) else { return nil }
                var closing = tagged
                closing.thread.kind = kind == .memberEnd ? .objectClosing : .arrayClosing
                return closing
            }
        case .objectClosing, .arrayClosing: break
        case .number:
            let tags = numberTags(frame)
            return tags == 0 ? Transition.dead : Transition.encode(Transition.popBefore, tags)
        default: return Transition.dead
        }
        return next == 0 || threads.isEmpty ? Transition.dead : table.number(threads, space: next)
    }

    private func canClose(_ thread: Thread) -> Bool {
        switch thread.kind {
        case .objectOpen, .memberEnd, .objectClosing:
            sites.choices(ofObject: thread.site, in: grammar.objects).canClose
        case .arrayOpen, .itemEnd, .arrayClosing:
            sites.choices(ofArray: thread.site, in: grammar.arrays).canClose
        default: false
        }
    }

    // MARK: One thread

    /// Passes on the threads after `byte`. True if the value ends with it.
    private func step(_ thread: Thread, _ byte: UInt8, _ yield: (Thread) -> Void) -> Bool {
        switch thread.kind {
        case .value: firstByte(of: grammar.values[Int(thread.operand)], byte, yield)
        case .literal:
            let text = Self.literals[Int(thread.operand)]
            guard text[Int(thread.low)] == byte else { return false }
            if Int(thread.low) + 1 == text.count { return true }
            var next = thread
            next.low += 1
            yield(next)
        case .number:
            guard byte < 0x80 else { return false }
            let target = arena.derivative(of: thread.operand, by: UInt32(byte))
            if target != RegexArena.empty && arena.isLive(target) { yield(Thread(.number, operand: target)) }
        case .string, .key:
            if byte == UInt8(ascii: "\"") && thread.pending == .none {
                guard arena.isNullable(thread.operand) else { return false }
                if thread.kind == .string { return true }
                yield(Thread(.colon, site: thread.site, operand: thread.value))
            } else if let next = arena.advance(thread, by: byte) {
                yield(next)
            }
        case .rawText:
            if let next = arena.advance(thread, by: byte) { yield(next) }
        case .objectOpen, .keyStart:
            if byte == UInt8(ascii: "\"") { startKeys(thread.site, yield) }
            return byte == UInt8(ascii: "}") && thread.kind == .objectOpen && canClose(thread)
        case .name:
            name(thread, byte, yield) { site, value in yield(Thread(.colon, site: site, operand: value)) }
        case .colon:
            if byte == UInt8(ascii: ":") { yield(Thread(.memberValue, site: thread.site, operand: thread.operand)) }
        case .memberEnd, .objectClosing:
            if byte == UInt8(ascii: "}") { return canClose(thread) }
            if byte == UInt8(ascii: ",") && thread.kind == .memberEnd {
                let choices = sites.choices(ofObject: thread.site, in: grammar.objects)
                if choices.hasNames || !choices.free.isEmpty { yield(Thread(.keyStart, site: thread.site)) }
            }
        case .arrayOpen, .itemEnd, .arrayClosing:
            if byte == UInt8(ascii: "]") { return canClose(thread) }
            if byte == UInt8(ascii: ",") && thread.kind == .itemEnd,
                !sites.choices(ofArray: thread.site, in: grammar.arrays).items.isEmpty
            {
                yield(Thread(.itemStart, site: thread.site))
            }
        case .callOpening, .callClosing, .functionName, .parameterTag, .parameterName, .parameterKey, .parameterText,
            .parameterEnd:
            stepInCall(thread, byte, yield)
        case .rootValue, .rootEnd, .memberValue, .itemStart, .parameterValue: break
        }
        return false
    }

    private static let literals = ["null", "true", "false"].map { Array($0.utf8) }

    private func firstByte(of value: Grammar.Value, _ byte: UInt8, _ yield: (Thread) -> Void) {
        func literal(_ number: Int32) {
            var thread = Thread(.literal, operand: number)
            thread.low = 1
            yield(thread)
        }
        switch byte {
        case UInt8(ascii: "n"): if value.null { literal(0) }
        case UInt8(ascii: "t"): if value.isTrue { literal(1) }
        case UInt8(ascii: "f"): if value.isFalse { literal(2) }
        case UInt8(ascii: "\""):
            if value.listed != RegexArena.empty { yield(.text(.string, value.listed, .listed)) }
            if value.text != RegexArena.empty { yield(.text(.string, value.text, .free)) }
        case UInt8(ascii: "{"):
            for rule in value.objects {
                yield(Thread(.objectOpen, site: sites.number(ObjectSite(rule: rule, position: 0))))
            }
        case UInt8(ascii: "["):
            for rule in value.arrays {
                let progress = ArrayProgress(grammar.arrays[Int(rule)].shape)
                yield(Thread(.arrayOpen, site: sites.number(ArraySite(rule: rule, progress: progress))))
            }
        default:
            guard value.number != RegexArena.empty && byte < 0x80 else { return }
            let target = arena.derivative(of: value.number, by: UInt32(byte))
            if target != RegexArena.empty && arena.isLive(target) { yield(Thread(.number, operand: target)) }
        }
    }

    // MARK: Keys

    private func startKeys(_ site: Int32, _ yield: (Thread) -> Void) {
        if let names = names(at: site, .name) { yield(names) }
        for free in sites.choices(ofObject: site, in: grammar.objects).free {
            yield(key(free, arena.and(free.keys, unnamedKeys(sites.objects[Int(site)].rule)), .key, .free))
        }
    }

    /// The names that may follow.
    func names(at site: Int32, _ kind: ThreadKind) -> Thread? {
        guard sites.choices(ofObject: site, in: grammar.objects).hasNames else { return nil }
        var thread = Thread(kind, site: site)
        thread.high = UInt32(grammar.objects[Int(sites.objects[Int(site)].rule)].spellings.count)
        return thread
    }

    /// A key that has no name, and what follows it.
    func key(
        _ free: (keys: RegexID, value: Int32, next: Int32), _ keys: RegexID, _ kind: ThreadKind, _ spelling: Spelling
    ) -> Thread {
        var thread = Thread.text(kind, keys, spelling)
        thread.site = free.next
        thread.value = free.value
        return thread
    }

    /// All keys but the rule's names.
    func unnamedKeys(_ rule: Int32) -> RegexID {
        if let known = unnamed[rule] { return known }
        let keys = arena.not(arena.literals(grammar.objects[Int(rule)].names))
        unnamed[rule] = keys
        return keys
    }

    /// Names that begin with what was read are neighbours: `low..<high` of the sorted spellings, `operand` bytes deep.
    ///
    /// - Parameter ended: passes on what follows a whole name: the member's site, and its value.
    func name(
        _ thread: Thread, _ byte: UInt8, _ yield: (Thread) -> Void, ended: (_ site: Int32, _ value: Int32) -> Void
    ) {
        let site = sites.objects[Int(thread.site)]
        let choices = sites.choices(ofObject: thread.site, in: grammar.objects)
        let rule = grammar.objects[Int(site.rule)]
        let depth = Int(thread.operand)
        let low = Self.bound(rule.spellings, thread, depth, Int(byte))
        let high = Self.bound(rule.spellings, thread, depth, Int(byte) + 1)
        let isPossible = (low..<high).contains {
            let place = rule.places[$0]
            return place >= choices.first && place <= choices.last && rule.values[place] >= 0
        }
        guard isPossible else { return }
        if rule.spellings[low].count == depth + 1 {
            let place = rule.places[low]
            return ended(sites.number(sites.behindMember(place, of: site, in: rule)), rule.values[place])
        }
        var next = thread
        next.low = UInt32(low)
        next.high = UInt32(high)
        next.operand += 1
        yield(next)
    }

    /// The first of the thread's spellings whose byte at `depth` is at least `limit`.
    static func bound(_ spellings: [[UInt8]], _ thread: Thread, _ depth: Int, _ limit: Int) -> Int {
        var low = Int(thread.low)
        var high = Int(thread.high)
        while low < high {
            let middle = (low + high) / 2
            if Int(spellings[middle][depth]) < limit { low = middle + 1 } else { high = middle }
        }
        return low
    }

    // MARK: Shortcuts

    /// The bytes that a lone thread inside a name or a literal can go on with, where they are few.
    private func onlyBytes(of thread: Thread) -> [UInt8]? {
        switch thread.kind {
        case .colon: return [UInt8(ascii: ":")]
        case .literal: return [Self.literals[Int(thread.operand)][Int(thread.low)]]
        case .parameterEnd: return [ParameterLists.end[Int(thread.operand)]]
        case .name where thread.high - thread.low == 1:
            let rule = grammar.objects[Int(sites.objects[Int(thread.site)].rule)]
            return [rule.spellings[Int(thread.low)][Int(thread.operand)]]
        default: return nil
        }
    }

    /// For a lone string thread between two characters: all ASCII bytes at once, since few derivatives differ.
    private func fillString(_ state: Int32, _ tagged: TaggedThread, _ byte: UInt8) -> Int32? {
        let thread = tagged.thread
        guard thread.kind == .string || thread.kind == .key, thread.pending == .none, 0x20..<0x80 ~= byte,
            byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\")
        else { return nil }
        let entries = arena.partition(of: thread.operand)
        var low: UInt32 = 0x20
        var index = RegexArena.entry(entries, at: low)
        while low < 0x80 {
            let entry = entries[index]
            let high = min(entry.high, 0x7F)
            var code = Transition.dead
            if entry.target != RegexArena.empty && arena.isLive(entry.target) {
                var next = tagged
                next.thread.operand = entry.target
                code = table.number([next])
            }
            for value in low...high where value != 0x22 && value != 0x5C {
                table.setTransition(state, UInt8(value), code)
            }
            low = high + 1
            index += 1
        }
        return table.transition(state, byte)
    }
}
