import SampleFiles
import Testing

@testable import Sigma

/// What is kept of sequences, found, and evicted; with sequences of the CPU back end's blocks that nothing was computed for.
@Suite struct PrefixCacheTests {
    private let backend: CPUBackend
    private let blockBytes: Int

    init() throws {
        backend = try CPUBackend(model: SmallModel.file(), threadCount: 1)
        blockBytes = try backend.makeSequence(kvType: .f16).layout.byteCount
    }

    private func prefix(_ count: Int) throws -> SequenceState.Prefix {
        let sequence = try backend.makeSequence(kvType: .f16)
        try sequence.reserve(count)
        sequence.advance(by: count)
        return sequence.prefix(count)
    }

    private func keep(
        _ tokens: [Int32], in cache: PrefixCache, salt: String? = nil, scores: PrefixCache.Scores? = nil
    ) throws {
        cache.insert(
            tokens, try prefix(tokens.count), kvType: .f16, sharing: PrefixSharing(salt: salt), scores: scores)
    }

    private func found(_ tokens: [Int32], in cache: PrefixCache, salt: String? = nil, topCount: Int? = nil) -> Int {
        cache.longest(of: tokens, kvType: .f16, sharing: PrefixSharing(salt: salt), topCount: topCount)?.prefix.length
            ?? 0
    }

    private static func tokens(_ count: Int, from first: Int32 = 0) -> [Int32] { (0..<Int32(count)).map { first + $0 } }

    @Test func theLongestIsFoundToTheToken() throws {
        let cache = PrefixCache(byteLimit: 100 * blockBytes)
        try keep(Self.tokens(300), in: cache)
        try keep(Self.tokens(100) + [7, 7, 7], in: cache)
        #expect(found(Self.tokens(1000), in: cache) == 300)
        #expect(found(Self.tokens(100) + [7, 7, 9], in: cache) == 102)
        #expect(found(Self.tokens(50) + [9], in: cache) == 50)
        #expect(found([9], in: cache) == 0)
        #expect(found(Self.tokens(300), in: cache) == 299, "the last token's logits are wanted")
    }

    @Test func othersSaltsAndTypesAreNotShared() throws {
        let cache = PrefixCache(byteLimit: 100 * blockBytes)
        try keep(Self.tokens(10), in: cache, salt: "a")
        #expect(found(Self.tokens(20), in: cache, salt: "a") == 10)
        #expect(found(Self.tokens(20), in: cache) == 0)
        #expect(found(Self.tokens(20), in: cache, salt: "b") == 0)
        #expect(
            cache.longest(of: Self.tokens(20), kvType: .q8_0, sharing: PrefixSharing(salt: "a"), topCount: nil) == nil)
    }

    /// A longer one takes the place of its own beginning; a shorter one adds nothing.
    @Test func beginningsAreNotKeptTwice() throws {
        let cache = PrefixCache(byteLimit: 100 * blockBytes)
        try keep(Self.tokens(10), in: cache)
        try keep(Self.tokens(30), in: cache)
        try keep(Self.tokens(20), in: cache)
        #expect(cache.usage.entries == 1)
        #expect(found(Self.tokens(40), in: cache) == 30)
    }

    /// Blocks that entries share are counted once.
    @Test func bytesAreThoseOfDistinctBlocks() throws {
        let cache = PrefixCache(byteLimit: 100 * blockBytes)
        let sequence = try backend.makeSequence(kvType: .f16)
        try sequence.reserve(256)
        sequence.advance(by: 256)
        let shared = PrefixSharing()
        let base = Self.tokens(256)
        cache.insert(base, sequence.prefix(256), kvType: .f16, sharing: shared, scores: nil)
        for last in 1000..<1003 as Range<Int32> {
            let branch = try backend.makeSequence(kvType: .f16)
            branch.begin(with: sequence.prefix(256))
            try branch.reserve(257)
            branch.advance(by: 1)
            cache.insert(base + [last], branch.prefix(257), kvType: .f16, sharing: shared, scores: nil)
        }
        #expect(cache.usage.entries == 3)
        #expect(cache.usage.bytes == 4 * blockBytes + 3 * 257 * 4)
        cache.removeAll()
        #expect(cache.usage.bytes == 0 && cache.usage.entries == 0)
    }

    /// Of entries alike the one that was used longest ago goes; a nearly empty block goes before a full one.
    @Test func evictionOrder() throws {
        let cache = PrefixCache(byteLimit: 4 * blockBytes)
        for first in [0, 1000, 2000] as [Int32] { try keep(Self.tokens(250, from: first), in: cache) }
        #expect(found(Self.tokens(251), in: cache) == 250)
        // The fourth takes what is left; with the fifth one must go.
        try keep(Self.tokens(250, from: 3000), in: cache)
        try keep(Self.tokens(250, from: 4000), in: cache)
        #expect(cache.usage.bytes <= cache.byteLimit && cache.usage.evictions > 0)
        #expect(found(Self.tokens(251, from: 4000), in: cache) == 250)
        let few = PrefixCache(byteLimit: 3 * blockBytes)
        try keep(Self.tokens(250), in: few)
        try keep(Self.tokens(3, from: 1000), in: few)
        try keep(Self.tokens(250, from: 2000), in: few)
        #expect(found(Self.tokens(251), in: few) == 250 && found(Self.tokens(251, from: 2000), in: few) == 250)
        #expect(found(Self.tokens(4, from: 1000), in: few) == 0)
    }

    @Test func whatIsLargerThanTheCacheIsNotKept() throws {
        let cache = PrefixCache(byteLimit: blockBytes)
        try keep(Self.tokens(300), in: cache)
        #expect(cache.usage.entries == 0)
        #expect(!cache.evictOne())
    }

    /// A position's log-probability is known where the token after it is the same.
    @Test func scoresServeWhereTheNextTokenIsTheSame() throws {
        let cache = PrefixCache(byteLimit: 100 * blockBytes)
        let tokens = Self.tokens(10)
        func position(_ index: Int) -> PromptPosition {
            PromptPosition(
                next: index + 1 < 10 ? TokenLogProbability(id: tokens[index + 1], logProbability: -Double(index)) : nil,
                top: [TokenLogProbability(id: 1, logProbability: -1), TokenLogProbability(id: 2, logProbability: -2)])
        }
        try keep(tokens, in: cache, scores: .init(positions: (0..<10).map(position), topCount: 2))
        #expect(found(tokens, in: cache, topCount: 2) == 9)
        #expect(found(tokens + [3], in: cache, topCount: 2) == 9, "what follows the last was not known")
        #expect(found(Self.tokens(5) + [99, 99], in: cache, topCount: 1) == 4)
        #expect(found(tokens, in: cache, topCount: 3) == 0)
        let match = try #require(cache.longest(of: tokens, kvType: .f16, sharing: PrefixSharing(), topCount: 1))
        #expect(match.positions.map(\.next?.logProbability) == (0..<9).map { -Double($0) })
        #expect(match.positions.allSatisfy { $0.top.count == 1 })
        // A longer one that nobody scored keeps them.
        try keep(tokens + [50, 51], in: cache)
        #expect(cache.usage.entries == 1)
        #expect(found(tokens + [50], in: cache, topCount: 2) == 9)
        #expect(found(tokens + [50], in: cache) == 10)
    }
}
