import CSigma

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

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
    private var blocks: [UnsafeMutableRawPointer] = []

    init(kvType: KVType, layerCount: Int, kvHeadCount: Int, headDim: Int) {
        self.kvType = kvType
        self.layerCount = layerCount
        self.kvHeadCount = kvHeadCount
        rowBytes = kvType.rowBytes(headDim: headDim)
    }

    deinit { for block in blocks { free(block) } }

    var blockBytes: Int { layerCount * 2 * kvHeadCount * Self.blockLength * rowBytes }
    var byteCount: Int { blocks.count * blockBytes }

    func truncate(to newLength: Int) { length = min(length, max(0, newLength)) }

    func advance(by count: Int) { length += count }

    /// Makes room for `positions` positions in all.
    func reserve(_ positions: Int) throws {
        while blocks.count * Self.blockLength < positions {
            var block: UnsafeMutableRawPointer?
            guard posix_memalign(&block, 64, blockBytes) == 0, let block else {
                throw SigmaError(
                    .unavailable, "no memory for the key-value cache beyond \(blocks.count * Self.blockLength) tokens",
                    remedy: "Use a shorter context (--context) or --kv-type q8_0.")
            }
            blocks.append(block)
        }
    }

    var blockCount: Int { blocks.count }

    /// One head's keys or values of positions `block * 256 ..< (block + 1) * 256`.
    @inline(__always)
    func rows(block: Int, layer: Int, isValue: Bool, head: Int) -> sigma_kv_rows {
        sigma_kv_rows(
            tiles: blocks[block] + ((layer * 2 + (isValue ? 1 : 0)) * kvHeadCount + head) * Self.blockLength * rowBytes,
            type: kvType.kernelType, next: nil)
    }
}
