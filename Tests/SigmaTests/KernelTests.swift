import CSigma
import Sigma
import Testing

/// Every kernel of every level against a scalar twin in fp64, with bounds derived from operand norms and rounding units; and
/// the promise that an element does not depend on what is computed beside it.
@Suite struct KernelTests {
    /// Rounding unit of fp32.
    static let unit = 0x1p-24
    static var levels: [String] { InstructionSet.all.map(\.name) }

    static func kernels(_ level: String) throws -> sigma_kernels {
        try #require(sigma_kernels_named(level)).pointee
    }

    /// Uneven values in -1...1, some of them zero.
    static func values(_ count: Int, seed: UInt64, scale: Float = 1) -> [Float] {
        var random = SplitMix64(state: seed)
        return (0..<count).map { index in
            let value = Float(random.nextUnit() * 2 - 1) * scale
            return index % 37 == 5 ? 0 : value * (index % 11 == 3 ? 0.01 : 1)
        }
    }

    static func bf16(_ value: Float) -> UInt16 { UInt16(truncatingIfNeeded: value.bitPattern >> 16) }

    static let SIGMA_Q8_0_TYPE = Int32(SIGMA_Q8_0)

    /// Activation rows in all forms that kernels read.
    struct Rows {
        var values: [Float]
        var blocks: [sigma_activation_block]
        let width: Int

        /// The 8-bit value at `column` of `row`.
        func quant(_ row: Int, _ column: Int) -> Int {
            withUnsafeBytes(of: blocks[row * (width / 32) + column / 32].q) { Int(Int8(bitPattern: $0[column % 32])) }
        }

        init(_ count: Int, _ width: Int, seed: UInt64, _ kernels: sigma_kernels) {
            self.width = width
            values = KernelTests.values(count * width, seed: seed, scale: 3)
            blocks = Array(repeating: .init(), count: count * (width / 32))
            guard width % 32 == 0 else { return }
            for row in 0..<count {
                blocks.withUnsafeMutableBufferPointer { b in
                    values.withUnsafeBufferPointer { x in
                        kernels.quantize_activations(
                            x.baseAddress! + row * width, b.baseAddress! + row * (width / 32), Int32(width))
                    }
                }
            }
        }

        func with<R>(index: [Int32]?, _ body: (inout sigma_activations) -> R) -> R {
            values.withUnsafeBufferPointer { v in
                blocks.withUnsafeBufferPointer { b in
                    (index ?? []).withUnsafeBufferPointer { i in
                        var activations = sigma_activations(
                            values: v.baseAddress, value_stride: width, blocks: b.baseAddress, block_stride: width / 32,
                            index: index == nil ? nil : i.baseAddress)
                        return body(&activations)
                    }
                }
            }
        }
    }

