import CSigma
import Sigma
import Testing

/// Attention's kernels of every level: what they keep of keys and values, exact sums, and the products beside a scalar twin in fp64.
@Suite struct AttentionKernelTests {
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
    @Test(arguments: KernelTests.levels) func f16KeepsFifteenBitsOfTheLargest(level: String) throws {
        let kernels = try KernelTests.kernels(level)
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
    @Test(arguments: KernelTests.levels) func sumsOfEqualNumbersAreExact(level: String) throws {
        let kernels = try KernelTests.kernels(level)
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

    @Test(arguments: KernelTests.levels) func attentionMatchesTheScalarTwin(level: String) throws {
        let kernels = try KernelTests.kernels(level)
        for (dim, type) in [
            (64, SIGMA_F16), (96, SIGMA_F32), (96, SIGMA_F16), (128, SIGMA_F16), (24, SIGMA_F32), (24, SIGMA_F16),
            (64, SIGMA_Q8_0),
        ] {
            let type = Int32(type)
            let positions = 150
            let padded = (dim + 15) & ~15
            let (k, v) = (
                KernelTests.values(positions * dim, seed: 1, scale: 2),
                KernelTests.values(positions * dim, seed: 2, scale: 2)
            )
            let (keys, values) = (
                CachedRows(k, dim, type, isValue: false, kernels), CachedRows(v, dim, type, isValue: true, kernels)
            )
            let k64 = CachedRows.rounded(k, dim, type, isValue: false)
            let v64 = CachedRows.rounded(v, dim, type, isValue: true)
            let visible: [Int32] = [1, 64, 65, 150, 0, 127, 2, 3, 149, 16, 17]
            var q = [Float](repeating: 0, count: visible.count * padded)
            for (i, value) in KernelTests.values(visible.count * dim, seed: 3).enumerated() {
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
                    2 * Double(dim) * KernelTests.unit * norms + halfStep * largest * sizes + Double(count + 8)
                    * KernelTests.unit
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

    @Test(arguments: KernelTests.levels) func mergingIntoNothingChangesNothing(level: String) throws {
        let kernels = try KernelTests.kernels(level)
        let split = KernelTests.values(64, seed: 8)
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
