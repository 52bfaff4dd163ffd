/// The suffix automaton of a growing text of tokens (Blumer et al., 1985): it knows the longest end of the text that occurred before, and where.
///
/// At most two states and three transitions a token. `append` takes amortised constant time, and time in the number of different tokens that follow
/// a state where one is divided.
package struct SuffixAutomaton: Sendable {
    /// The longest end of the text that also ends earlier.
    package struct Match: Equatable, Sendable {
        package let length: Int
        /// Place of the token behind its newest earlier occurrence.
        package let next: Int

        package init(length: Int, next: Int) {
            self.length = length
            self.next = next
        }
    }

    /// A set of substrings that end at the same places.
    private struct State {
        /// Of its longest substring.
        var length: Int32
        /// The state of the longest end of its substrings that also ends elsewhere.
        var link: Int32
        /// The newest place at which its substrings end.
        var newestEnd: Int32
        /// Its newest transition; -1: it has none.
        var firstEdge: Int32 = -1
    }

    private struct Edge {
        var state: Int32
        var token: Int32
        var target: Int32
        /// Another transition of the same state; -1: there is none.
        var next: Int32
    }

    package private(set) var text: [Int32] = []
    package private(set) var match: Match?
    private var states = [State(length: 0, link: -1, newestEnd: -1)]
    private var edges: [Edge] = []
    /// Transitions by state and token: an open hash table of numbers of edges; -1: free.
    private var table = [Int32](repeating: -1, count: 1 << 8)
    private var last: Int32 = 0

    /// States whose newest end is brought up to date for a token: matches beyond point to an earlier occurrence.
    private static let updates = 64

    package init() {}

    /// For tests: states and transitions.
    package var size: (states: Int, edges: Int) { (states.count, edges.count) }
    package var byteCount: Int {
        states.count * MemoryLayout<State>.stride + edges.count * MemoryLayout<Edge>.stride + (table.count + text.count)
            * 4
    }

    // MARK: - Growing

    package mutating func append(_ token: Int32) {
        let place = Int32(text.count)
        text.append(token)
        let new = Int32(states.count)
        states.append(State(length: place + 1, link: 0, newestEnd: place))
        var state = last
        while state >= 0, edge(state, token) == nil {
            addEdge(state, token, to: new)
            state = states[Int(state)].link
        }
        if state >= 0 { states[Int(new)].link = divided(edges[Int(edge(state, token)!)].target, from: state, token) }
        last = new
        findMatch()
        var ended = new
        for _ in 0..<Self.updates where ended > 0 {
            states[Int(ended)].newestEnd = place
            ended = states[Int(ended)].link
        }
    }

    /// The state of the substrings of `target` that are one token longer than those of `state`: a copy of it, where it has longer ones.
    private mutating func divided(_ target: Int32, from state: Int32, _ token: Int32) -> Int32 {
        let length = states[Int(state)].length + 1
        if states[Int(target)].length == length { return target }
        let copy = Int32(states.count)
        var copied = states[Int(target)]
        copied.length = length
        copied.firstEdge = -1
        states.append(copied)
        var next = states[Int(target)].firstEdge
        while next >= 0 {
            let edge = edges[Int(next)]
            addEdge(copy, edge.token, to: edge.target)
            next = edge.next
        }
        states[Int(target)].link = copy
        var state = state
        while state >= 0, let edge = edge(state, token), edges[Int(edge)].target == target {
            edges[Int(edge)].target = copy
            state = states[Int(state)].link
        }
        return copy
    }

    private mutating func findMatch() {
        let link = states[Int(last)].link
        match =
            link > 0
            ? Match(length: Int(states[Int(link)].length), next: Int(states[Int(link)].newestEnd) + 1) : nil
    }

    // MARK: - Transitions

    private static func hash(_ state: Int32, _ token: Int32) -> Int {
        let key = UInt64(UInt32(bitPattern: state)) << 32 | UInt64(UInt32(bitPattern: token))
        return Int(truncatingIfNeeded: (key &* 0x9e37_79b9_7f4a_7c15) >> 24)
    }

    private func edge(_ state: Int32, _ token: Int32) -> Int32? {
        var slot = Self.hash(state, token) & (table.count - 1)
        while table[slot] >= 0 {
            let edge = table[slot]
            if edges[Int(edge)].state == state, edges[Int(edge)].token == token { return edge }
            slot = (slot + 1) & (table.count - 1)
        }
        return nil
    }

    private mutating func addEdge(_ state: Int32, _ token: Int32, to target: Int32) {
        if 4 * (edges.count + 1) > 3 * table.count { growTable() }
        let edge = Int32(edges.count)
        edges.append(Edge(state: state, token: token, target: target, next: states[Int(state)].firstEdge))
        states[Int(state)].firstEdge = edge
        enter(edge)
    }

    private mutating func enter(_ edge: Int32) {
        var slot = Self.hash(edges[Int(edge)].state, edges[Int(edge)].token) & (table.count - 1)
        while table[slot] >= 0 { slot = (slot + 1) & (table.count - 1) }
        table[slot] = edge
    }

    private mutating func growTable() {
        table = [Int32](repeating: -1, count: 2 * table.count)
        for edge in edges.indices { enter(Int32(edge)) }
    }
}
