import CSigma
import Sigma
import Testing

/// Quantized matrices: ggml's blocks to packed groups and back, their values, and products with them at every level.
@Suite struct PackedMatrixTests {
    static let types = WeightType.allCases.filter(\.isQuantized)
    /// Types whose values are computed here once more; the others' are held to the gguf package's (`QuantizerTests`).
    private static let own: [WeightType] = [.q8_0, .q6_k, .q4_k, .q4_0]

    /// A matrix of random ggml blocks: every bit pattern of quants and scales, fp16 factors of ordinary size and either sign.
    struct Blocks {
        let type: WeightType
        let rows: Int
        let columns: Int
        var bytes: [UInt8]

        init(_ type: WeightType, rows: Int, columns: Int, seed: UInt64) {
            var random = SplitMix64(state: seed)
            (self.type, self.rows, self.columns) = (type, rows, columns)
            bytes = (0..<rows * type.rowBytes(columns)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            let factors: [Int] =
                switch type {
                case .q6_k: [208]
                case .q4_k, .q5_k, .q4_1, .q5_1: [0, 2]
                case .q3_k: [108]
                case .q2_k: [80, 82]
                case .mxfp4: []
                default: [0]
                }
            for block in stride(from: 0, to: bytes.count, by: type.blockBytes) {
                for offset in factors {
                    let factor = Float16(random.nextUnit() * 0.02 - 0.01)
                    withUnsafeBytes(of: factor.bitPattern) {
                        bytes.replaceSubrange(block + offset..<block + offset + 2, with: $0)
                    }
                }
                if type == .mxfp4 { bytes[block] = UInt8(118 + block % 5) }
            }
        }

        /// Packed: whole groups, in memory of 64-byte alignment.
        func packed() -> UnsafeMutableRawBufferPointer {
            let memory = UnsafeMutableRawBufferPointer.allocate(
                byteCount: type.matrixBytes(rows: rows, columns: columns), alignment: 64)
            memory.initializeMemory(as: UInt8.self, repeating: 0xa5)
            bytes.withUnsafeBytes { blocks in
                for first in stride(from: 0, to: rows, by: 16) {
                    sigma_pack_group(
                        Int32(type.rawValue), blocks.baseAddress! + first * type.rowBytes(columns),
                        Int32(min(16, rows - first)), columns,
                        memory.baseAddress! + type.matrixBytes(rows: first, columns: columns))
                }
            }
            return memory
        }

        /// [rows, columns], each weight as ggml defines it.
        var values: [Float] {
            guard PackedMatrixTests.own.contains(type) else { return dequantized }
            return bytes.withUnsafeBytes { bytes in
                stride(from: 0, to: bytes.count, by: type.blockBytes).flatMap {
                    Self.values(UnsafeRawBufferPointer(rebasing: bytes[$0..<$0 + type.blockBytes]), type)
                }
            }
        }

        private var dequantized: [Float] {
            let packed = packed()
            defer { packed.deallocate() }
            var values = [Float](repeating: .nan, count: rows * columns)
            values.withUnsafeMutableBufferPointer { values in
                for row in 0..<rows {
                    sigma_dequantize_row(
                        Int32(type.rawValue),
                        packed.baseAddress! + type.matrixBytes(rows: row / 16 * 16, columns: columns), Int32(row % 16),
                        columns, values.baseAddress! + row * columns)
                }
            }
            return values
        }

        private static func values(_ b: UnsafeRawBufferPointer, _ type: WeightType) -> [Float] {
            func half(_ offset: Int) -> Float {
                Float(Float16(bitPattern: b.loadUnaligned(fromByteOffset: offset, as: UInt16.self)))
            }
            switch type {
            case .q8_0: return (0..<32).map { half(0) * Float(Int8(bitPattern: b[2 + $0])) }
            case .q4_0:
                return (0..<32).map { column in
                    let nibble: UInt8 = column < 16 ? b[2 + column] & 15 : b[2 + column - 16] >> 4
                    return half(0) * Float(Int(nibble) - 8)
                }
            case .q4_k: return (0..<256).map { q4K(b, $0, d: half(0), dmin: half(2)) }
            default: return (0..<256).map { q6K(b, $0, d: half(208)) }
            }
        }

        private static func q4K(_ b: UnsafeRawBufferPointer, _ column: Int, d: Float, dmin: Float) -> Float {
            let n = column / 32
            var scale = b[4 + n] & 63
            var minimum = n < 4 ? b[8 + n] & 63 : b[8 + n] >> 4
            if n >= 4 {
                scale = (b[8 + n] & 15) | ((b[n] >> 6) << 4)
                minimum |= (b[4 + n] >> 6) << 4
            }
            let byte = b[16 + column / 64 * 32 + column % 32]
            let quant = n % 2 == 0 ? byte & 15 : byte >> 4
            let factor = d * Float(scale)
            return factor * Float(quant) - dmin * Float(minimum)
        }

        private static func q6K(_ b: UnsafeRawBufferPointer, _ column: Int, d: Float) -> Float {
            let (part, inPart) = (column / 128, column % 128)
            let byte = b[64 * part + inPart % 64]
            let low = inPart < 64 ? byte & 15 : byte >> 4
            let high = (b[128 + 32 * part + inPart % 32] >> UInt8(2 * (inPart / 32))) & 3
            let quant = Int(low | (high << 4)) - 32
            let factor = d * Float(Int8(bitPattern: b[192 + column / 16]))
            return factor * Float(quant)
        }
    }

