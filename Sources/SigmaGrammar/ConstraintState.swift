/// Where one answer stands under its constraint. A value: a copy is a draft that can be thrown away.
package struct ConstraintState: Sendable {
    package let constraint: CompiledConstraint
    /// The answer so far.
    package private(set) var text: [UInt8] = []
    private var generation = -1
    private var state: Int32 = 0
    /// The outer frames' states, the innermost last.
    private var stack: [Int32] = []
    /// Whether the answer puts blanks after colons and commas: what it did last.
    private var spacing = Spacing()

    private struct Spacing {
        var isBlankBehindColon = true
        var isBlankBehindComma = true
        var breaksLines = false
    }

    init(_ constraint: CompiledConstraint) { self.constraint = constraint }

    /// Brings the configuration into the current automaton: reads the text again if there is a new one.
    private mutating func settle(_ current: CompiledConstraint.Generation) {
        guard generation != current.number else { return }
        generation = current.number
        state = current.automaton.start
        stack = []
        for byte in text { _ = step(byte, current.automaton) }
        if !text.isEmpty { current.noteReplay() }
    }

    private mutating func noteSpacing(_ byte: UInt8, _ automaton: Automaton) {
        switch automaton.table.place(of: state) {
        case .behindColon: spacing.isBlankBehindColon = byte == 0x20
        case .behindComma: spacing.isBlankBehindComma = byte == 0x20
        case .elsewhere: return
        }
        spacing.breaksLines = byte == 0x0A
    }

    /// One byte; false, and nothing is changed, if it can't follow.
    private mutating func step(_ byte: UInt8, _ automaton: Automaton) -> Bool {
        var next = state
        var depth = stack.count
        while true {
            let code = automaton.transition(next, byte)
            if code == Transition.dead { return false }
            if code >= 0 {
                stack.removeLast(stack.count - depth)
                state = code
                return true
            }
            let payload = Transition.payload(code)
            if Transition.kind(code) == Transition.push {
                stack.removeLast(stack.count - depth)
                stack.append(next)
                state = payload
                return true
            }
            guard depth > 0 else { return false }
            depth -= 1
            next = automaton.returned(to: stack[depth], payload)
            if Transition.kind(code) == Transition.popAfter {
                stack.removeLast(stack.count - depth)
                state = next
                return true
            }
        }
    }

    /// Appends bytes to the answer: a token's, or any others.
    ///
    /// - Returns: false, and nothing is changed, if the constraint doesn't allow them.
    package mutating func advance(_ bytes: some Sequence<UInt8>) -> Bool {
        constraint.withGeneration { generation in
            settle(generation)
            let (oldState, oldStack, oldCount) = (state, stack, text.count)
            for byte in bytes {
                noteSpacing(byte, generation.automaton)
                guard step(byte, generation.automaton) else {
                    (state, stack) = (oldState, oldStack)
                    text.removeLast(text.count - oldCount)
                    return false
                }
                text.append(byte)
            }
            return true
        }
    }

    /// Whether the answer may end here.
    package var allowsEnd: Bool {
        var current = self
        return constraint.withGeneration { generation in
            current.settle(generation)
            return generation.automaton.allowsEnd(current.state, stack: current.stack)
        }
    }

    /// Sets the bits of the tokens that may come next, and clears all others. The end isn't a token: ask `allowsEnd`.
    ///
    /// - Parameter bits: `vocabulary.wordCount` words.
    package mutating func mask(into bits: UnsafeMutableBufferPointer<UInt64>) {
        constraint.withGeneration { generation in
            settle(generation)
            if generation.cache.copy(state: state, stack: stack, into: bits) { return }
            let depth = generation.automaton.mask(
                state: state, stack: stack, vocabulary: constraint.vocabulary,
                visitLimit: constraint.limits.statesPerMask, into: bits)
            generation.cache.insert(state: state, stack: stack, depth: depth, bits: bits)
        }
    }

    package mutating func mask() -> [UInt64] {
        var words = [UInt64](repeating: 0, count: constraint.vocabulary.wordCount)
        words.withUnsafeMutableBufferPointer { mask(into: $0) }
        return words
    }

    /// What comes next for sure: keys, punctuation, closing brackets; at most `limit` bytes.
    ///
    /// Whitespace is never for sure; it is taken to be as the answer had it before (a blank after colons and commas
    /// until it shows), so this is a guess to be verified, and mostly a good one.
    package func forcedBytes(limit: Int) -> [UInt8] {
        var draft = self
        return constraint.withGeneration { generation in
            draft.settle(generation)
            var result: [UInt8] = []
            while result.count < limit, !generation.automaton.allowsEnd(draft.state, stack: draft.stack),
                let bytes = draft.onlyBytes(generation.automaton)
            {
                for byte in bytes {
                    guard draft.step(byte, generation.automaton) else { return result }
                    result.append(byte)
                }
            }
            return Array(result.prefix(limit))
        }
    }

    /// The only byte that may follow, if there is just one but for whitespace, with the blank before it.
    private func onlyBytes(_ automaton: Automaton) -> [UInt8]? {
        let place = automaton.table.place(of: state)
        let isStructure = automaton.table.isStructure(state)
        var only: UInt8?
        for byte in UInt8.min...UInt8.max {
            if isStructure && (byte == 0x20 || byte == 0x0A || byte == 0x09) { continue }
            var draft = self
            guard automaton.transition(state, byte) != Transition.dead, draft.step(byte, automaton) else { continue }
            if only != nil { return nil }
            only = byte
        }
        guard let only else { return nil }
        switch place {
        case .behindColon: return spacing.isBlankBehindColon ? [0x20, only] : [only]
        case .behindComma where spacing.breaksLines: return nil
        case .behindComma: return spacing.isBlankBehindComma ? [0x20, only] : [only]
        case .elsewhere: return isStructure && spacing.breaksLines && only != UInt8(ascii: ",") ? nil : [only]
        }
    }
}
