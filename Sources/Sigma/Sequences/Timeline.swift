import Synchronization
import SystemLibrary

/// A sequence's tokens, and the keys and values of as many of them as are stored.
///
/// Exclusive: one piece of work at a time uses it (`TimelineUse`). While nobody does, and memory is scarce, its keys and values may be given
/// up; the tokens stay, and whoever uses it next computes them again.
package final class Timeline: @unchecked Sendable {
    package let sequence: SequenceState
    /// Tells the timelines of a process apart.
    package let number = Timeline.count.add(1, ordering: .relaxed).oldValue
    private static let count = Atomic<Int>(0)
    /// The tokens, of which the first `sequence.length` have keys and values.
    package var tokens: [Int32] = []
    /// Positions whose keys and values came from a file. Nothing proves what a file says, so no other sequence gets them.
    package private(set) var restoredLength = 0
    /// Whether a piece of work, or a caller that saves or changes it, has it now.
    private let inUse = Atomic<Bool>(false)
    /// When it was used last: of idle timelines the oldest is given up first.
    private let lastUse = Atomic<Int>(0)
    private static let uses = Atomic<Int>(0)

    package init(_ sequence: SequenceState) { self.sequence = sequence }

    /// Tokens without keys and values.
    package var missing: ArraySlice<Int32> { tokens[sequence.length...] }

    /// Forgets the tokens from position `count` on.
    package func truncate(to count: Int) {
        sequence.truncate(to: count)
        restoredLength = min(restoredLength, count)
        tokens.removeLast(max(0, tokens.count - count))
    }

    /// Becomes the beginning of another sequence: its first `prefix.length` tokens with their keys and values.
    package func begin(with prefix: SequenceState.Prefix, of tokens: [Int32]) {
        sequence.begin(with: prefix)
        restoredLength = 0
        self.tokens = Array(tokens[..<prefix.length])
    }

    /// Gives up keys and values; the tokens stay.
    package func giveUpBlocks() {
        restoredLength = 0
        sequence.truncate(to: 0)
        sequence.releaseSpare()
    }

    /// Becomes a stored sequence.
    /// - Throws: as `SequenceState.restore`.
    package func restore(
        _ stored: [Int32], _ fill: (_ block: UnsafeMutableRawBufferPointer) throws -> Void
    ) throws {
        tokens = []
        try sequence.restore(length: stored.count, fill)
        tokens = stored
        restoredLength = stored.count
    }

    // MARK: - Use

    /// Waits, for the moment that another thread may need to give its blocks up.
    package func beginUse() {
        while !tryToUse() { sched_yield() }
    }

    package func endUse() {
        lastUse.store(Self.uses.add(1, ordering: .relaxed).newValue, ordering: .relaxed)
        inUse.store(false, ordering: .releasing)
    }

    /// - Returns: false if somebody else uses it.
    package func tryToUse() -> Bool {
        inUse.compareExchange(expected: false, desired: true, ordering: .acquiring).exchanged
    }

    package var age: Int { lastUse.load(ordering: .relaxed) }
}

/// The timelines of an engine, so that idle ones can make room for others. Any thread may call.
package final class TimelineRegistry: Sendable {
    private final class Entry: @unchecked Sendable {
        weak var timeline: Timeline?
        init(_ timeline: Timeline) { self.timeline = timeline }
    }

    private let entries = Mutex<[Entry]>([])

    package init() {}

    package func add(_ timeline: Timeline) {
        entries.withLock { entries in
            entries.removeAll { $0.timeline == nil }
            entries.append(Entry(timeline))
        }
    }

    /// Gives up the keys and values of the timeline that nobody has used for the longest time.
    /// - Returns: false if no idle one holds any.
    package func giveUpOldestIdle() -> Bool {
        let idle = entries.withLock { entries in entries.compactMap(\.timeline) }.sorted { $0.age < $1.age }
        for timeline in idle where timeline.tryToUse() {
            let held = timeline.sequence.byteCount
            if held > 0 { timeline.giveUpBlocks() }
            timeline.releaseUse()
            if held > 0 { return true }
        }
        return false
    }
}

extension Timeline {
    /// The end of a use that does not count as one.
    fileprivate func releaseUse() { inUse.store(false, ordering: .releasing) }
}