    @Test(arguments: types) func packingKeepsEveryBit(type: WeightType) {
        for (rows, columns) in [(16, 256), (21, 768), (1, 512)] {
            let blocks = Blocks(type, rows: rows, columns: columns, seed: 5)
            let packed = blocks.packed()
            defer { packed.deallocate() }
            #expect(packed.count % 64 == 0)
            var back = [UInt8](repeating: 0, count: blocks.bytes.count)
            back.withUnsafeMutableBytes { back in
                // In uneven pieces.
                var row = 0
                while row < rows {
                    let count = min(16 - row % 16, rows - row, 5)
                    sigma_unpack_group(
                        Int32(type.rawValue),
                        packed.baseAddress! + type.matrixBytes(rows: row / 16 * 16, columns: columns), Int32(row % 16),
                        Int32(count), columns, back.baseAddress! + row * type.rowBytes(columns))
                    row += count
                }
            }
            #expect(back == blocks.bytes)
        }
    }

    @Test func groupsAreAsLargeAsTheirBlocks() {
        for type in Self.types where type != .q3_k && type != .iq4_xs {
            #expect(type.groupBytes(1536) == 16 * type.rowBytes(1536))
        }
        // Their six-bit scales are bytes here.
        #expect(WeightType.q3_k.groupBytes(1536) == 16 * (WeightType.q3_k.rowBytes(1536) + 6 * 4))
        #expect(WeightType.iq4_xs.groupBytes(1536) == 16 * (WeightType.iq4_xs.rowBytes(1536) + 6 * 2))
        // An odd number of blocks is filled up to a whole cache line.
        #expect(WeightType.q4_0.groupBytes(32) == 320 && WeightType.q8_0.groupBytes(96) == 1664)
    }

    @Test(arguments: own) func rowsHaveExactlyGGMLsValues(type: WeightType) {
        let blocks = Blocks(type, rows: 19, columns: 512, seed: 6)
        let packed = blocks.packed()
        defer { packed.deallocate() }
        for row in 0..<19 {
            var values = [Float](repeating: .nan, count: 512)
            sigma_dequantize_row(
                Int32(type.rawValue), packed.baseAddress! + type.matrixBytes(rows: row / 16 * 16, columns: 512),
                Int32(row % 16), 512, &values)
            let expected = blocks.values[512 * row..<512 * row + 512]
            #expect(values.map(\.bitPattern) == expected.map(\.bitPattern))
        }
    }

    @Test(arguments: KernelTests.levels, types) func productsMatchTheScalarTwin(level: String, type: WeightType) throws
    {
        let kernels = try KernelTests.kernels(level)
        for (n, k, m) in [(1, 256, 1), (16, 256, 2), (37, 1536, 3), (5, 512, 9), (32, 768, 17)] {
            let blocks = Blocks(type, rows: n, columns: k, seed: UInt64(n * k))
            let packed = blocks.packed()
            defer { packed.deallocate() }
            let weights = blocks.values.map(Double.init)
            let rows = KernelTests.Rows(m, k, seed: UInt64(m), kernels)
            var y = [Float](repeating: .nan, count: m * n)
            rows.with(index: nil) {
                kernels.matmul_packed(
                    Int32(type.rawValue), packed.baseAddress, Int32(n), Int32(k), &$0, Int32(m), &y, n)
            }
            for i in 0..<m {
                for j in 0..<n {
                    var (exact, norm) = (0.0, 0.0)
                    for c in 0..<k {
                        let product =
                            weights[j * k + c] * Double(rows.quant(i, c))
                            * Double(rows.blocks[(i * k + c) / 32].scale)
                        exact += product
                        norm += abs(product)
                    }
                    // Integer sums are exact. Factors are rounded three times, a block adds at most four rounded products and sums; with a minimum
                    // apart from the scale the two parts may be larger than their difference.
                    let hasMinimum: Set<WeightType> = [.q4_k, .q5_k, .q2_k, .q4_1, .q5_1]
                    let parts = hasMinimum.contains(type) ? 40.0 : 1.0
                    let bound = (Double(k / 32 * 4) + 8) * KernelTests.unit * norm * parts
                    #expect(
                        abs(Double(y[i * n + j]) - exact) <= bound, "n \(n) k \(k) m \(m): \(y[i * n + j]) \(exact)")
                }
            }
        }
    }

