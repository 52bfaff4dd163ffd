import Sigma
import Synchronization
import SystemLibrary

/// A file of records in memory, which fails at will.
final class ScriptedReader: RecordReader {
    enum Fault: Sendable {
        case error
        /// A byte is not what it was.
        case damage
    }

    let bytes: [UInt8]
    /// Called before each read, outside of any lock: (offset, count).
    let onRead = Mutex<(@Sendable (Int, Int) -> Void)?>(nil)
    private let faults = Mutex<[Int: Fault]>([:])
    private let log = Mutex<[(offset: Int, count: Int)]>([])

    init(bytes: [UInt8]) { self.bytes = bytes }

    /// The next read that touches the byte fails so, once.
    func fail(_ fault: Fault, at offset: Int) { faults.withLock { $0[offset] = fault } }
    var reads: [(offset: Int, count: Int)] { log.withLock { $0 } }
    func forgetReads() { log.withLock { $0 = [] } }

    func read(_ count: Int, at offset: Int, into target: UnsafeMutableRawPointer) throws {
        onRead.withLock { $0 }?(offset, count)
        log.withLock { $0.append((offset, count)) }
        let place = faults.withLock { faults in faults.keys.first { (offset..<(offset + count)).contains($0) } }
        let fault = place.flatMap { place in faults.withLock { $0.removeValue(forKey: place) } }
        if case .error? = fault {
            throw SigmaError(.inputOutput, "scripted", path: "scripted", offset: UInt64(offset))
        }
        bytes.withUnsafeBytes {
            target.copyMemory(from: $0.baseAddress! + offset, byteCount: min(count, bytes.count - offset))
        }
        if case .damage? = fault, let place {
            let byte = target + (place - offset)
            byte.storeBytes(of: ~byte.load(as: UInt8.self), as: UInt8.self)
        }
    }
}

/// Records of pages, all different, without a model around them.
struct ScriptedExperts {
    let layers: Int
    let experts: Int
    let recordBytes: Int
    let table: ExpertRecordTable
    let reader: ScriptedReader

    init(layers: Int, experts: Int, choices: Int = 1, pages: Int = 1) {
        self.layers = layers
        self.experts = experts
        recordBytes = pages * 4096
        var random = SplitMix64(state: 17)
        let bytes = (0..<(layers * experts * recordBytes / 8)).flatMap { _ in
            withUnsafeBytes(of: random.next()) { Array($0) }
        }
        let size = recordBytes
        let places = (0..<(layers * experts)).map { record in
            ExpertRecordTable.Place(
                offset: record * size, byteCount: size,
                checksum: bytes[(record * size)..<((record + 1) * size)].withUnsafeBytes {
                    CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[...]))
                })
        }
        table = ExpertRecordTable(
            expertCount: experts, choices: Array(repeating: choices, count: layers), places: places, path: "scripted")
        reader = ScriptedReader(bytes: bytes)
    }

    func cache(slots: Int, policy: EvictionPolicyKind = .lru) throws -> ExpertCache {
        try ExpertCache(table: table, reader: reader, slotCapacity: slots, policy: policy)
    }

    func isRight(_ record: UnsafeRawPointer, layer: Int, expert: Int) -> Bool {
        let first = (layer * experts + expert) * recordBytes
        return reader.bytes.withUnsafeBytes { memcmp($0.baseAddress! + first, record, recordBytes) == 0 }
    }

    /// Uses experts of a layer as the back end does.
    /// - Returns: whether every expert came once, with its own bytes.
    func use(_ wanted: [Int], layer: Int, of cache: ExpertCache) throws -> Bool {
        cache.request(wanted, layer: layer)
        var wave = ExpertWave()
        var seen: [Int] = []
        var isRight = true
        var more = true
        while more {
            more = try cache.take(&wave, waits: true)
            for (expert, record) in zip(wave.experts, wave.records) {
                isRight = isRight && self.isRight(record, layer: layer, expert: expert.index)
            }
            seen += wave.experts.map(\.index)
            cache.release(wave)
        }
        return isRight && seen.sorted() == wanted
    }
}

extension ExpertCache {
    func request(_ experts: [Int], layer: Int) { request(experts.map { Expert($0) }, layer: layer) }
    func prefetch(_ experts: [Int], layer: Int) { prefetch(experts.map { Expert($0) }, layer: layer) }
}

/// Passes reads on; one of them fails.
final class FailingReader: RecordReader {
    private struct State {
        var reader: (any RecordReader)?
        var left: Int?
    }
    private let state = Mutex(State())

    func wrap(_ reader: any RecordReader) throws -> FailingReader {
        state.withLock { $0.reader = reader }
        return self
    }

    /// The read after `count` others fails.
    func failAfter(_ count: Int) { state.withLock { $0.left = count } }

    func read(_ count: Int, at offset: Int, into target: UnsafeMutableRawPointer) throws {
        let (reader, fails) = state.withLock { state in
            let fails = state.left == 0
            state.left = fails ? nil : state.left.map { $0 - 1 }
            return (state.reader!, fails)
        }
        if fails { throw SigmaError(.inputOutput, "injected", path: "injected", offset: UInt64(offset)) }
        try reader.read(count, at: offset, into: target)
    }
}
