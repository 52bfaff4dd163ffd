import Sigma
import Synchronization

/// Blocks of keys and values that a test looks into: counts what is taken and given back, and fails at will.
final class MemoryBlockStore: KVBlockStore {
    private struct State {
        var live: [UInt: Int] = [:]
        var takenBytes = 0
        /// Operations that succeed before one fails; nil: none fails.
        var successesLeft: Int?
        var misuse: String?
    }

    private let state = Mutex(State())

    /// Blocks that are taken now, with their sizes.
    var live: [UInt: Int] { state.withLock { $0.live } }
    /// Bytes that were taken since the store was made.
    var takenBytes: Int { state.withLock { $0.takenBytes } }
    /// What should not have been asked for; nil: nothing.
    var misuse: String? { state.withLock { $0.misuse } }

    /// The operation after so many fails, once; nil: none fails.
    func fail(after successes: Int?) { state.withLock { $0.successesLeft = successes } }

    private func countDown() throws {
        try state.withLock { state in
            guard let left = state.successesLeft else { return }
            state.successesLeft = left > 0 ? left - 1 : nil
            if left == 0 { throw SigmaError(.unavailable, "the test's memory has ended") }
        }
    }

    func take(_ byteCount: Int) throws -> UInt {
        try countDown()
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
        // Whoever counts on zeros is found out.
        memory.initializeMemory(as: UInt8.self, repeating: 0xcd)
        let address = UInt(bitPattern: memory.baseAddress!)
        state.withLock { state in
            state.live[address] = byteCount
            state.takenBytes += byteCount
        }
        return address
    }

    func giveBack(_ address: UInt, byteCount: Int) {
        let wasLive = state.withLock { state in
            let size = state.live.removeValue(forKey: address)
            if size != byteCount { state.misuse = "\(byteCount) bytes came back of a block of \(size ?? 0)" }
            return size != nil
        }
        if wasLive { UnsafeMutableRawPointer(bitPattern: address)!.deallocate() }
    }

    func copy(_ byteCount: Int, from source: UInt, to target: UInt) throws {
        try countDown()
        bytes(target, byteCount).copyMemory(from: UnsafeRawBufferPointer(bytes(source, byteCount)))
    }

    func read(_ bytes: UnsafeMutableRawBufferPointer, from address: UInt) throws {
        try countDown()
        bytes.copyMemory(from: UnsafeRawBufferPointer(self.bytes(address, bytes.count)))
    }

    func write(_ bytes: UnsafeRawBufferPointer, to address: UInt) throws {
        try countDown()
        self.bytes(address, bytes.count).copyMemory(from: bytes)
    }

    private func bytes(_ address: UInt, _ count: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: UnsafeMutableRawPointer(bitPattern: address), count: count)
    }
}
