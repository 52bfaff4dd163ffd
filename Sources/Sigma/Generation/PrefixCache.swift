import Synchronization

/// Who may share the beginning of a sequence with whom.
package struct PrefixSharing: Sendable, Hashable {
    /// Only requests with the same salt share; nil is a salt of its own.
    package let salt: ByteKey?

    package init(salt: String? = nil) { self.salt = salt.map { ByteKey(text: $0) } }
}

/// What of a sequence is kept for others.
package enum PrefixKeeping: Sendable {
    case nothing
    /// The prompt, once it was read.
    case prompt
    /// And in the end all of it: the next request of a conversation begins with it.
    case promptAndAnswer
}

/// Beginnings of sequences, kept with their tokens for requests that begin with the same ones. Any thread may call.
///
/// An entry holds blocks of keys and values that sequences and other entries may hold, too. It costs the blocks that no other entry holds, and
/// its scores. Above the limit the entry with the least priority is evicted: the cache's clock at its last use, plus the share of its bytes that
/// stored tokens fill (GreedyDual-Size; Cao and Irani, 1997). Every position of a model saves about as many seconds per byte, so the fill is the
/// seconds saved per byte. The clock is the priority that was evicted last: what is not used again ages.
package final class PrefixCache: Sendable {
    /// What a request need not compute.
    package struct Match: Sendable {
        package var prefix: SequenceState.Prefix
        /// Where prompt positions are wanted: those of the prefix.
        package var positions: [PromptPosition]
    }

    package struct Usage: Sendable, Equatable {
        package var entries = 0
        package var bytes = 0
        /// Tokens of requests that looked, and of them those that were found.
        package var queriedTokens = 0
        package var foundTokens = 0
        package var evictions = 0
    }

    /// Log-probabilities of a prompt's positions, from the first on.
    package struct Scores: Sendable {
        package var positions: [PromptPosition]
        /// Likeliest tokens at each.
        package var topCount: Int

        package init(positions: [PromptPosition], topCount: Int) {
            self.positions = positions
            self.topCount = topCount
        }

        /// An array's header, and 16 bytes for each token.
        fileprivate var byteCount: Int { positions.count * (72 + 16 * topCount) }
    }

    private struct Entry {
        var tokens: [Int32]
        var prefix: SequenceState.Prefix
        var kvType: KVType
        var sharing: PrefixSharing
        var scores: Scores?
        var priority = 0.0
    }

    private struct State {
        var entries: [Entry] = []
        /// Entries that hold a block, by its address.
        var holders: [UInt: Int] = [:]
        var clock = 0.0
        var usage = Usage()
    }

    /// Bytes that entries may hold.
    package let byteLimit: Int
    /// Entries at most: a search looks at each.
    package static let entryLimit = 4096
    private let state = Mutex(State())

    package init(byteLimit: Int) { self.byteLimit = byteLimit }

    package var usage: Usage { state.withLock { $0.usage } }

    // MARK: - Finding

    /// The longest beginning of `tokens` that is there; at least the last token is left to compute.
    ///
    /// - Parameter topCount: of every position the log-probabilities of so many tokens are wanted, too; nil: none are.
    package func longest(
        of tokens: [Int32], kvType: KVType, sharing: PrefixSharing, topCount: Int?
    ) -> Match? {
        state.withLock { state in
            state.usage.queriedTokens += tokens.count
            var best: (index: Int, length: Int)?
            for (index, entry) in state.entries.enumerated() where entry.kvType == kvType && entry.sharing == sharing {
                let length = Self.usable(entry, for: tokens, topCount: topCount)
                if length > (best?.length ?? 0) { best = (index, length) }
            }
            guard let (index, length) = best else { return nil }
            state.usage.foundTokens += length
            state.entries[index].priority = state.clock + Self.fill(state.entries[index])
            let entry = state.entries[index]
            let positions = topCount.map { count in
                entry.scores!.positions[..<length].map { position in
                    PromptPosition(next: position.next, top: Array(position.top.prefix(count)))
                }
            }
            return Match(prefix: entry.prefix.prefix(length), positions: positions ?? [])
        }
    }

    /// Tokens of the entry that the request need not compute.
    private static func usable(_ entry: Entry, for tokens: [Int32], topCount: Int?) -> Int {
        var limit = min(entry.tokens.count, tokens.count - 1)
        if let topCount {
            guard let scores = entry.scores, scores.topCount >= topCount else { return 0 }
            // The last one's next token was not known.
            limit = min(limit, scores.positions.count - 1)
        }
        var common = 0
        while common < limit, entry.tokens[common] == tokens[common] { common += 1 }
        // A position's log-probability is that of the token after it, which must be the same one.
        if topCount != nil, common > 0, common >= entry.tokens.count || entry.tokens[common] != tokens[common] {
            common -= 1
        }
        return common
    }

    // MARK: - Keeping

    /// Keeps the beginning of a sequence: `tokens` and the blocks of their keys and values.
    package func insert(
        _ tokens: [Int32], _ prefix: SequenceState.Prefix, kvType: KVType, sharing: PrefixSharing, scores: Scores?
    ) {
        precondition(prefix.length == tokens.count)
        guard !tokens.isEmpty, prefix.byteCount <= byteLimit else { return }
        state.withLock { state in
            var new = Entry(tokens: tokens, prefix: prefix, kvType: kvType, sharing: sharing, scores: scores)
            for index in state.entries.indices.reversed() {
                let old = state.entries[index]
                guard old.kvType == kvType, old.sharing == sharing else { continue }
                if old.tokens.count >= tokens.count, old.tokens.starts(with: tokens),
                    (old.scores?.positions.count ?? 0, old.scores?.topCount ?? 0)
                        >= (scores?.positions.count ?? 0, scores?.topCount ?? 0)
                {
                    // All of it is there already.
                    state.entries[index].priority = state.clock + Self.fill(old)
                    return
                }
                guard tokens.starts(with: old.tokens) else { continue }
                // The new one has all of the old one; scores of the beginning stay true.
                if new.scores == nil { new.scores = old.scores }
                Self.remove(index, &state)
            }
            new.priority = state.clock + Self.fill(new)
            Self.hold(new, &state)
            state.entries.append(new)
            while state.usage.bytes > byteLimit || state.entries.count > Self.entryLimit { Self.evict(&state) }
            state.usage.entries = state.entries.count
        }
    }

    /// Evicts the entry of least priority.
    /// - Returns: false if there is none.
    package func evictOne() -> Bool {
        state.withLock { state in
            guard !state.entries.isEmpty else { return false }
            Self.evict(&state)
            return true
        }
    }

    package func removeAll() { while evictOne() {} }

    private static func evict(_ state: inout State) {
        let index = state.entries.indices.min { state.entries[$0].priority < state.entries[$1].priority }!
        state.clock = max(state.clock, state.entries[index].priority)
        remove(index, &state)
        state.usage.evictions += 1
    }

    // MARK: - Bytes

    /// Share of the entry's bytes that its tokens fill.
    private static func fill(_ entry: Entry) -> Double {
        Double(entry.tokens.count) / Double(max(1, entry.prefix.blockCount) * KVBlockLayout.length)
    }

    private static func hold(_ entry: Entry, _ state: inout State) {
        entry.prefix.forEachBlock { address, byteCount in
            let before = state.holders[address, default: 0]
            state.holders[address] = before + 1
            if before == 0 { state.usage.bytes += byteCount }
        }
        state.usage.bytes += overhead(entry)
    }

    private static func remove(_ index: Int, _ state: inout State) {
        let entry = state.entries.remove(at: index)
        entry.prefix.forEachBlock { address, byteCount in
            let left = state.holders[address, default: 1] - 1
            state.holders[address] = left == 0 ? nil : left
            if left == 0 { state.usage.bytes -= byteCount }
        }
        state.usage.bytes -= overhead(entry)
        state.usage.entries = state.entries.count
    }

    private static func overhead(_ entry: Entry) -> Int { 4 * entry.tokens.count + (entry.scores?.byteCount ?? 0) }
}
