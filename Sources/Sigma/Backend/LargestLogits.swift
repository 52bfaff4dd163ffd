import CSigma

/// A token and its logit.
package struct TokenLogit: Equatable, Sendable {
    package var id: Int32
    package var logit: Float

    package init(id: Int32, logit: Float) {
        self.id = id
        self.logit = logit
    }
}

/// The largest finite logits of a row among the tokens that may be chosen: the largest first, ties by id. Used again from row to row.
package struct LargestLogits: Sendable {
    package private(set) var list: [TokenLogit] = []

    package init() {}

    /// Logits that are looked at together: so few that what the first ones say of the largest helps with the next.
    package static let tile = 256

    /// The `count` largest of logits [vocabulary].
    package mutating func select(_ count: Int, of logits: UnsafeBufferPointer<Float>, mask: TokenMask) {
        list.removeAll(keepingCapacity: true)
        guard count > 0 else { return }
        withUnsafeTemporaryAllocation(of: Int32.self, capacity: Self.tile) { found in
            for first in stride(from: 0, to: logits.count, by: Self.tile) {
                take(
                    UnsafeBufferPointer(rebasing: logits[first..<min(first + Self.tile, logits.count)]), first: first,
                    allowed: mask.allowsAll ? nil : mask.words, limit: count, found: found.baseAddress!)
            }
        }
    }

    /// Takes in those of some logits that are among the `limit` largest so far, by insertion into a sorted list: `limit` is small, and nearly
    /// every logit is below the list's last.
    ///
    /// - Parameters:
    ///   - logits: of the tokens from `first` on.
    ///   - allowed: bits of all tokens; nil: all may be chosen.
    ///   - found: room for as many numbers as there are logits.
    mutating func take(
        _ logits: UnsafeBufferPointer<Float>, first: Int, allowed: UnsafePointer<UInt64>?, limit: Int,
        found: UnsafeMutablePointer<Int32>
    ) {
        let count = sigma_screen_find(
            logits.baseAddress!, Int32(logits.count), least(of: limit), Int32(first), found)
        for index in 0..<Int(count) {
            let id = Int(found[index])
            if let allowed, allowed[id / 64] >> UInt64(id % 64) & 1 == 0 { continue }
            insert(TokenLogit(id: found[index], logit: logits[id - first]), limit: limit)
        }
    }

    /// Takes one more logit of the row in, in any order of ids; unless it is not finite, or `limit` others come before it.
    package mutating func insert(_ candidate: TokenLogit, limit: Int) {
        func isBefore(_ other: TokenLogit) -> Bool {
            candidate.logit > other.logit || (candidate.logit == other.logit && candidate.id < other.id)
        }
        guard candidate.logit.isFinite else { return }
        if list.count >= limit {
            guard limit > 0, isBefore(list[list.count - 1]) else { return }
            list.removeLast()
        }
        var place = list.count
        while place > 0 && isBefore(list[place - 1]) { place -= 1 }
        list.insert(candidate, at: place)
    }

    /// What a logit must exceed to be among `limit` of them; the lowest number while there are fewer.
    package func least(of limit: Int) -> Float {
        list.count < limit ? -.greatestFiniteMagnitude : list[limit - 1].logit
    }

    package mutating func removeAll() { list.removeAll(keepingCapacity: true) }

    /// All that the mask allows.
    package mutating func sortAll(of logits: UnsafeBufferPointer<Float>, mask: TokenMask) {
        list.removeAll(keepingCapacity: true)
        for (id, logit) in logits.enumerated() where logit.isFinite && mask.allows(id) {
            list.append(TokenLogit(id: Int32(id), logit: logit))
        }
        list.sort { $0.logit > $1.logit || ($0.logit == $1.logit && $0.id < $1.id) }
    }

    package mutating func copy(_ sorted: UnsafeBufferPointer<TokenLogit>) {
        list.removeAll(keepingCapacity: true)
        list.append(contentsOf: sorted)
    }

    /// Takes in the finite logits of these tokens, where they are not listed: `add` brings them into order.
    package mutating func append(_ ids: some Sequence<Int32>, of logits: UnsafeBufferPointer<Float>, mask: TokenMask) {
        for id in ids where logits.indices.contains(Int(id)) && mask.allows(Int(id)) && logits[Int(id)].isFinite {
            if !list.contains(where: { $0.id == id }) { list.append(TokenLogit(id: id, logit: logits[Int(id)])) }
        }
    }

    /// Adds to the logits of some tokens, and orders the list anew.
    package mutating func add(_ additions: LogitAdditions) {
        for index in list.indices { list[index].logit += additions.values[list[index].id] ?? 0 }
        list.sort { $0.logit > $1.logit || ($0.logit == $1.logit && $0.id < $1.id) }
    }
}
