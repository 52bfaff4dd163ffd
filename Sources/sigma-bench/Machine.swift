import CMachine
import Sigma
import SigmaCommand
import Synchronization
import SystemLibrary

/// What computes can do at most, measured: of the processor with the threads and the instruction set that the engine uses, or of a device.
struct Machine {
    /// The instruction set, or the device.
    let name: String
    /// Bytes per second that all together read from memory.
    let readBandwidth: Double
    /// Multiply-adds per second of all together, in 8-bit integers and in fp32.
    let int8Peak: Double
    let fp32Peak: Double

    init(_ device: DeviceMeasurement) {
        name = device.name
        readBandwidth = device.readBandwidth
        int8Peak = device.int8Peak
        fp32Peak = device.fp32Peak
    }

    /// Takes about a second.
    ///
    /// - Parameter memory: that it may take for its time.
    /// - Throws: `SigmaError(.unavailable)` if memory or threads cannot be had.
    init(threads: Int, instructionSet: InstructionSet, memory: MeasuringMemory) throws {
        try memory.check()
        let loops = machine_loops_named(instructionSet.name)!.pointee
        name = instructionSet.name
        readBandwidth = try Self.bandwidth(threads, loops, memory.bytes)
        int8Peak = try Self.peak(threads) { loops.int8($0, $1) }
        fp32Peak = try Self.peak(threads) { loops.fp32($0, $1) }
    }

    /// Far larger than any cache.
    private static let wantedBytes = 1 << 29

    private static func bandwidth(_ threads: Int, _ loops: machine_loops, _ memory: Int) throws -> Double {
        let part = min(wantedBytes, memory) / threads / 4096 * 4096
        // What the caches hold is read from there: each level once, of this processor.
        let cache = max(sysconf(Int32(_SC_LEVEL3_CACHE_SIZE)), sysconf(Int32(_SC_LEVEL2_CACHE_SIZE)))
        if part * threads < min(2 * cache, wantedBytes) {
            warn(
                "the read bandwidth is measured with \(ByteSize.text(part * threads)), as the memory limit has no room for more; the processor's caches of \(ByteSize.text(cache)) make it look faster"
            )
        }
        let buffer = try AnonymousMemory(byteCount: part * threads)
        defer { buffer.free() }
        memset(buffer.base, 1, part * threads)
        nonisolated(unsafe) let base = UnsafeRawPointer(buffer.base)
        return try together(threads, rounds: 5) { thread in
            // Nothing is done with the sum; the library's call cannot be left out.
            _ = loops.read(base + thread * part, part)
            return part
        }
    }

    private static func peak(
        _ threads: Int, _ loop: @escaping @Sendable (UInt64, UnsafeMutablePointer<UInt64>) -> UInt64
    ) throws -> Double {
        try together(threads, rounds: 5) { _ in
            var sink: UInt64 = 0
            return Int(loop(2_000_000, &sink))
        }
    }

    /// What `body` returns, from all threads together, per second: the median of some rounds.
    private static func together(
        _ threads: Int, rounds: Int, _ body: @escaping @Sendable (_ thread: Int) -> Int
    ) throws -> Double {
        try (0..<rounds).map { _ in
            let round = Round(threads: threads, body)
            let helpers = try (1..<threads).map { thread in try NativeThread { round.work(thread) } }
            round.work(0)
            for helper in helpers { helper.join() }
            return Double(round.amount.load(ordering: .relaxed)) / (monotonicTime() - round.start)
        }.median
    }

    /// One round: all threads begin together.
    private final class Round: Sendable {
        let body: @Sendable (Int) -> Int
        let missing: Atomic<Int>
        let amount = Atomic<Int>(0)
        /// Bits of the time at which the first thread saw all others.
        let startBits = Atomic<UInt64>(0)

        init(threads: Int, _ body: @escaping @Sendable (Int) -> Int) {
            self.body = body
            missing = Atomic(threads)
        }

        var start: Double { Double(bitPattern: startBits.load(ordering: .relaxed)) }

        func work(_ thread: Int) {
            missing.subtract(1, ordering: .relaxed)
            while missing.load(ordering: .relaxed) > 0 {}
            if thread == 0 { startBits.store(monotonicTime().bitPattern, ordering: .relaxed) }
            amount.add(body(thread), ordering: .relaxed)
        }
    }
}
