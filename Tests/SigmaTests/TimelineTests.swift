import Sigma
import Testing

/// Timelines that are not in use give up their keys and values, the one that was used longest ago first; the tokens stay.
@Suite struct TimelineTests {
    private static func timeline(_ store: MemoryBlockStore, length: Int) throws -> Timeline {
        let tile = KVTileLayout(
            name: "test", byteCount: 16, elementBytes: 1, width: 1, offset: { _, position, _ in position },
            scaleOffset: nil)
        let timeline = Timeline(
            SequenceState(layout: KVBlockLayout(type: .f16, tile: tile, layerCount: 1, kvHeadCount: 1), store: store))
        timeline.beginUse()
        try timeline.sequence.reserve(length)
        timeline.sequence.advance(by: length)
        timeline.tokens = (0..<Int32(length)).map { $0 }
        timeline.endUse()
        return timeline
    }

    @Test func theOneUsedLongestAgoGoesFirst() throws {
        let store = MemoryBlockStore()
        let registry = TimelineRegistry()
        let timelines = try (0..<4).map { _ in try Self.timeline(store, length: 300) }
        // The order of adding must not matter.
        for index in [2, 0, 3, 1] { registry.add(timelines[index]) }
        for index in [1, 3, 0, 2] {
            timelines[index].beginUse()
            timelines[index].endUse()
        }
        for index in [1, 3, 0, 2] {
            #expect(registry.giveUpOldestIdle())
            #expect(timelines[index].sequence.blockCount == 0)
            #expect(timelines[index].tokens.count == 300 && timelines[index].missing.count == 300)
        }
        #expect(store.live.isEmpty)
        #expect(!registry.giveUpOldestIdle())
    }

    @Test func whoIsInUseOrGoneGivesNothing() throws {
        let store = MemoryBlockStore()
        let registry = TimelineRegistry()
        let used = try Self.timeline(store, length: 10)
        let idle = try Self.timeline(store, length: 10)
        var gone: Timeline? = try Self.timeline(store, length: 10)
        weak let memory = gone
        for timeline in [used, idle, gone!] { registry.add(timeline) }
        gone = nil
        #expect(memory == nil, "the registry keeps timelines")
        used.beginUse()
        #expect(!used.tryToUse())
        #expect(registry.giveUpOldestIdle() && idle.sequence.blockCount == 0)
        #expect(!registry.giveUpOldestIdle() && used.sequence.length == 10)
        used.endUse()
        #expect(registry.giveUpOldestIdle() && used.sequence.length == 0)
        // To give up is no use: it can be had at once.
        #expect(used.tryToUse() && idle.tryToUse())
    }

    @Test func forgettingTokensForgetsTheirKeysAndValues() throws {
        let store = MemoryBlockStore()
        let timeline = try Self.timeline(store, length: 300)
        timeline.truncate(to: 257)
        #expect(timeline.tokens.count == 257 && timeline.sequence.length == 257 && timeline.missing.isEmpty)
        timeline.giveUpBlocks()
        timeline.truncate(to: 20)
        #expect(timeline.tokens == Array(0..<20) && timeline.sequence.length == 0)
        #expect(Array(timeline.missing) == Array(0..<20))
    }
}
