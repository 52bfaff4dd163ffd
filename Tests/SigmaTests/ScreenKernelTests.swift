import CSigma
import Sigma
import Testing

/// The planes of an output head at every level: estimates against a scalar twin in fp64, and that margins are what they say.
@Suite struct ScreenKernelTests {
    /// Rows in normal numbers, rotated, and their planes.
    final class Planes {
        let rows: Int
        let hidden: Int
        var values: [Float]
        let coarse: UnsafeMutableRawPointer
        let fine: UnsafeMutableRawPointer
        var columns: Int { sigma_screen_columns(hidden) }

        init(rows: Int, hidden: Int) {
            (self.rows, self.hidden) = (rows, hidden)
            values = ScreenKernelTests.normals(rows * hidden, seed: 3)
            let groupBytes = sigma_screen_group_bytes(sigma_screen_columns(hidden))
            let rowBytes = sigma_screen_row_bytes(sigma_screen_columns(hidden))
            coarse = .allocate(byteCount: (rows + 15) / 16 * groupBytes, alignment: 64)
            fine = .allocate(byteCount: rows * rowBytes, alignment: 64)
            values.withUnsafeMutableBufferPointer { values in
                for first in stride(from: 0, to: rows, by: 16) {
                    sigma_screen_encode(
                        values.baseAddress! + first * hidden, Int32(min(16, rows - first)), Int32(hidden),
                        coarse + first / 16 * groupBytes, fine + first * rowBytes)
                }
            }
        }
        deinit {
            coarse.deallocate()
            fine.deallocate()
        }

        func numbers(_ row: Int) -> sigma_screen_numbers {
            sigma_screen_row_numbers(coarse + row / 16 * sigma_screen_group_bytes(columns), columns, Int32(row % 16))
        }
        /// A weight of the coarse plane, in halves of its step, and what the fine one adds, in eighths.
        func weight(_ row: Int, _ column: Int) -> (coarse: Int, fine: Int) {
            let group = coarse + row / 16 * sigma_screen_group_bytes(columns)
            let first = group.load(fromByteOffset: column / 16 * 64 + row % 16 * 4 + column % 4, as: UInt8.self)
            let second = fine.load(
                fromByteOffset: row * sigma_screen_row_bytes(columns) + column / 256 * 64 + column % 64, as: UInt8.self)
            return (
                2 * (Int(first) >> (2 * (column % 16 / 4)) & 3) - 3,
                2 * (Int(second) >> (2 * (column % 256 / 64)) & 3) - 3
            )
        }
    }

    /// Sums of twelve uniform numbers.
    static func normals(_ count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix64(state: seed)
        return (0..<count).map { _ in Float((0..<12).reduce(-6) { sum, _ in sum + random.nextUnit() }) }
    }

    @Test(arguments: KernelTests.levels) func estimatesMatchTheScalarTwin(level: String) throws {
        let kernels = try KernelTests.kernels(level)
        for (rows, hidden, stateCount) in [(37, 768, 5), (16, 96, 1), (21, 1536, 11)] {
            let planes = Planes(rows: rows, hidden: hidden)
            let columns = planes.columns
            var quants = [Int8](repeating: 0, count: stateCount * columns)
            var states = [sigma_screen_state](repeating: .init(), count: stateCount)
            var y = [Float](repeating: .nan, count: stateCount * rows)
            quants.withUnsafeMutableBufferPointer { quants in
                for index in 0..<stateCount {
                    let x = Self.normals(hidden, seed: UInt64(index + 20))
                    #expect(
                        sigma_screen_quantize(
                            x, Int32(hidden), 6, quants.baseAddress! + index * columns, &states[index]) != 0)
                    states[index].offset = Float(index)
                }
                kernels.screen_rows(
                    planes.coarse, Int32(rows), Int32(columns), states, Int32(stateCount), &y, rows)
                for (index, state) in states.enumerated() {
                    for row in 0..<rows {
                        let numbers = planes.numbers(row)
                        var (coarse, fine) = (0, 0)
                        for column in 0..<columns {
                            let weight = planes.weight(row, column)
                            coarse += weight.coarse * Int(state.q[column])
                            fine += (weight.fine + 3) / 2 * Int(state.q[column])
                        }
                        let estimate = Double(coarse) * Double(numbers.half_step) * Double(state.scale)
                        let margin =
                            Double(numbers.coarse_error) * Double(state.error_margin)
                            + Double(numbers.norm) * Double(state.norm_margin)
                        let exact = estimate + margin + Double(state.offset)
                        // Six roundings.
                        let bound = 6 * KernelTests.unit * (abs(estimate) + margin + Double(abs(state.offset)))
                        #expect(abs(Double(y[index * rows + row]) - exact) <= bound)
                        let row = planes.fine + row * sigma_screen_row_bytes(columns)
                        #expect(kernels.screen_fine(row, Int32(columns), state.q) == Int32(fine))
                    }
                }
            }
        }
    }

    /// The errors of estimates of random states are normal numbers with the deviation that a margin of one says.
    @Test func marginsAreDeviations() {
        let planes = Planes(rows: 160, hidden: 768)
        var (coarse, both, count) = (0.0, 0.0, 0.0)
        var worst = 0.0
        for index in 0..<20 {
            var x = Self.normals(768, seed: UInt64(index + 400))
            if index % 2 == 1 { x[index] = 200 }
            sigma_screen_rotate(&x, 768)
            var quants = [Int8](repeating: 0, count: planes.columns)
            var state = sigma_screen_state()
            quants.withUnsafeMutableBufferPointer {
                #expect(sigma_screen_quantize(x, 768, 1, $0.baseAddress!, &state) != 0)
            }
            for row in 0..<planes.rows {
                let numbers = planes.numbers(row)
                var (exact, first, second) = (0.0, 0.0, 0.0)
                for column in 0..<768 {
                    let weight = planes.weight(row, column)
                    let q = Double(state.scale) * Double(quants[column])
                    exact += Double(planes.values[row * 768 + column]) * Double(x[column])
                    first += Double(numbers.half_step) * Double(weight.coarse) * q
                    second += Double(numbers.half_step) / 4 * Double(weight.fine) * q
                }
                func deviations(_ estimate: Double, _ error: Float) -> Double {
                    (exact - estimate)
                        / (Double(error) * Double(state.error_margin)
                            + Double(numbers.norm) * Double(state.norm_margin))
                }
                let a = deviations(first, numbers.coarse_error)
                let b = deviations(first + second, numbers.fine_error)
                coarse += a * a
                both += b * b
                count += 1
                worst = max(worst, abs(a), abs(b))
            }
        }
        // Both parts of a margin are added, as if they could not make up for each other.
        #expect((0.8...1.05).contains((coarse / count).squareRoot()), "\((coarse / count).squareRoot())")
        #expect((0.7...1.05).contains((both / count).squareRoot()), "\((both / count).squareRoot())")
        #expect(worst < 5, "\(worst)")
    }
}
