/// Buffers of a walk, kept between walks.
final class WalkBuffers {
    private static let depths = TokenTrie.longestToken + 1

    /// By depth in the trie: the state, the frame around it, and how many frames had been entered.
    let states = UnsafeMutablePointer<Int32>.allocate(capacity: depths)
    let outers = UnsafeMutablePointer<Int32>.allocate(capacity: depths)
    let marks = UnsafeMutablePointer<Int>.allocate(capacity: depths)
    /// Frames that the walk entered: the outer frame's state, and the frame around that.
    var pushedStates: [Int32] = []
    var pushedOuters: [Int32] = []
    /// By state: the walk that saw it last.
    private(set) var visits: UnsafeMutablePointer<UInt32>
    private var visitCapacity = 1 << 12
    var walk: UInt32 = 0

    init() {
        visits = .allocate(capacity: visitCapacity)
        visits.initialize(repeating: 0, count: visitCapacity)
    }

    deinit {
        states.deallocate()
        outers.deallocate()
        marks.deallocate()
        visits.deallocate()
    }

    /// True the first time in this walk.
    @inline(__always) func isFirstVisit(_ state: Int32) -> Bool {
        if Int(state) >= visitCapacity { grow(to: Int(state)) }
        if visits[Int(state)] == walk { return false }
        visits[Int(state)] = walk
        return true
    }

    private func grow(to state: Int) {
        let larger = max(visitCapacity * 2, state + 1)
        let new = UnsafeMutablePointer<UInt32>.allocate(capacity: larger)
        new.moveInitialize(from: visits, count: visitCapacity)
        (new + visitCapacity).initialize(repeating: 0, count: larger - visitCapacity)
        visits.deallocate()
        visits = new
        visitCapacity = larger
    }

    /// Drops the frames that were entered below an earlier branch of the trie.
    func cut(to mark: Int) {
        guard pushedStates.count > mark else { return }
        pushedStates.removeLast(pushedStates.count - mark)
        pushedOuters.removeLast(pushedOuters.count - mark)
    }
}

/// Walks the vocabulary through the automaton.
extension Automaton {
    /// Sets the bits of the tokens that may come next.
    ///
    /// - Parameters:
    ///   - stack: the outer frames' states, the innermost last.
    ///   - bits: `vocabulary.wordCount` words.
    /// - Returns: how many of the stack's states the mask depends on.
    func mask(
        state: Int32, stack: [Int32], vocabulary: Vocabulary, visitLimit: Int,
        into bits: UnsafeMutableBufferPointer<UInt64>
    ) -> Int {
        let depth: Int
        if let slice = slice(for: state, vocabulary) {
            _ = bits.update(fromContentsOf: slice.mask)
            depth = walk(slice.others, state, stack, visitLimit, bits)
        } else {
            bits.update(repeating: 0)
            depth = walk(vocabulary.trie, state, stack, visitLimit, bits)
        }
        for (first, second) in vocabulary.twins where bits[first >> 6] >> UInt64(first & 63) & 1 == 1 {
            bits[second >> 6] |= 1 << UInt64(second & 63)
        }
        return depth
    }

    /// The largest slice of which some thread of the state takes every token.
    private func slice(for state: Int32, _ vocabulary: Vocabulary) -> Vocabulary.Slice? {
        let known = table.slices[Int(state)]
        if known != FrameTable.unknownSlice { return known < 0 ? nil : vocabulary.slices[Int(known)] }
        var best: Int32 = -1
        var threads: [Thread] = []
        for tagged in table.frames[Int(state)].threads {
            let thread = tagged.thread
            guard thread.kind == .string || thread.kind == .key else { continue }
            if thread.spelling == .free && thread.pending == .none { threads.append(thread) }
        }
        if !threads.isEmpty {
            var capacities: [CharacterKind: Int32] = [:]
            for (place, slice) in vocabulary.slices.enumerated() where slice.characters > 0 {
                if capacities[slice.kind] == nil {
                    var most: Int32 = 0
                    for thread in threads { most = max(most, arena.capacity(of: thread.operand, for: slice.kind)) }
                    capacities[slice.kind] = most
                }
                if slice.characters <= Int(capacities[slice.kind] ?? 0) {
                    best = Int32(place)
                    break
                }
            }
        }
        table.slices[Int(state)] = best
        return best < 0 ? nil : vocabulary.slices[Int(best)]
    }

