import CSigma
import Sigma

/// Blocks of standard normal weights, quantized once by the real quantizer: what synthetic matrices are made of.
///
/// A quantized block times a factor is its scales times the factor, and its negative is its scales negated: so one pool serves matrices of
/// any scale, and with a random sign for each use every weight has the mean zero exactly.
final class BlockPool: @unchecked Sendable {
    /// Weights of a pool: so many that blocks of the same pick are rare, so few that they stay near the processor.
    private static let weightCount = 1 << 22
    /// Weights of a block of a float type.
    private static let floatBlockLength = 256
    /// Weights that one thread makes at a time.
    private static let pieceLength = 1 << 14

    let type: WeightType
    /// Weights of a block; rows are whole numbers of blocks.
    let blockLength: Int
    private let blockBytes: Int
    /// A power of two.
    private let blockCount: Int
    /// Blocks in ggml's form; of float types: fp32 values.
    private let blocks: UnsafeMutableRawBufferPointer
    /// Where a block has its fp16 scales.
    private let scaleOffsets: [Int]
    /// Root mean square of all weights as the blocks hold them.
    private let scale: Double

    init(_ type: WeightType, _ random: SyntheticRandom, threads: Int) throws {
        self.type = type
        blockLength = type.isQuantized ? type.blockLength : Self.floatBlockLength
        blockBytes = type.isQuantized ? type.blockBytes : 4 * Self.floatBlockLength
        blockCount = Self.weightCount / blockLength
        scaleOffsets = type.scaleOffsets
        blocks = UnsafeMutableRawBufferPointer.allocate(byteCount: blockCount * blockBytes, alignment: 64)
        let pieces = Self.weightCount / Self.pieceLength
        let pieceBytes = Self.pieceLength / blockLength * blockBytes
        let squares = UnsafeMutableBufferPointer<Double>.allocate(capacity: pieces)
        defer { squares.deallocate() }
        let made = Made(blocks: blocks, squares: squares)
        try Workers.forEach(pieces, threads: threads) { index in
            made.squares[index] = Self.fill(made.blocks.baseAddress! + index * pieceBytes, type, random.part(index))
        }
        scale = (squares.reduce(0, +) / Double(Self.weightCount)).squareRoot()
    }

    deinit { blocks.deallocate() }

    /// Each member of the team writes its own places.
    private struct Made: @unchecked Sendable {
        let blocks: UnsafeMutableRawBufferPointer
        let squares: UnsafeMutableBufferPointer<Double>
    }

    /// Makes the blocks of one piece.
    /// - Returns: the sum of the weights' squares as the blocks hold them.
    private static func fill(_ target: UnsafeMutableRawPointer, _ type: WeightType, _ random: SyntheticRandom) -> Double
    {
        withUnsafeTemporaryAllocation(of: Float.self, capacity: pieceLength) { row in
            random.fillNormal(row)
            if type.isQuantized {
                let tooLarge = Quantizer.encode(row.baseAddress!, rows: 1, columns: pieceLength, as: type, to: target)
                precondition(tooLarge == nil, "normal numbers fit any type")
                withUnsafeTemporaryAllocation(byteCount: type.groupBytes(pieceLength), alignment: 64) { group in
                    let number = Int32(type.rawValue)
                    sigma_pack_group(number, target, 1, pieceLength, group.baseAddress!)
                    sigma_dequantize_row(number, group.baseAddress!, 0, pieceLength, row.baseAddress!)
                }
            } else {
                target.copyMemory(from: row.baseAddress!, byteCount: 4 * pieceLength)
            }
            return row.reduce(0) { $0 + Double($1) * Double($1) }
        }
    }

    /// Writes `count` blocks in a row, in ggml's form of `type`: weights with the root mean square `deviation`. Block i is
    /// picked, and its sign is chosen, by number `first + i`.
    func write(
        _ count: Int, _ random: SyntheticRandom, first: Int, deviation: Double, to target: UnsafeMutableRawPointer
    ) {
        let factor = Float(deviation / scale)
        for i in 0..<count {
            let number = random[first + i]
            let block = blocks.baseAddress! + Int(number >> 32) & (blockCount - 1) * blockBytes
            let signed = number & 1 == 0 ? factor : -factor
            switch type {
            case .f32: Self.scaled(block, signed, target + i * blockLength * 4) { $0.bitPattern }
            case .f16: Self.scaled(block, signed, target + i * blockLength * 2, FloatBits.f16)
            case .bf16: Self.scaled(block, signed, target + i * blockLength * 2, FloatBits.bf16)
            default:
                let out = target + i * blockBytes
                out.copyMemory(from: block, byteCount: blockBytes)
                for offset in scaleOffsets {
                    let value = FloatBits.float(f16: block.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
                    out.storeBytes(of: FloatBits.f16(value * signed), toByteOffset: offset, as: UInt16.self)
                }
            }
        }
    }

    @inline(__always) private static func scaled<Bits: FixedWidthInteger & BitwiseCopyable>(
        _ block: UnsafeMutableRawPointer, _ factor: Float, _ target: UnsafeMutableRawPointer, _ encode: (Float) -> Bits
    ) {
        let values = block.assumingMemoryBound(to: Float.self)
        for j in 0..<floatBlockLength {
            target.storeBytes(
                of: encode(values[j] * factor), toByteOffset: j * MemoryLayout<Bits>.size, as: Bits.self)
        }
    }
}

/// A matrix of blocks from a pool: computed on demand, always the same.
struct SyntheticMatrix: MatrixSource {
    let pool: BlockPool
    let random: SyntheticRandom
    /// Root mean square of the weights.
    let deviation: Double

    var type: WeightType { pool.type }

    func bytes(rows: Range<Int>, columns: Int, scratch: UnsafeMutableRawPointer) -> UnsafeRawPointer {
        let perRow = columns / pool.blockLength
        pool.write(
            rows.count * perRow, random, first: rows.lowerBound * perRow, deviation: deviation, to: scratch)
        return UnsafeRawPointer(scratch)
    }

    func release(rows: Range<Int>, columns: Int) {}
    func failure(_ message: String) -> SigmaError { SigmaError(.unavailable, message, item: "synthetic weights") }
}

/// A small matrix that is held in memory, in bf16.
struct StoredMatrix: MatrixSource {
    private let bits: [UInt16]

    init(_ values: [Float]) { bits = values.map(FloatBits.bf16) }

    var type: WeightType { .bf16 }

    func bytes(rows: Range<Int>, columns: Int, scratch: UnsafeMutableRawPointer) -> UnsafeRawPointer {
        bits.withUnsafeBytes {
            scratch.copyMemory(
                from: $0.baseAddress! + 2 * rows.lowerBound * columns, byteCount: 2 * rows.count * columns)
        }
        return UnsafeRawPointer(scratch)
    }

    func release(rows: Range<Int>, columns: Int) {}
    func failure(_ message: String) -> SigmaError { SigmaError(.unavailable, message, item: "synthetic weights") }
}
