import CSigma

extension KVType {
    /// The kernels' number for the type.
    var kernelType: Int32 {
        switch self {
        case .f32: Int32(SIGMA_F32)
        case .f16: Int32(SIGMA_F16)
        case .q8_0: Int32(SIGMA_Q8_0)
        }
    }

    /// Bytes of one head's keys (or values) at one position.
    package func rowBytes(headDim: Int) -> Int { sigma_kv_tile_bytes(kernelType, Int32(headDim)) / 16 }
}

/// Keys and values of one sequence, in blocks of 256 positions that are allocated as the sequence grows.
///
/// A block is [layer][key, value][kvHead] times 16 tiles of 16 positions, as the kernels want them: attention reads one head's positions
/// in a row.
final class KVCache: SequenceState, @unchecked Sendable {
    static let blockLength = 256

    let kvType: KVType
    let rowBytes: Int
    private let layerCount: Int
    private let kvHeadCount: Int
    private(set) var length = 0
    private var blocks: [AnonymousMemory] = []
    /// Counts the blocks; nil: nobody does.
    private let budget: MemoryBudget?

    init(kvType: KVType, layerCount: Int, kvHeadCount: Int, headDim: Int, budget: MemoryBudget? = nil) {
        self.budget = budget
        self.kvType = kvType
        self.layerCount = layerCount
        self.kvHeadCount = kvHeadCount
        rowBytes = kvType.rowBytes(headDim: headDim)
    }

    deinit {
        for block in blocks { block.free() }
        budget?.add(kvBytes: -byteCount)
    }

    var blockBytes: Int { layerCount * 2 * kvHeadCount * Self.blockLength * rowBytes }
    var byteCount: Int { blocks.count * blockBytes }

    func truncate(to newLength: Int) { length = min(length, max(0, newLength)) }

    func advance(by count: Int) { length += count }

    /// Bytes of the blocks that are missing for `positions` positions in all.
    func growth(to positions: Int) -> Int {
        max(0, (positions + Self.blockLength - 1) / Self.blockLength - blocks.count) * blockBytes
    }

    /// Makes room for `positions` positions in all.
    func reserve(_ positions: Int) throws {
        while blocks.count * Self.blockLength < positions {
            guard let block = try? AnonymousMemory(byteCount: blockBytes, hugePages: true) else {
                throw SigmaError(
                    .unavailable, "no memory for the key-value cache beyond \(blocks.count * Self.blockLength) tokens",
                    remedy: "Use a shorter context (--context) or --kv-type q8_0.")
            }
            blocks.append(block)
            budget?.add(kvBytes: blockBytes)
        }
    }

    var blockCount: Int { blocks.count }

    /// One head's keys or values of positions `block * 256 ..< (block + 1) * 256`.
    @inline(__always)
    func rows(block: Int, layer: Int, isValue: Bool, head: Int) -> sigma_kv_rows {
        sigma_kv_rows(
            tiles: blocks[block].base + ((layer * 2 + (isValue ? 1 : 0)) * kvHeadCount + head) * Self.blockLength
                * rowBytes,
            type: kvType.kernelType, next: nil)
    }
}

// Storing: the tiles that the positions fill, head by head.
extension KVCache {
    private static let tileLength = 16

    var storedLayout: String { kvType == .q8_0 ? "tiles16-pairs" : "tiles16" }

    func storedBlockSizes(length: Int) -> [Int] {
        stride(from: 0, to: length, by: Self.blockLength).map { start in
            layerCount * 2 * kvHeadCount * storedHeadBytes(positions: min(Self.blockLength, length - start))
        }
    }

    /// Bytes of one head's keys (or values) at the first `positions` positions of a block.
    private func storedHeadBytes(positions: Int) -> Int {
        (positions + Self.tileLength - 1) / Self.tileLength * Self.tileLength * rowBytes
    }

    func forEachStoredBlock(_ body: (_ bytes: UnsafeRawBufferPointer) throws -> Void) throws {
        var buffer: [UInt8] = []
        for (index, size) in storedBlockSizes(length: length).enumerated() {
            let positions = min(Self.blockLength, length - index * Self.blockLength)
            if positions == Self.blockLength {
                try body(UnsafeRawBufferPointer(start: blocks[index].base, count: size))
                continue
            }
            let headBytes = storedHeadBytes(positions: positions)
            buffer = [UInt8](repeating: 0, count: size)
            try buffer.withUnsafeMutableBytes { buffer in
                for head in 0..<layerCount * 2 * kvHeadCount {
                    let stored = UnsafeMutableRawBufferPointer(
                        rebasing: buffer[head * headBytes..<(head + 1) * headBytes])
                    stored.copyMemory(
                        from: UnsafeRawBufferPointer(
                            start: blocks[index].base + head * Self.blockLength * rowBytes, count: headBytes))
                    let isValue = head / kvHeadCount % 2 == 1
                    if positions % Self.tileLength > 0 {
                        clear(
                            UnsafeMutableRawBufferPointer(rebasing: stored.suffix(Self.tileLength * rowBytes)),
                            from: positions % Self.tileLength, isValue: isValue)
                    }
                }
                try body(UnsafeRawBufferPointer(buffer))
            }
        }
    }

    /// Zeros a tile's positions from `first` on: what is there was forgotten, or never written.
    private func clear(_ tile: UnsafeMutableRawBufferPointer, from first: Int, isValue: Bool) {
        // The tile as its kernels have it (sigma_kernels.h). A q8_0 row has 1/16 of its width in scales behind the tile's elements.
        let length = Self.tileLength
        let elementBytes =
            switch kvType {
            case .f32: 4
            case .f16: 2
            case .q8_0: 1
            }
        let width = kvType == .q8_0 ? rowBytes * 16 / 17 : rowBytes / elementBytes
        func zero(element index: Int, bytes: Int) {
            for byte in index * bytes..<(index + 1) * bytes { tile[byte] = 0 }
        }
        for position in first..<length {
            for component in 0..<width {
                let index =
                    switch (kvType, isValue) {
                    case (.q8_0, true): position / 2 * 2 * width + component * 2 + position % 2
                    case (.q8_0, false): component / 2 * 2 * length + position * 2 + component % 2
                    case (_, true): position * width + component
                    case (_, false): component * length + position
                    }
                zero(element: index, bytes: elementBytes)
            }
            guard kvType == .q8_0 else { continue }
            for group in 0..<width / 32 { zero(element: length * width / 2 + group * length + position, bytes: 2) }
        }
    }

    func restore(length newLength: Int, _ fill: (_ block: UnsafeMutableRawBufferPointer) throws -> Void) throws {
        truncate(to: 0)
        try reserve(newLength)
        for (index, size) in storedBlockSizes(length: newLength).enumerated() {
            let positions = min(Self.blockLength, newLength - index * Self.blockLength)
            if positions == Self.blockLength {
                try fill(UnsafeMutableRawBufferPointer(start: blocks[index].base, count: size))
                continue
            }
            let headBytes = storedHeadBytes(positions: positions)
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 64)
            defer { buffer.deallocate() }
            try fill(buffer)
            for head in 0..<layerCount * 2 * kvHeadCount {
                (blocks[index].base + head * Self.blockLength * rowBytes).copyMemory(
                    from: buffer.baseAddress! + head * headBytes, byteCount: headBytes)
            }
        }
        advance(by: newLength)
    }
}
