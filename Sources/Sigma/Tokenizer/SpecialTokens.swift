/// Finds control and added tokens in text: the leftmost first, the longest of those that begin at the same byte.
final class SpecialTokens: Sendable {
    struct Match {
        var start: Int
        var end: Int
        var id: Int32
    }

    private let index: TokenIndex
    private let isControl: [Bool]
    /// By first byte, with and without control tokens: whether a token begins so.
    private let begins: [Bool]
    private let beginsWithControl: [Bool]
    /// By first byte: the lengths of the tokens that begin so, ascending.
    private let lengths: [[Int]]
    private let isEmpty: Bool
    private let isEmptyWithControl: Bool

    init(_ table: TokenTable, kinds: [TokenizerDefinition.TokenKind]) throws(SigmaError) {
        func isSpecial(_ id: Int) -> Bool { kinds[id] == .control || kinds[id] == .added }
        index = try TokenIndex(table, where: isSpecial)
        var begins = [Bool](repeating: false, count: 256)
        var beginsWithControl = begins
        var lengths = [Set<Int>](repeating: [], count: 256)
        for id in 0..<table.count where isSpecial(id) {
            let token = table[id]
            guard let first = token.first else { continue }
            if kinds[id] == .added { begins[Int(first)] = true }
            beginsWithControl[Int(first)] = true
            lengths[Int(first)].insert(token.count)
        }
        self.begins = begins
        self.beginsWithControl = beginsWithControl
        self.lengths = lengths.map { $0.sorted() }
        isControl = kinds.map { $0 == .control }
        isEmpty = !begins.contains(true)
        isEmptyWithControl = !beginsWithControl.contains(true)
    }

    func id(of name: UnsafeBufferPointer<UInt8>) -> Int32? { index.id(of: name) }

    /// The first token at or after `start`.
    func firstMatch(in text: UnsafeBufferPointer<UInt8>, from start: Int, includingControl: Bool) -> Match? {
        if includingControl ? isEmptyWithControl : isEmpty { return nil }
        guard let base = text.baseAddress else { return nil }
        return (includingControl ? beginsWithControl : begins).withUnsafeBufferPointer { begins in
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
            let id = index.view.find(base + position, length, hash)
            if id >= 0, includingControl || !isControl[Int(id)] {
                match = Match(start: position, end: position + length, id: id)
            }
        }
        return match
    }
}
