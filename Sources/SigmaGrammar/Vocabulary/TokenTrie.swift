/// Tokens as a tree of bytes in depth-first order, one 64-bit word a node.
///
/// A walk reads the words in order; where a byte is refused it skips the node's subtree.
struct TokenTrie: Sendable {
    /// Tokens longer than this are never allowed: a node's depth has eight bits.
    static let longestToken = 255

    /// Byte in bits 0 to 7, depth from 1 in 8 to 15, the nodes of the subtree (itself included) in 16 to 39, and the
    /// token's number plus one (0: none) in 40 to 63.
    private(set) var nodes: [UInt64] = []

    /// - Precondition: `tokens` are sorted by bytes, distinct, and none is empty.
    init(sorted tokens: [(bytes: [UInt8], id: Int)]) {
        nodes.reserveCapacity(tokens.count * 3)
        var path: [Int] = []
        var previous: [UInt8] = []
        func close(to depth: Int) {
            while path.count > depth {
                let node = path.removeLast()
                nodes[node] |= UInt64(nodes.count - node) << 16
            }
        }
        for (bytes, id) in tokens {
            var shared = 0
            while shared < min(bytes.count, previous.count) && bytes[shared] == previous[shared] { shared += 1 }
            close(to: shared)
            for depth in shared..<bytes.count {
                path.append(nodes.count)
                nodes.append(UInt64(bytes[depth]) | UInt64(depth + 1) << 8)
            }
            nodes[path[path.count - 1]] |= UInt64(id + 1) << 40
            previous = bytes
        }
        close(to: 0)
    }
}
