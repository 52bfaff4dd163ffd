import Synchronization

/// Blocks of keys and values on the device, for all sequences of a back end. What a sequence gave back is used again: an allocation would
/// hold up the device.
///
/// Any thread may call.
final class KVBlockPool: Sendable {
    private struct State {
        /// By size: a pool has blocks of at most three sizes.
        var free: [Int: [DeviceMemory]] = [:]
        var heldBytes = 0
        var freeBytes = 0
    }

    let device: CUDADevice
    /// What all blocks together may take.
    let limit: Int
    private let state = Mutex(State())

    init(_ device: CUDADevice, limit: Int) {
        self.device = device
        self.limit = limit
    }

    /// Bytes of blocks that sequences hold.
    var heldBytes: Int { state.withLock { $0.heldBytes } }

    func hasRoom(for bytes: Int) -> Bool { heldBytes + bytes <= limit }

    /// - Throws: `SigmaError(.unavailable)` if the limit is reached or the device has no more.
    func take(_ byteCount: Int) throws -> DeviceMemory {
        // What has another size goes, where it is in the way.
        let (block, superfluous): (DeviceMemory?, [DeviceMemory]) = try state.withLock { state in
            guard state.heldBytes + byteCount <= limit else {
                throw SigmaError(
                    .unavailable,
                    "the CUDA device has no room for more keys and values: \(state.heldBytes >> 20) of \(limit >> 20) MiB are used",
                    remedy: "Use more memory (--memory), a shorter prompt, fewer sequences at once, or --kv-type q8_0.")
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

    func giveBack(_ blocks: [DeviceMemory]) {
        state.withLock { state in
            for block in blocks {
                state.heldBytes -= block.byteCount
                state.freeBytes += block.byteCount
                state.free[block.byteCount, default: []].append(block)
            }
        }
    }
}