    private func walk(
        _ trie: TokenTrie, _ state: Int32, _ stack: [Int32], _ visitLimit: Int,
        _ bits: UnsafeMutableBufferPointer<UInt64>
    ) -> Int {
        let buffers = walkBuffers
        let (states, outers, marks) = (buffers.states, buffers.outers, buffers.marks)
        buffers.walk &+= 1
        buffers.cut(to: 0)
        states[0] = state
        // Outer frames below 0 are the real stack's: -1 is none, -1 - n the n-th from the bottom.
        outers[0] = -1 - Int32(stack.count)
        marks[0] = 0
        var lowest = stack.count
        var visited = 0
        var chunks = table.chunks
        trie.nodes.withUnsafeBufferPointer { nodes in
            var index = 0
            while index < nodes.count {
                let node = nodes[index]
                let byte = UInt8(truncatingIfNeeded: node)
                let depth = Int(node >> 8 & 0xFF)
                var code = FrameTable.transition(chunks, states[depth - 1], byte)
                if code == Transition.unknown {
                    code = compute(states[depth - 1], byte)
                    chunks = table.chunks
                }
                if code >= 0 {
                    // Inside one frame: nothing but the state changes.
                    outers[depth] = outers[depth - 1]
                    marks[depth] = marks[depth - 1]
                } else {
                    if code != Transition.dead {
                        buffers.cut(to: marks[depth - 1])
                        outers[depth] = outers[depth - 1]
                        code = resolve(code, states[depth - 1], byte, &outers[depth], stack, &lowest)
                        chunks = table.chunks
                        marks[depth] = buffers.pushedStates.count
                    }
                    if code < 0 {
                        index += Int(node >> 16 & 0xFF_FFFF)
                        continue
                    }
                }
                states[depth] = code
                if buffers.isFirstVisit(code) {
                    visited += 1
                    // Single bytes always get through, so a walk that is cut short leaves something to say.
                    if visited > visitLimit && depth > 1 {
                        index += Int(node >> 16 & 0xFF_FFFF)
                        continue
                    }
                }
                let token = Int(node >> 40)
                if token != 0 { bits[(token - 1) >> 6] |= 1 << UInt64((token - 1) & 63) }
                index += 1
            }
        }
        return stack.count - lowest
    }

    /// Carries out pushes and pops. Returns the state after the byte, or `Transition.dead`.
    private func resolve(
        _ first: Int32, _ from: Int32, _ byte: UInt8, _ outer: inout Int32, _ stack: [Int32], _ lowest: inout Int
    ) -> Int32 {
        let buffers = walkBuffers
        var code = first
        var state = from
        while true {
            if code >= 0 || code == Transition.dead { return code }
            let payload = Transition.payload(code)
            if Transition.kind(code) == Transition.push {
                buffers.pushedStates.append(state)
                buffers.pushedOuters.append(outer)
                outer = Int32(buffers.pushedStates.count - 1)
                return payload
            }
            let isBefore = Transition.kind(code) == Transition.popBefore
            if outer >= 0 {
                state = returned(to: buffers.pushedStates[Int(outer)], payload)
                outer = buffers.pushedOuters[Int(outer)]
            } else {
                let place = Int(-2 - outer)
                guard place >= 0 else { return Transition.dead }
                lowest = min(lowest, place)
                state = returned(to: stack[place], payload)
                outer += 1
            }
            if !isBefore { return state }
            code = transition(state, byte)
        }
    }
}
