import Synchronization

/// Blocks of keys and values on the device, for all sequences of a back end. What a sequence gave back is used again: an allocation would
/// hold up the device.
///
/// Any thread may call.
final class KVBlockPool: KVBlockStore {
    private struct State {
        /// By size: a pool has blocks of at most three sizes.
        var free: [Int: [DeviceMemory]] = [:]
        /// Of the blocks that sequences hold.
        var held: [UInt: DeviceMemory] = [:]
        var heldBytes = 0
        var freeBytes = 0
    }

    let device: CUDADevice
    /// What computes with the blocks.
    private let stream: CUDAStream
    /// What all blocks together may take.
    let limit: Int
    private let state = Mutex(State())

    init(_ device: CUDADevice, _ stream: CUDAStream, limit: Int) {
        self.device = device
        self.stream = stream
        self.limit = limit
    }

    /// Bytes of blocks that sequences hold.
    var heldBytes: Int { state.withLock { $0.heldBytes } }

    func hasRoom(for bytes: Int) -> Bool { heldBytes + bytes <= limit }

    /// - Throws: `SigmaError(.unavailable)` if the limit is reached or the device has no more.
    private func allocate(_ byteCount: Int) throws -> DeviceMemory {
        // What has another size goes, where it is in the way.
        let (block, superfluous): (DeviceMemory?, [DeviceMemory]) = try state.withLock { state in
            guard state.heldBytes + byteCount <= limit else {
                throw SigmaError(
                    .unavailable,
                    "the CUDA device has no room for more keys and values: \(state.heldBytes >> 20) of \(limit >> 20) MiB are used",
                    remedy: .anyOf([
                        .raise(.memory, least: nil), "Shorten the prompt.", "Use fewer sequences at once.",
                        .set(.kvType, to: "q8_0"),
                    ]))
            }
            state.heldBytes += byteCount
            if let block = state.free[byteCount]?.popLast() {
                state.freeBytes -= byteCount
                return (block, [])
            }
            guard state.heldBytes + state.freeBytes > limit else { return (nil, []) }
            let all = state.free.values.flatMap { $0 }
            state.free = [:]
            state.freeBytes = 0
            return (nil, all)
        }
        _ = consume superfluous
        if let block { return block }
        do {
            return try DeviceMemory(device, byteCount: byteCount)
        } catch {
            state.withLock { $0.heldBytes -= byteCount }
            throw device.failure(error, "keys and values")
        }
    }

    func take(_ byteCount: Int) throws -> UInt {
        let memory = try allocate(byteCount)
        let address = UInt(memory.address)
        state.withLock { $0.held[address] = memory }
        return address
    }

    func giveBack(_ address: UInt, byteCount: Int) {
        state.withLock { state in
            guard let block = state.held.removeValue(forKey: address) else { return }
            state.heldBytes -= block.byteCount
            state.freeBytes += block.byteCount
            state.free[block.byteCount, default: []].append(block)
        }
    }

    func copy(_ byteCount: Int, from source: UInt, to target: UInt) throws {
        // Through the host: rare, and no step is running.
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
        defer { buffer.deallocate() }
        try read(buffer, from: source)
        try write(UnsafeRawBufferPointer(buffer), to: target)
    }

    func read(_ bytes: UnsafeMutableRawBufferPointer, from address: UInt) throws {
        try transfer { device throws(CUDAStatus) in
            try device.copy(bytes.count, from: DeviceAddress(address), to: bytes.baseAddress!)
        }
    }

    func write(_ bytes: UnsafeRawBufferPointer, to address: UInt) throws {
        try transfer { device throws(CUDAStatus) in
            try device.copy(bytes.count, from: bytes.baseAddress!, to: DeviceAddress(address))
        }
    }

    private func transfer(_ body: (CUDADevice) throws(CUDAStatus) -> Void) throws {
        do {
            try device.use()
            // A step that was given up may still be writing into blocks that another sequence has by now.
            try stream.synchronize()
            try body(device)
        } catch { throw device.failure(error, "the transfer of keys and values") }
    }
}
