/// Which neighbours merge, and into what. Ranks are numbers from 0, the lowest merges first.
protocol MergeRanking {
    /// The rank of the pair of `left` and `right`, which together are the piece's bytes from `start` to `end`; `noRank` if they never merge.
    func rank(start: Int, end: Int, left: Int32, right: Int32) -> Int32
    /// The token that the pair of that rank becomes.
    func token(ofRank rank: Int32) -> Int32
}

private let noRank = Int32.max

/// tiktoken's rule: a pair's rank is the id of its concatenation.
struct ConcatenationRanking: MergeRanking {
    let tokens: TokenIndex.View
    let piece: UnsafePointer<UInt8>
    /// [piece's bytes + 1]: hashes of the piece's beginnings.
    let prefixHashes: UnsafePointer<UInt64>

    @inline(__always)
    func rank(start: Int, end: Int, left: Int32, right: Int32) -> Int32 {
        let count = end - start
        guard count <= tokens.longest else { return noRank }
        let hash = prefixHashes[end] &- prefixHashes[start] &* tokens.powers[count]
        let id = tokens.find(piece + start, count, hash)
        return id < 0 ? noRank : id
    }

    @inline(__always)
    func token(ofRank rank: Int32) -> Int32 { rank }
}

/// Hugging Face's rule: a list of pairs of ids.
final class PairTable: @unchecked Sendable {
    fileprivate struct Slot {
        var left: Int32
        var right: Int32
        var rank: Int32
    }

    struct Ranking: MergeRanking {
        fileprivate let slots: UnsafePointer<Slot>
        fileprivate let mask: Int
        fileprivate let results: UnsafePointer<Int32>

        @inline(__always)
        func rank(start: Int, end: Int, left: Int32, right: Int32) -> Int32 {
            let slot = slots[PairTable.slot(of: left, right, in: slots, mask)]
            return slot.rank < 0 ? noRank : slot.rank
        }

        @inline(__always)
        func token(ofRank rank: Int32) -> Int32 { results[Int(rank)] }
    }

    let ranking: Ranking

    /// What a pair becomes is a token of `tokens`, or else one of `specials`: an added token may be made by merges, too.
    ///
    /// - Throws: `.damaged` for a pair with an id out of range, or without a token for its concatenation.
    init(
        _ pairs: [TokenizerDefinition.Pair], tokens: TokenIndex, specials: SpecialTokens
    ) throws(SigmaError) {
        let bits = max(4, Int.bitWidth - (pairs.count * 3 / 2).leadingZeroBitCount)
        let mask = 1 << bits - 1
        let slots = UnsafeMutablePointer<Slot>.allocate(capacity: mask + 1)
        slots.initialize(repeating: Slot(left: -1, right: -1, rank: -1), count: mask + 1)
        let results = UnsafeMutablePointer<Int32>.allocate(capacity: max(pairs.count, 1))
        ranking = Ranking(slots: slots, mask: mask, results: results)
        let view = tokens.view
        let joined = UnsafeMutablePointer<UInt8>.allocate(capacity: 2 * TokenIndex.longestToken)
        defer { joined.deallocate() }
        for (rank, pair) in pairs.enumerated() {
            let (left, right) = (Int(pair.left), Int(pair.right))
            guard 0..<view.count ~= left, 0..<view.count ~= right else {
                throw SigmaError(
                    .damaged, "merge \(rank) joins ids \(left) and \(right); there are ids 0 to \(view.count - 1)")
            }
            let (leftLength, rightLength) = (view.length(left), view.length(right))
            let length = leftLength + rightLength
            joined.update(from: view.bytes(left), count: leftLength)
            (joined + leftLength).update(from: view.bytes(right), count: rightLength)
            var product: Int32 = -1
            if length <= view.longest {
                let hash = view.hashes[left] &* view.powers[rightLength] &+ view.hashes[right]
                product = view.find(joined, length, hash)
            }
            if product < 0 {
                product = specials.id(of: UnsafeBufferPointer(start: joined, count: length)) ?? -1
            }
            guard product >= 0, leftLength > 0, rightLength > 0 else {
                throw SigmaError(.damaged, "merge \(rank) joins ids \(left) and \(right), which together are no token")
            }
            results[rank] = product
            // Of a pair listed twice the last counts, as in Hugging Face's implementation.
            slots[Self.slot(of: pair.left, pair.right, in: slots, mask)] = Slot(
                left: pair.left, right: pair.right, rank: Int32(rank))
        }
    }

