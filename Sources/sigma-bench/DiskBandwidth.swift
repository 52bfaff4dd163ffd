import Sigma
import Synchronization

/// What the disk gives when it reads experts as the cache does: whole records, here and there in the file, past the page cache.
struct DiskBandwidth {
    /// Bytes per second.
    let bytesPerSecond: Double
    /// Whether the file system allows direct reads; otherwise the page cache is in between.
    let isDirect: Bool

    private static let recordsPerRound = 64
    private static let rounds = 3

    /// - Parameter memory: that it may take for its time: fewer reads are in flight where that is little.
    /// - Returns: nil for a model without experts.
    /// - Throws: `SigmaError`: `.inputOutput` if the file cannot be read, `.unavailable` if memory ends.
    init?(_ model: ModelFile, memory: MeasuringMemory, seed: UInt64 = 1) throws {
        let places = ExpertRecordTable(model).places.compactMap { $0 }
        guard !places.isEmpty else { return nil }
        let reader = try DirectFileReader(model.gguf.file)
        isDirect = reader.isDirect
        let largest = places.map(\.byteCount).max()!
        let readsInFlight = max(1, min(ExpertCache.readerCount, memory.bytes / largest))
        var random = SplitMix64(state: seed)
        bytesPerSecond = try (0..<Self.rounds).map { _ in
            let chosen = (0..<Self.recordsPerRound).map { _ in places[Int(random.next() % UInt64(places.count))] }
            let round = Round(reader: reader, places: chosen)
            let memory = try AnonymousMemory(byteCount: readsInFlight * largest)
            defer { memory.free() }
            let start = monotonicTime()
            let helpers = try (1..<readsInFlight).map { index in
                try NativeThread { round.work(into: memory.base + index * largest) }
            }
            round.work(into: memory.base)
            for helper in helpers { helper.join() }
            if let failure = round.failure.withLock({ $0 }) { throw failure }
            return Double(chosen.reduce(0) { $0 + $1.byteCount }) / (monotonicTime() - start)
        }.median
    }

    private final class Round: Sendable {
        let reader: DirectFileReader
        let places: [ExpertRecordTable.Place]
        let next = Atomic<Int>(0)
        let failure = Mutex<(any Error)?>(nil)

        init(reader: DirectFileReader, places: [ExpertRecordTable.Place]) {
            self.reader = reader
            self.places = places
        }

        func work(into memory: UnsafeMutableRawPointer) {
            while true {
                let index = next.add(1, ordering: .relaxed).oldValue
                guard index < places.count else { return }
                do {
                    try reader.read(places[index].byteCount, at: places[index].offset, into: memory)
                } catch {
                    failure.withLock { $0 = error }
                    return
                }
            }
        }
    }
}