    /// The largest quants of either sign, where 16-bit sums of pairs could saturate.
    @Test(arguments: KernelTests.levels, own) func extremeQuantsDoNotSaturate(level: String, type: WeightType) throws {
        let kernels = try KernelTests.kernels(level)
        for (fill, quant) in [
            (UInt8(0x80), Int8(-127)), (0x80, 127), (0x7f, 127), (0xff, -127), (0xff, 127), (0, -127),
        ] {
            var blocks = Blocks(type, rows: 16, columns: 256, seed: 1)
            for place in blocks.bytes.indices {
                let inBlock = place % type.blockBytes
                switch type {
                case .q8_0, .q4_0: blocks.bytes[place] = inBlock == 0 ? 0 : inBlock == 1 ? 0x3c : fill
                case .q4_k: blocks.bytes[place] = inBlock < 4 ? [0, 0x3c, 0, 0][inBlock] : inBlock < 16 ? 0x41 : fill
                default: blocks.bytes[place] = inBlock < 192 ? fill : inBlock < 208 ? 1 : [0, 0x3c][inBlock - 208]
                }
            }
            let packed = blocks.packed()
            defer { packed.deallocate() }
            var rows = KernelTests.Rows(1, 256, seed: 1, kernels)
            let sum = Int32(quant) * 16
            var block = sigma_activation_block()
            withUnsafeMutableBytes(of: &block.q) {
                $0.copyBytes(from: repeatElement(UInt8(bitPattern: quant), count: 32))
            }
            (block.scale, block.scaled_sum, block.both, block.first) = (1, Float(2 * sum), -16 * sum, -8 * sum)
            rows.blocks = Array(repeating: block, count: 8)
            var y = [Float](repeating: .nan, count: 16)
            rows.with(index: nil) {
                kernels.matmul_packed(Int32(type.rawValue), packed.baseAddress, 16, 256, &$0, 1, &y, 16)
            }
            let values = blocks.values
            for j in 0..<16 {
                #expect(y[j] == values[256 * j..<256 * j + 256].reduce(0, +) * Float(quant))
            }
        }
    }

    /// Tiles, batches and indices must not change a bit.
    @Test(arguments: KernelTests.levels, types) func productsDoNotDependOnBatchOrTile(
        level: String, type: WeightType
    ) throws {
        let kernels = try KernelTests.kernels(level)
        let (n, k, m) = (43, 256, 19)
        let packed = Blocks(type, rows: n, columns: k, seed: 3).packed()
        defer { packed.deallocate() }
        let rows = KernelTests.Rows(m, k, seed: 5, kernels)
        let index = (0..<19).map { Int32($0 * 7 % 19) } + [3, 3]
        func product(first: Int, count: Int, rowList: [Int32]) -> [Float] {
            var y = [Float](repeating: .nan, count: rowList.count * count)
            rows.with(index: rowList) { a in
                kernels.matmul_packed(
                    Int32(type.rawValue), packed.baseAddress! + type.matrixBytes(rows: first, columns: k), Int32(count),
                    Int32(k), &a, Int32(rowList.count), &y, count)
            }
            return y
        }
        let whole = product(first: 0, count: n, rowList: index)
        #expect(whole.allSatisfy { $0.isFinite })
        for first in [0, 16, 32] {
            for count in Set([1, 7, min(16, n - first), n - first]) {
                for batch in 1...8 {
                    for position in stride(from: 0, to: index.count - batch + 1, by: batch) {
                        let part = product(
                            first: first, count: count, rowList: Array(index[position..<position + batch]))
                        for i in 0..<batch {
                            let begin = (position + i) * n + first
                            #expect(Array(part[i * count..<(i + 1) * count]) == Array(whole[begin..<begin + count]))
                        }
                    }
                }
            }
        }
    }
}