    deinit {
        ranking.slots.deallocate()
        ranking.results.deallocate()
    }

    /// Where the pair is, or the free slot where it belongs.
    @inline(__always)
    private static func slot(of left: Int32, _ right: Int32, in slots: UnsafePointer<Slot>, _ mask: Int) -> Int {
        let key = UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
        var slot = Int(truncatingIfNeeded: TokenIndex.Hash.mix(key &* TokenIndex.Hash.base)) & mask
        while slots[slot].rank >= 0, slots[slot].left != left || slots[slot].right != right { slot = (slot + 1) & mask }
        return slot
    }
}

/// Memory for merging one piece after the other. Arrays have an element per byte of the piece; a part is a token so far.
struct MergeWorkspace: ~Copyable {
    /// Pieces up to this length are merged by scanning for the lowest rank, longer ones with a heap.
    static let longestScan = 160

    private var capacity = 0
    /// [capacity + 1]
    private(set) var prefixHashes = UnsafeMutablePointer<UInt64>.allocate(capacity: 1)
    private var starts = UnsafeMutablePointer<Int32>.allocate(capacity: 1)
    private var ids = UnsafeMutablePointer<Int32>.allocate(capacity: 1)
    private var ranks = UnsafeMutablePointer<Int32>.allocate(capacity: 1)
    private var previous = UnsafeMutablePointer<Int32>.allocate(capacity: 1)
    private var heap = MergeHeap()

    deinit { deallocate() }

    private func deallocate() {
        prefixHashes.deallocate()
        starts.deallocate()
        ids.deallocate()
        ranks.deallocate()
        previous.deallocate()
    }

    /// Room for a piece of `count` bytes.
    mutating func reserve(_ count: Int) {
        guard count > capacity else { return }
        deallocate()
        capacity = max(count, 2 * Self.longestScan)
        prefixHashes = .allocate(capacity: capacity + 1)
        starts = .allocate(capacity: capacity + 1)
        ids = .allocate(capacity: capacity)
        ranks = .allocate(capacity: capacity)
        previous = .allocate(capacity: capacity)
    }

    /// Fills `prefixHashes`.
    func hashPrefixes(_ piece: UnsafePointer<UInt8>, _ count: Int) {
        var hash: UInt64 = 0
        prefixHashes[0] = hash
        for i in 0..<count {
            hash = TokenIndex.Hash.append(piece[i], to: hash)
            prefixHashes[i + 1] = hash
        }
    }

    /// Merges a piece of `count` bytes (not 0, reserved before) and appends its tokens.
    @inline(__always)
    mutating func merge(
        _ piece: UnsafePointer<UInt8>, _ count: Int, byteIDs: UnsafePointer<Int32>, by ranking: some MergeRanking,
        into output: inout [Int32]
    ) {
        if count <= Self.longestScan {
            scan(piece, count, byteIDs, ranking, &output)
        } else {
            mergeByHeap(piece, count, byteIDs, ranking, &output)
        }
    }

    /// O(count^2), the fastest for words. Part i is `starts[i]..<starts[i + 1]`; `ranks[i]` is that of parts i and i + 1.
    @inline(__always)
    private func scan(
        _ piece: UnsafePointer<UInt8>, _ count: Int, _ byteIDs: UnsafePointer<Int32>, _ ranking: some MergeRanking,
        _ output: inout [Int32]
    ) {
        var parts = count
        for i in 0..<count {
            starts[i] = Int32(truncatingIfNeeded: i)
            ids[i] = byteIDs[Int(piece[i])]
        }
        starts[count] = Int32(truncatingIfNeeded: count)
        for i in 0..<count - 1 {
            ranks[i] = ranking.rank(start: i, end: i + 2, left: ids[i], right: ids[i + 1])
        }
        while parts > 1 {
            var lowest = noRank
            var at = 0
            for i in 0..<parts - 1 where ranks[i] < lowest {
                lowest = ranks[i]
                at = i
            }
            if lowest == noRank { break }
            ids[at] = ranking.token(ofRank: lowest)
            for i in at + 1..<parts - 1 {
                starts[i] = starts[i + 1]
                ids[i] = ids[i + 1]
                ranks[i - 1] = ranks[i]
            }
            parts -= 1
            starts[parts] = starts[parts + 1]
            if at + 1 < parts {
                ranks[at] = ranking.rank(
                    start: Int(starts[at]), end: Int(starts[at + 2]), left: ids[at], right: ids[at + 1])
            }
            if at > 0 {
                ranks[at - 1] = ranking.rank(
                    start: Int(starts[at - 1]), end: Int(starts[at + 1]), left: ids[at - 1], right: ids[at])
            }
        }
        for i in 0..<parts { output.append(ids[i]) }
    }

