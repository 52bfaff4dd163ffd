/// Finds control and added tokens in text: the leftmost first, the longest of those that begin at the same byte.
final class SpecialTokens: Sendable {
    struct Match {
        var start: Int
        var end: Int
        var id: Int32
    }

    /// The special tokens alone, numbered from 0.
    private let index: TokenIndex
    /// By number.
    private let ids: [Int32]
    private let isControl: [Bool]
    /// By first byte, with and without control tokens: whether a token begins so. Empty if there is none at all.
    private let begins: [Bool]
    private let beginsWithControl: [Bool]
    /// By first byte: the lengths of the tokens that begin so, ascending.
    private let lengths: [[Int]]
    /// Whether a name has a line end in it.
    let hasLineEnd: Bool

    init(_ table: TokenTable, kinds: [TokenizerDefinition.TokenKind]) throws(SigmaError) {
        var names = TokenTable()
        var ids: [Int32] = []
        var isControl: [Bool] = []
        var begins = [Bool](repeating: false, count: 256)
        var beginsWithControl = begins
        var lengths = [Set<Int>](repeating: [], count: 256)
        for id in 0..<table.count where kinds[id] == .control || kinds[id] == .added {
            let name = table[id]
            guard let first = name.first else { continue }
            names.append(Array(name))
            ids.append(Int32(id))
            isControl.append(kinds[id] == .control)
            if kinds[id] == .added { begins[Int(first)] = true }
            beginsWithControl[Int(first)] = true
            lengths[Int(first)].insert(name.count)
        }
        index = try TokenIndex(names)
        hasLineEnd = (0..<names.count).contains { names[$0].contains(UInt8(ascii: "\n")) }
        self.ids = ids
        self.isControl = isControl
        self.begins = begins.contains(true) ? begins : []
        self.beginsWithControl = beginsWithControl.contains(true) ? beginsWithControl : []
        self.lengths = lengths.map { $0.sorted() }
    }

    func id(of name: UnsafeBufferPointer<UInt8>) -> Int32? { index.id(of: name).map { ids[Int($0)] } }

    /// The first token at or after `start`.
    func firstMatch(in text: UnsafeBufferPointer<UInt8>, from start: Int, includingControl: Bool) -> Match? {
        guard let base = text.baseAddress else { return nil }
        return (includingControl ? beginsWithControl : begins).withUnsafeBufferPointer { begins in
            guard !begins.isEmpty else { return nil }
            for position in start..<text.count where begins[Int(base[position])] {
                if let match = longestMatch(base, position, text.count, includingControl) { return match }
            }
            return nil
        }
    }

    private func longestMatch(
        _ base: UnsafePointer<UInt8>, _ position: Int, _ count: Int, _ includingControl: Bool
    ) -> Match? {
        var match: Match?
        var hash: UInt64 = 0
        var hashed = 0
        for length in lengths[Int(base[position])] where length <= count - position {
            while hashed < length {
                hash = TokenIndex.Hash.append(base[position + hashed], to: hash)
                hashed += 1
            }
            let found = Int(index.view.find(base + position, length, hash))
            if found >= 0, includingControl || !isControl[found] {
                match = Match(start: position, end: position + length, id: ids[found])
            }
        }
        return match
    }
}