    @Test(arguments: levels) func quantizedActivationsAreNearest(level: String) throws {
        let kernels = try Self.kernels(level)
        let rows = Rows(3, 96, seed: 1, kernels)
        for (index, x) in rows.values.enumerated() {
            let scale = rows.blocks[index / 32].scale
            let quant = rows.quant(index / 96, index % 96)
            #expect(abs(quant) <= 127)
            #expect(
                abs(Double(x) - Double(quant) * Double(scale)) <= Double(scale) * 0.5
                    * (1 + 256 * Self.unit))
        }
        for (index, block) in rows.blocks.enumerated() {
            let halves = [0, 16].map { first in
                (0..<16).reduce(0) { $0 + rows.quant(index / 3, index % 3 * 32 + first + $1) }
            }
            #expect(Int(block.first) == -8 * halves[0] && Int(block.both) == -8 * (halves[0] + halves[1]))
            #expect(block.scaled_sum == block.scale * Float(halves[0] + halves[1]))
        }
        var block = sigma_activation_block()
        kernels.quantize_activations([Float](repeating: 0, count: 32), &block, 32)
        #expect(withUnsafeBytes(of: block) { $0.allSatisfy { $0 == 0 } })
        // What is not a number must not become one.
        for place in 0..<32 {
            var broken = Self.values(32, seed: 3)
            broken[place] = place % 2 == 0 ? .nan : -.nan
            kernels.quantize_activations(broken, &block, 32)
            #expect(block.scale.isNaN)
        }
    }

    @Test(arguments: levels) func floatProductsMatchTheScalarTwin(level: String) throws {
        let kernels = try Self.kernels(level)
        for (n, k, m) in [(1, 1, 1), (5, 40, 2), (7, 1536, 1), (4, 97, 3), (9, 256, 5)] {
            let source = Self.values(n * k, seed: UInt64(n + k))
            let rows = Rows(m, k, seed: UInt64(m), kernels)
            let forms: [(Int32, [UInt8], [Double])] = [
                (Int32(SIGMA_F32), source.withUnsafeBytes(Array.init), source.map(Double.init)),
                (
                    Int32(SIGMA_BF16), source.map(Self.bf16).withUnsafeBytes(Array.init),
                    source.map { Double(Float(bitPattern: UInt32(Self.bf16($0)) << 16)) }
                ),
                (
                    Int32(SIGMA_F16), source.map { Float16($0).bitPattern }.withUnsafeBytes(Array.init),
                    source.map { Double(Float16($0)) }
                ),
            ]
            for (type, bytes, weights) in forms {
                var y = [Float](repeating: .nan, count: m * n)
                rows.with(index: nil) { kernels.matmul_float(bytes, type, Int32(n), Int32(k), &$0, Int32(m), &y, n) }
                for i in 0..<m {
                    for j in 0..<n {
                        var (exact, norm) = (0.0, 0.0)
                        for c in 0..<k {
                            let product = weights[j * k + c] * Double(rows.values[i * k + c])
                            exact += product
                            norm += abs(product)
                        }
                        #expect(
                            abs(Double(y[i * n + j]) - exact) <= Double(k + 1) * Self.unit * norm, "type \(type) k \(k)"
                        )
                    }
                }
            }
        }
    }

    /// Tiles, batches and indices must not change a bit.
    @Test(arguments: levels) func productsDoNotDependOnBatchOrTile(level: String) throws {
        let kernels = try Self.kernels(level)
        let (n, k, m) = (11, 160, 7)
        let floats = Self.values(n * k, seed: 4)
        let rows = Rows(m, k, seed: 5, kernels)
        let index: [Int32] = [6, 0, 3, 3, 5, 1, 2]
        func product(first: Int, count: Int, rowList: [Int32]) -> [Float] {
            var y = [Float](repeating: .nan, count: rowList.count * count)
            rows.with(index: rowList) { a in
                floats.withUnsafeBytes {
                    kernels.matmul_float(
                        $0.baseAddress! + first * k * 4, Int32(SIGMA_F32), Int32(count), Int32(k), &a,
                        Int32(rowList.count), &y, count)
                }
            }
            return y
        }
        let whole = product(first: 0, count: n, rowList: index)
        for (position, row) in index.enumerated() {
            for first in 0..<n {
                for count in 1...min(5, n - first) {
                    let part = product(first: first, count: count, rowList: [row])
                    #expect(part == Array(whole[(position * n + first)..<(position * n + first + count)]))
                }
            }
        }
    }

    @Test(arguments: levels) func wideningIsExact(level: String) throws {
        let kernels = try Self.kernels(level)
        // Every fp16 value, in a length that leaves a tail.
        let halves = (0..<UInt16.max).map { $0 }
        var wide = [Float](repeating: 0, count: halves.count)
        kernels.widen(halves, Int32(SIGMA_F16), &wide, Int32(halves.count))
        for (bits, value) in zip(halves, wide) {
            let expected = Float(Float16(bitPattern: bits))
            #expect(value == expected || (value.isNaN && expected.isNaN))
        }
        let brains = Self.values(45, seed: 9).map(Self.bf16)
        var fromBrain = [Float](repeating: 0, count: 45)
        kernels.widen(brains, Int32(SIGMA_BF16), &fromBrain, 45)
        #expect(fromBrain == brains.map { Float(bitPattern: UInt32($0) << 16) })
    }

    @Test(arguments: levels) func normRopeAndSiluMatchTheScalarTwin(level: String) throws {
        let kernels = try Self.kernels(level)
        for n in [1, 40, 96, 1536] {
            let (x, w) = (Self.values(n, seed: 1, scale: 5), Self.values(n, seed: 2))
            var y = [Float](repeating: 0, count: n)
            kernels.rms_norm(x, w, 1e-6, &y, Int32(n))
            let mean = x.reduce(0) { $0 + Double($1) * Double($1) } / Double(n)
            for i in 0..<n {
                let exact = Double(x[i]) / (mean + 1e-6).squareRoot() * Double(w[i])
                #expect(abs(Double(y[i]) - exact) <= Double(n + 8) * Self.unit * abs(exact))
            }
        }
        let angles = Self.values(24, seed: 3, scale: 3).map(Double.init)
        let (cosines, sines) = (angles.map { Float(cosine($0)) }, angles.map { Float(cosine($0 - .pi / 2)) })
        let before = Self.values(48, seed: 4)
        var rotated = before
        kernels.rope(&rotated, cosines, sines, 24)
        for i in 0..<24 {
            let (a, b) = (Double(before[i]), Double(before[i + 24]))
            let bound = 4 * Self.unit * (abs(a) + abs(b))
            #expect(abs(Double(rotated[i]) - (a * Double(cosines[i]) - b * Double(sines[i]))) <= bound)
            #expect(abs(Double(rotated[i + 24]) - (b * Double(cosines[i]) + a * Double(sines[i]))) <= bound)
        }
        let gates: [Float] = [-200, -88, -20, -1, -1e-6, 0, 1e-6, 0.5, 1, 10, 87, 200, 3, -3, 0.1, -0.1, 42]
        let ups = Self.values(gates.count, seed: 5)
        var gated = [Float](repeating: 0, count: gates.count)
        kernels.silu_multiply(gates, ups, &gated, Int32(gates.count))
        for i in gates.indices {
            let gate = Double(gates[i])
            let exact = gate / (1 + exponential(-gate)) * Double(ups[i])
            // Below e^-87 the sigmoid is flushed towards zero.
            #expect(abs(Double(gated[i]) - exact) <= 0x1p-20 * abs(exact) + 1e-35)
        }
    }

    /// Keys or values of successive positions, stored by the kernel; what is behind the last one is not a number.
    final class CachedRows {
        var rows: sigma_kv_rows

        init(_ source: [Float], _ dim: Int, _ type: Int32, isValue: Bool, _ kernels: sigma_kernels) {
            let positions = source.count / dim
            let block = Int(SIGMA_ATTENTION_BLOCK)
            let bytes = (positions + block - 1) / block * block / 16 * sigma_kv_tile_bytes(type, Int32(dim))
            let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
            memory.initializeMemory(as: UInt8.self, repeating: 0xff, count: bytes)
            rows = sigma_kv_rows(tiles: memory, type: type, next: nil)
            for position in 0..<positions {
                Array(source[position * dim..<(position + 1) * dim]).withUnsafeBufferPointer {
                    kernels.store_kv($0.baseAddress, Int32(dim), isValue ? 1 : 0, Int32(position), &rows)
                }
            }
        }

        deinit { rows.tiles.deallocate() }

        /// Of f16, at the first position.
        func word(_ component: Int, _ dim: Int, isValue: Bool) -> Int16 {
            rows.tiles.load(
                fromByteOffset: sigma_kv_offset(rows.type, Int32(dim), isValue ? 1 : 0, 0, Int32(component)),
                as: Int16.self)
        }

        func scale(_ component: Int, _ dim: Int) -> Double {
            let bits = rows.tiles.load(
                fromByteOffset: sigma_kv_scale_offset(rows.type, Int32(dim), 0, Int32(component)), as: UInt16.self)
            return Double(Float(bitPattern: UInt32(bits) << 16))
        }

        /// What rows [*, dim] become in the cache.
        static func rounded(_ values: [Float], _ dim: Int, _ type: Int32, isValue: Bool) -> [Double] {
            if type == Int32(SIGMA_F32) { return values.map(Double.init) }
            return stride(from: 0, to: values.count, by: dim).flatMap { row in
                let share = type == Int32(SIGMA_F16) && isValue ? dim : 32
                return stride(from: row, to: row + dim, by: share).flatMap { start in
                    let part = values[start..<min(start + share, row + dim)]
                    let scale = scale(part.map(\.magnitude).max()!, type)
                    return part.map { value in
                        type == Int32(SIGMA_F16)
                            ? Double((value * (1 / Float(scale))).rounded(.toNearestOrEven)) * scale
                            : Double((value * (127 / part.map(\.magnitude).max()!)).rounded(.toNearestOrEven)) * scale
                    }
                }
            }
        }

        /// Of numbers with this largest magnitude.
        static func scale(_ largest: Float, _ type: Int32) -> Double {
            if type == Int32(SIGMA_Q8_0) { return Double(Float16(largest / 127)) }
            // Up to the next bf16.
            let bits = (largest * (1 / Float(16383))).bitPattern
            return Double(Float(bitPattern: (bits + 0xffff) & 0xffff_0000))
        }
    }

    /// Elements of one row as the cache holds them, of f16: whole numbers of 15 bits, and bf16 scales.
    @Test(arguments: levels) func f16KeepsFifteenBitsOfTheLargest(level: String) throws {
        let kernels = try Self.kernels(level)
        let dim = 96
        var row: [Float] = (0..<dim).map { c in
            let size = 0.01 + Float(c * c)
            return c % 5 == 0 ? -size : size
        }
        (row[3], row[40], row[70]) = (0, 1e-38, -3e-39)
        let odd: [[Float]] = [
            row, row.map { $0 * 1e-28 }, row.map { $0 * 1e30 }, row.map { _ in 0 }, row.map { _ in 65520 },
            row.map { $0 * 1e-36 },
        ]
        for values in odd {
            for isValue in [false, true] {
                let stored = CachedRows(values, dim, Int32(SIGMA_F16), isValue: isValue, kernels)
                for first in stride(from: 0, to: dim, by: 32) {
                    let share = isValue ? values[...] : values[first..<first + 32]
                    let largest = share.map(\.magnitude).max()!
                    let scale = largest > 1e-30 ? CachedRows.scale(largest, Int32(SIGMA_F16)) : 0
                    #expect(stored.scale(isValue ? 0 : first, dim) == scale)
                    for c in first..<first + 32 {
                        let expected = scale > 0 ? (values[c] * (1 / Float(scale))).rounded(.toNearestOrEven) : 0
                        let word = stored.word(c, dim, isValue: isValue)
                        #expect(Float(word) == expected && word.magnitude <= 16383, "\(values[c])")
                    }
                }
            }
        }
        // What is no number stays none, and infinite what is infinite.
        for (value, isNaN) in [
            (Float.nan, true), (-Float.nan, true), (Float.infinity, false), (-Float.infinity, false),
        ] {
            var values = row
            values[50] = value
            for isValue in [false, true] {
                let stored = CachedRows(values, dim, Int32(SIGMA_F16), isValue: isValue, kernels)
                let scale = stored.scale(isValue ? 0 : 32, dim)
                #expect(isNaN ? scale.isNaN : scale == .infinity)
            }
        }
    }

    /// Keys, queries and values of one sign and size, whose sums of products come nearest to the end of 32 bits.
    @Test(arguments: levels) func sumsOfEqualNumbersAreExact(level: String) throws {
        let kernels = try Self.kernels(level)
        let (dim, positions) = (96, 64)
        for (key, query) in [(Float(2), Float(0.25)), (-3, 0.25), (2, -0.125)] {
            let keys = CachedRows(
                [Float](repeating: key, count: dim * positions), dim, Int32(SIGMA_F16), isValue: false, kernels)
            let values = CachedRows(
                [Float](repeating: key, count: dim * positions), dim, Int32(SIGMA_F16), isValue: true, kernels)
            let q = [Float](repeating: query, count: dim)
            var scratch = [Float](repeating: .nan, count: sigma_attention_scratch(Int32(dim), 1))
            var (maximum, sum) = (Float(0), Float(0))
            var output = [Float](repeating: .nan, count: dim)
            kernels.attend(
                &keys.rows, &values.rows, Int32(dim), q, 1, [Int32(positions)], &scratch, &maximum, &sum, &output)
            let score = key * query * Float(dim)
            #expect(abs(maximum - score) < 3e-4 * abs(score) && sum == Float(positions))
            for value in output { #expect(abs(value / sum - key) < 3e-4 * abs(key)) }
        }
    }

    @Test(arguments: levels) func attentionMatchesTheScalarTwin(level: String) throws {
        let kernels = try Self.kernels(level)
        for (dim, type) in [
            (64, SIGMA_F16), (96, SIGMA_F32), (96, SIGMA_F16), (128, SIGMA_F16), (24, SIGMA_F32), (24, SIGMA_F16),
            (64, SIGMA_Q8_0),
        ] {
            let type = Int32(type)
            let positions = 150
            let padded = (dim + 15) & ~15
            let (k, v) = (
                Self.values(positions * dim, seed: 1, scale: 2), Self.values(positions * dim, seed: 2, scale: 2)
            )
            let (keys, values) = (
                CachedRows(k, dim, type, isValue: false, kernels), CachedRows(v, dim, type, isValue: true, kernels)
            )
            let k64 = CachedRows.rounded(k, dim, type, isValue: false)
            let v64 = CachedRows.rounded(v, dim, type, isValue: true)
            let visible: [Int32] = [1, 64, 65, 150, 0, 127, 2, 3, 149, 16, 17]
            var q = [Float](repeating: 0, count: visible.count * padded)
            for (i, value) in Self.values(visible.count * dim, seed: 3).enumerated() {
                q[i / dim * padded + i % dim] = value
            }
            var scratch = [Float](
                repeating: .nan, count: sigma_attention_scratch(Int32(dim), Int32(visible.count)))
            var (maximum, sum) = (
                [Float](repeating: 0, count: visible.count), [Float](repeating: 0, count: visible.count)
            )
            var output = [Float](repeating: .nan, count: visible.count * padded)
            kernels.attend(
                &keys.rows, &values.rows, Int32(dim), q, Int32(visible.count), visible, &scratch, &maximum, &sum,
                &output)
            for (i, count) in visible.enumerated() {
                if count == 0 {
                    #expect(sum[i] == 0 && maximum[i] == -.infinity)
                    continue
                }
                var (scores, norms, sizes) = ([Double](), 0.0, 0.0)
                for j in 0..<Int(count) {
                    var (score, norm, size) = (0.0, 0.0, 0.0)
                    for c in 0..<dim {
                        let product = Double(q[i * padded + c]) * k64[j * dim + c]
                        score += product
                        norm += abs(product)
                        size += abs(k64[j * dim + c])
                    }
                    scores.append(score)
                    norms = max(norms, norm)
                    sizes = max(sizes, size)
                }
                let most = scores.max()!
                let weights = scores.map { exponential($0 - most) }
                let total = weights.reduce(0, +)
                // A score's error moves every weight by that much; sums and exponentials add theirs.
                // Elements with scales are multiplied with queries, and with weights times scales, of 16 bits: of q8_0 by the largest, of f16 by the
                // sums of 32 components' magnitudes (at most 32 times the largest) and of 64 weights.
                let steps = [Int32(SIGMA_Q8_0): 1.0 / 65534, Int32(SIGMA_F16): 32.0 / 131000 / 2]
                let halfStep = steps[type] ?? 0
                let largest = q[i * padded..<(i + 1) * padded].map { Double($0.magnitude) }.max()!
                let relative =
                    2 * Double(dim) * Self.unit * norms + halfStep * largest * sizes + Double(count + 8) * Self.unit
                    + 0x1p-20
                let weightRounding = 2.01 * halfStep * Double(count) * v64.map(\.magnitude).max()! / total
                for c in 0..<dim {
                    var (exact, norm) = (0.0, 0.0)
                    for j in 0..<Int(count) {
                        exact += weights[j] * v64[j * dim + c] / total
                        norm += weights[j] * abs(v64[j * dim + c]) / total
                    }
                    let found = Double(output[i * padded + c]) / Double(sum[i])
                    #expect(
                        abs(found - exact) <= 2 * relative * (norm + abs(exact)) + weightRounding,
                        "dim \(dim) type \(type) query \(i)")
                }
            }
            // A query's state does not depend on the queries beside it.
            for i in visible.indices {
                var (maximumAlone, sumAlone) = (Float(0), Float(0))
                var outputAlone = [Float](repeating: 0, count: padded)
                kernels.attend(
                    &keys.rows, &values.rows, Int32(dim), Array(q[(i * padded)..<((i + 1) * padded)]), 1, [visible[i]],
                    &scratch, &maximumAlone, &sumAlone, &outputAlone)
                #expect(maximumAlone == maximum[i] && sumAlone == sum[i])
                #expect(outputAlone == Array(output[(i * padded)..<((i + 1) * padded)]))
            }
        }
    }

    @Test(arguments: levels) func mergingIntoNothingChangesNothing(level: String) throws {
        let kernels = try Self.kernels(level)
        let split = Self.values(64, seed: 8)
        var (maximum, sum) = (-Float.infinity, Float(0))
        var output = [Float](repeating: 0, count: 64)
        kernels.merge_attention(&maximum, &sum, &output, 1.5, 7.25, split, 64)
        #expect(maximum == 1.5 && sum == 7.25 && output == split)
        // An empty split changes nothing.
        kernels.merge_attention(&maximum, &sum, &output, -.infinity, 0, split, 64)
        #expect(maximum == 1.5 && sum == 7.25 && output == split)
        // Two equal states weigh the same.
        kernels.merge_attention(&maximum, &sum, &output, 1.5, 7.25, split, 64)
        #expect(sum == 14.5 && output == split.map { $0 * 2 })
    }
}
