/// Masks by configuration, bounded in bytes.
///
/// A mask depends on the innermost state and on as many outer states as the longest token closes. How many that is
/// shows when the mask is made, so the cache is a tree: a node either has a mask or asks for the next outer state.
struct MaskCache {
    private enum Node {
        case inner
        /// Few tokens are kept as a list.
        case list([UInt32])
        case words([UInt64])
    }

    private var nodes: [Node] = [.inner]
    private var edges: [UInt64: Int32] = [:]
    private(set) var bytes = 0
    private let limit: Int
    private(set) var hits = 0
    private(set) var misses = 0

    init(limit: Int) { self.limit = limit }

    /// Writes the mask of a configuration; false if it isn't there.
    mutating func copy(
        state: Int32, stack: [Int32], into bits: UnsafeMutableBufferPointer<UInt64>
    ) -> Bool {
        var node = edges[Self.key(0, state)]
        var depth = stack.count
        while let place = node {
            switch nodes[Int(place)] {
            case .inner:
                // The end of the stack is a state of its own: nothing lies beneath.
                depth -= 1
                node = edges[Self.key(place, depth >= 0 ? stack[depth] : -1)]
                continue
            case .list(let tokens):
                bits.update(repeating: 0)
                for token in tokens { bits[Int(token >> 6)] |= 1 << UInt64(token & 63) }
            case .words(let words):
                _ = bits.update(fromContentsOf: words)
            }
            hits += 1
            return true
        }
        misses += 1
        return false
    }

    /// Keeps a mask that depends on the innermost `depth` of the stack's states.
    mutating func insert(
        state: Int32, stack: [Int32], depth: Int, bits: UnsafeMutableBufferPointer<UInt64>
    ) {
        let count = bits.reduce(0) { $0 + $1.nonzeroBitCount }
        let isList = count * 4 < bits.count * 8
        let size = (isList ? count * 4 : bits.count * 8) + 64 * (depth + 1)
        if bytes + size > limit { removeAll() }
        guard size <= limit else { return }
        bytes += size
        var node = step(from: 0, state)
        for level in 0..<depth { node = step(from: node, stack[stack.count - 1 - level]) }
        if isList {
            var tokens: [UInt32] = []
            tokens.reserveCapacity(count)
            for (index, word) in bits.enumerated() {
                var word = word
                while word != 0 {
                    tokens.append(UInt32(index << 6 | word.trailingZeroBitCount))
                    word &= word - 1
                }
            }
            nodes[Int(node)] = .list(tokens)
        } else {
            nodes[Int(node)] = .words(Array(bits))
        }
    }

    private mutating func removeAll() {
        nodes = [.inner]
        edges = [:]
        bytes = 0
    }

    private mutating func step(from node: Int32, _ state: Int32) -> Int32 {
        let key = Self.key(node, state)
        if let known = edges[key] { return known }
        let number = Int32(nodes.count)
        nodes.append(.inner)
        edges[key] = number
        return number
    }

    private static func key(_ node: Int32, _ state: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: node)) << 32 | UInt64(UInt32(bitPattern: state))
    }
}