    /// O(count log count). A part is named by its first byte; `starts[part]` is here where the next part begins.
    @inline(__always)
    private mutating func mergeByHeap(
        _ piece: UnsafePointer<UInt8>, _ count: Int, _ byteIDs: UnsafePointer<Int32>, _ ranking: some MergeRanking,
        _ output: inout [Int32]
    ) {
        let next = starts
        for i in 0..<count {
            next[i] = Int32(i + 1)
            previous[i] = Int32(i - 1)
            ids[i] = byteIDs[Int(piece[i])]
        }
        next[count] = Int32(count)
        heap.reserve(2 * count)
        // A rank of `noRank` marks parts that are gone, too: what the heap says about them is stale.
        ranks[count - 1] = noRank
        for i in 0..<count - 1 {
            let rank = ranking.rank(start: i, end: i + 2, left: ids[i], right: ids[i + 1])
            ranks[i] = rank
            if rank != noRank { heap.append(rank, i) }
        }
        heap.order()
        while let (rank, part) = heap.popFirst() {
            guard ranks[part] == rank else { continue }
            let right = Int(next[part])
            let after = Int(next[right])
            ids[part] = ranking.token(ofRank: rank)
            ranks[right] = noRank
            next[part] = Int32(after)
            ranks[part] = noRank
            if after < count {
                previous[after] = Int32(part)
                let rank = ranking.rank(start: part, end: Int(next[after]), left: ids[part], right: ids[after])
                ranks[part] = rank
                if rank != noRank { heap.insert(rank, part) }
            }
            let before = Int(previous[part])
            if before >= 0 {
                let rank = ranking.rank(start: before, end: after, left: ids[before], right: ids[part])
                ranks[before] = rank
                if rank != noRank { heap.insert(rank, before) }
            }
        }
        var part = 0
        while part < count {
            output.append(ids[part])
            part = Int(next[part])
        }
    }
}

/// A binary heap of (rank, part), the lowest rank first, the leftmost part among equals.
private struct MergeHeap: ~Copyable {
    private var keys = UnsafeMutablePointer<UInt64>.allocate(capacity: 1)
    private var capacity = 1
    private var count = 0

    deinit { keys.deallocate() }

    /// Empties the heap and makes room: each merge takes an entry out and puts at most two in.
    mutating func reserve(_ count: Int) {
        self.count = 0
        guard count > capacity else { return }
        keys.deallocate()
        keys = .allocate(capacity: count)
        capacity = count
    }

    /// Adds an entry without order; `order()` follows.
    @inline(__always)
    mutating func append(_ rank: Int32, _ part: Int) {
        keys[count] = Self.key(rank, part)
        count += 1
    }

    mutating func order() {
        var i = count / 2 - 1
        while i >= 0 {
            sink(keys[i], from: i)
            i -= 1
        }
    }

    @inline(__always)
    mutating func insert(_ rank: Int32, _ part: Int) {
        let key = Self.key(rank, part)
        var i = count
        count += 1
        while i > 0 {
            let parent = (i - 1) / 2
            if keys[parent] <= key { break }
            keys[i] = keys[parent]
            i = parent
        }
        keys[i] = key
    }

    @inline(__always)
    mutating func popFirst() -> (rank: Int32, part: Int)? {
        guard count > 0 else { return nil }
        let first = keys[0]
        count -= 1
        if count > 0 { sink(keys[count], from: 0) }
        return (Int32(truncatingIfNeeded: first >> 32), Int(first & 0xffff_ffff))
    }

    @inline(__always)
    private static func key(_ rank: Int32, _ part: Int) -> UInt64 {
        UInt64(truncatingIfNeeded: rank) << 32 | UInt64(truncatingIfNeeded: part)
    }

    /// Puts `key` in the place of entry `start` or below it.
    @inline(__always)
    private func sink(_ key: UInt64, from start: Int) {
        var i = start
        while true {
            var child = 2 * i + 1
            if child >= count { break }
            if child + 1 < count, keys[child + 1] < keys[child] { child += 1 }
            if keys[child] >= key { break }
            keys[i] = keys[child]
            i = child
        }
        keys[i] = key
    }
}
