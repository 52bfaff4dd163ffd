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

    @Test(arguments: levels) func sumsOfExponentialsMatchTheScalarTwin(level: String) throws {
        let kernels = try Self.kernels(level)
        for n in [1, 7, 8, 9, 100, 20_001] {
            var logits = Self.values(n, seed: UInt64(n), scale: 40)
            let most = Double(logits.max()!)
            let exact = most + logarithm(logits.reduce(0) { $0 + exponential(Double($1) - most) })
            let found = kernels.log_sum_exp(logits, Int32(n))
            #expect(abs(found - exact) <= 1e-14 * (1 + abs(exact)))
            // What is not a number, or impossible, counts nothing.
            logits += [.nan, -.infinity, -.greatestFiniteMagnitude, .nan]
            #expect(abs(kernels.log_sum_exp(logits, Int32(n + 4)) - found) <= 1e-14 * (1 + abs(exact)))
        }
        #expect(kernels.log_sum_exp([.nan, -.infinity], 2) == -.infinity)
        #expect(kernels.log_sum_exp([0, .infinity, .nan], 3) == .infinity)
    }
}
