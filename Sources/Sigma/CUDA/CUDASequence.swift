import CCUDA
import SystemLibrary

/// Keys and values of one sequence on the device, in blocks of 256 positions that come from a pool as the sequence grows.
///
/// A block is [layer][key, value][kvHead] times 16 tiles of 16 positions (`sigma_cuda.h`). Kernels find the blocks by a table of addresses.
final class CUDASequence: SequenceState, @unchecked Sendable {
    let kvType: KVType
    let blockBytes: Int
    private let pool: KVBlockPool
    /// Heads of keys and of values, of all layers.
    private let headCount: Int
    private let kvHeadCount: Int
    private let headDim: Int
    private let tileBytes: Int
    private(set) var length = 0
    private var blocks: [DeviceMemory] = []
    /// Addresses of the blocks, and room for more.
    private var table: DeviceMemory?
    private static let tableEntries = 512
    private static let tileLength = 16
    private static let tilesPerBlock = KVCache.blockLength / tileLength

    init(kvType: KVType, _ c: ModelConfiguration, pool: KVBlockPool) {
        self.kvType = kvType
        self.pool = pool
        headCount = c.layerCount * 2 * c.kvHeadCount
        kvHeadCount = c.kvHeadCount
        headDim = c.headDim
        tileBytes = Int(sigma_cuda_kv_tile_bytes(kvType.kernelType, Int32(c.headDim)))
        blockBytes = Self.blockBytes(kvType, c)
    }

    deinit { pool.giveBack(blocks) }

    static func blockBytes(_ type: KVType, _ c: ModelConfiguration) -> Int {
        c.layerCount * 2 * c.kvHeadCount * Int(sigma_cuda_kv_bytes(type.kernelType, Int32(c.headDim)))
    }

    var byteCount: Int { blocks.count * blockBytes }
    var tableAddress: DeviceAddress { table?.address ?? 0 }

    func truncate(to newLength: Int) { length = min(length, max(0, newLength)) }
    func advance(by count: Int) { length += count }

    /// Bytes of the blocks that are missing for `positions` positions in all.
    func growth(to positions: Int) -> Int {
        max(0, (positions + KVCache.blockLength - 1) / KVCache.blockLength - blocks.count) * blockBytes
    }

    /// Makes room for `positions` positions in all. No step that uses the sequence may be running.
    func reserve(_ positions: Int) throws {
        let device = pool.device
        let before = blocks.count
        while blocks.count * KVCache.blockLength < positions { blocks.append(try pool.take(blockBytes)) }
        guard blocks.count > before || table == nil else { return }
        do {
            try device.use()
            var first = before
            if (table?.byteCount ?? 0) / 8 < blocks.count {
                let entries = max(Self.tableEntries, 2 * blocks.count)
                table = try DeviceMemory(device, byteCount: entries * 8)
                first = 0
            }
            let addresses = blocks[first...].map(\.address)
            if !addresses.isEmpty {
                try device.copy(addresses.count * 8, from: addresses, to: table!.address + DeviceAddress(first * 8))
            }
        } catch {
            // What the table does not name is not the sequence's.
            pool.giveBack(Array(blocks[before...]))
            blocks.removeLast(blocks.count - before)
            if before == 0 { table = nil }
            throw device.failure(error, "keys and values")
        }
    }
}

// Storing: the tiles that the positions fill, head by head.
extension CUDASequence {
    var storedLayout: String { "cuda-tiles16" }

    func storedBlockSizes(length: Int) -> [Int] {
        stride(from: 0, to: length, by: KVCache.blockLength).map { start in
            headCount * storedHeadBytes(positions: min(KVCache.blockLength, length - start))
        }
    }

    private func storedHeadBytes(positions: Int) -> Int {
        (positions + Self.tileLength - 1) / Self.tileLength * tileBytes
    }

    func forEachStoredBlock(_ body: (_ bytes: UnsafeRawBufferPointer) throws -> Void) throws {
        let whole = UnsafeMutableRawBufferPointer.allocate(byteCount: blockBytes, alignment: 64)
        defer { whole.deallocate() }
        for (index, size) in storedBlockSizes(length: length).enumerated() {
            try transfer { device throws(CUDAStatus) in
                try device.copy(blockBytes, from: blocks[index].address, to: whole.baseAddress!)
            }
            let positions = min(KVCache.blockLength, length - index * KVCache.blockLength)
            let headBytes = storedHeadBytes(positions: positions)
            for head in 0..<headCount {
                let stored = UnsafeMutableRawBufferPointer(
                    rebasing: whole[head * headBytes..<(head + 1) * headBytes])
                // Towards the front: what is moved has been read.
                let source = whole.baseAddress! + head * Self.tilesPerBlock * tileBytes
                memmove(stored.baseAddress!, source, headBytes)
                if positions % Self.tileLength > 0 {
                    clear(
                        UnsafeMutableRawBufferPointer(rebasing: stored.suffix(tileBytes)),
                        from: positions % Self.tileLength, isValue: head / kvHeadCount % 2 == 1)
                }
            }
            try body(UnsafeRawBufferPointer(rebasing: whole[..<size]))
        }
    }

    func restore(length newLength: Int, _ fill: (_ block: UnsafeMutableRawBufferPointer) throws -> Void) throws {
        truncate(to: 0)
        try reserve(newLength)
        let whole = UnsafeMutableRawBufferPointer.allocate(byteCount: blockBytes, alignment: 64)
        defer { whole.deallocate() }
        for (index, size) in storedBlockSizes(length: newLength).enumerated() {
            let positions = min(KVCache.blockLength, newLength - index * KVCache.blockLength)
            let headBytes = storedHeadBytes(positions: positions)
            try fill(UnsafeMutableRawBufferPointer(rebasing: whole[..<size]))
            // From the last head on: what lies behind has been moved.
            for head in (0..<headCount).reversed() {
                memmove(
                    whole.baseAddress! + head * Self.tilesPerBlock * tileBytes, whole.baseAddress! + head * headBytes,
                    headBytes)
            }
            try transfer { device throws(CUDAStatus) in
                try device.copy(blockBytes, from: whole.baseAddress!, to: blocks[index].address)
            }
        }
        advance(by: newLength)
    }

    /// Zeros a tile's positions from `first` on: what is there was forgotten, or never written.
    private func clear(_ tile: UnsafeMutableRawBufferPointer, from first: Int, isValue: Bool) {
        let type = kvType.kernelType
        let dim = Int32(headDim)
        let elementBytes =
            switch kvType {
            case .f32: 4
            case .f16: 2
            case .q8_0: 1
            }
        func zero(_ offset: Int32, _ count: Int) { for byte in 0..<count { tile[Int(offset) + byte] = 0 } }
        for position in Int32(first)..<Int32(Self.tileLength) {
            for component in 0..<sigma_cuda_padded(dim) {
                zero(sigma_cuda_kv_offset(type, dim, isValue ? 1 : 0, position, component), elementBytes)
            }
            guard kvType == .q8_0 else { continue }
            for component in stride(from: 0, to: dim, by: 32) {
                zero(sigma_cuda_kv_scale_offset(dim, position, component), 2)
            }
        }
    }

    private func transfer(_ body: (CUDADevice) throws(CUDAStatus) -> Void) throws {
        let device = pool.device
        do {
            try device.use()
            try body(device)
        } catch { throw device.failure(error, "the transfer of keys and values") }
    }
}
