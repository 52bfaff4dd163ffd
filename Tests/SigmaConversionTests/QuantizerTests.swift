import CSigma
import Sigma
import SigmaConversion
import SystemLibrary
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The quantizers against the best that any scales could do, and on what no checkpoint should have.
@Suite struct QuantizerTests {
    static let types = WeightType.allCases.filter { $0.isTarget && $0.isQuantized }

    /// Rows of weights after quantizing; nil where one is too large.
    static func quantized(
        _ weights: [Float], columns: Int, _ type: WeightType, importance: [Float]? = nil,
        level: QuantizerLevel = .best
    ) -> (blocks: [UInt8], values: [Float])? {
        let rows = weights.count / columns
        var blocks = [UInt8](repeating: 0xa5, count: rows * type.rowBytes(columns))
        let failure = blocks.withUnsafeMutableBytes {
            Quantizer.encode(
                weights, rows: rows, columns: columns, as: type, importance: importance, to: $0.baseAddress!,
                level: level)
        }
        return failure == nil ? (blocks, values(of: blocks, rows: rows, columns: columns, type)) : nil
    }

    /// What rows of ggml's blocks stand for.
    static func values(of blocks: [UInt8], rows: Int, columns: Int, _ type: WeightType) -> [Float] {
        let kind = Int32(type.rawValue)
        var values = [Float](repeating: .nan, count: rows * columns)
        var group = [UInt8](repeating: 0, count: type.groupBytes(columns))
        for first in stride(from: 0, to: rows, by: 16) {
            let count = min(16, rows - first)
            blocks.withUnsafeBytes {
                sigma_pack_group(kind, $0.baseAddress! + first * type.rowBytes(columns), Int32(count), columns, &group)
            }
            for row in 0..<count {
                values.withUnsafeMutableBufferPointer {
                    sigma_dequantize_row(
                        kind, group, Int32(row), columns, $0.baseAddress! + (first + row) * columns)
                }
            }
        }
        return values
    }

    /// Sum of the columns' importance times squared error, over all rows.
    static func error(_ weights: [Float], _ values: [Float], importance: [Float]? = nil) -> Double {
        zip(weights, values).enumerated().reduce(0) { sum, item in
            let difference = Double(item.element.0) - Double(item.element.1)
            return sum + Double(importance.map { $0[item.offset % $0.count] } ?? 1) * difference * difference
        }
    }

    static func gaussian(_ count: Int, seed: UInt64, scale: Double = 0.02) -> [Float] {
        var random = SplitMix64(state: seed)
        func unit() -> Double { (Double(random.next() >> 11) + 0.5) * 0x1p-53 }
        return (0..<count).map { _ in
            let radius = (-2 * log(unit())).squareRoot()
            return Float(scale * radius * cos(2 * Double.pi * unit()))
        }
    }

    /// Activations' mean squares: a few columns count far more than the others.
    static func someImportance(_ count: Int, seed: UInt64) -> [Float] {
        let values = gaussian(count, seed: seed, scale: 1).map { exp(1.5 * $0) }
        let mean = values.reduce(0, +) / Float(count)
        return values.map { $0 / mean }
    }

    // MARK: - How good

    /// The best of all fp16 scales, tried one by one.
    @Test(arguments: [WeightType.q8_0, .q4_0], [false, true])
    func oneScaleIsNearTheBest(_ type: WeightType, weighted: Bool) throws {
        let blocks = 60
        let weights = Self.gaussian(32 * blocks, seed: 1)
        let importance = weighted ? Self.someImportance(32, seed: 2) : [Float](repeating: 1, count: 32)
        let limit: Float = type == .q8_0 ? 128 : 8
        var best = 0.0
        for block in 0..<blocks {
            let x = Array(weights[32 * block..<32 * block + 32])
            let largest = x.map(\.magnitude).max()!
            var least = Double.infinity
            var scale = Float16(largest / (1.6 * limit))
            while scale < Float16(2.5 * largest / limit) {
                for d in [Float(scale), -Float(scale)] {
                    var sum = 0.0
                    for i in 0..<32 {
                        let q = min(max((x[i] / d).rounded(.toNearestOrEven), -limit), limit - 1)
                        sum += Double(importance[i]) * Double(x[i] - d * q) * Double(x[i] - d * q)
                    }
                    least = min(least, sum)
                }
                scale = scale.nextUp
            }
            best += least
        }
        let found = try #require(
            Self.quantized(weights, columns: 32, type, importance: weighted ? importance : nil))
        let error = Self.error(weights, found.values, importance: importance)
        // Not less than the best, but for rounding; and above it by what the few scales that there is time for cost.
        #expect(error >= best * 0.999999)
        #expect(error <= best * (type == .q4_0 ? 1.02 : weighted ? 1.25 : 1.2), "\(error / best)")
    }

    /// Blocks in which one part alone is not zero: there the scale is as free as a number can be, and the best of many is the best.
    @Test(arguments: [WeightType.q6_k, .q5_k, .q4_k, .q3_k], [false, true])
    func onePartIsNearTheBest(_ type: WeightType, weighted: Bool) throws {
        let isSigned = type == .q6_k || type == .q3_k
        let part = isSigned ? 16 : 32
        // The largest integer is limit - 1, or limit where there is a minimum.
        let limit: Float = type == .q6_k ? 32 : type == .q3_k ? 4 : type == .q5_k ? 31 : 15
        let count = 12
        var weights = [Float](repeating: 0, count: 256 * count)
        let importance = weighted ? Self.someImportance(256, seed: 4) : [Float](repeating: 1, count: 256)
        var best = 0.0
        for block in 0..<count {
            let x = Self.gaussian(part, seed: UInt64(5 + block))
            let first = part * (block % (256 / part))
            for i in 0..<part { weights[256 * block + first + i] = x[i] }
            let low = x.min()!
            let high = x.max()!
            let largest = max(-low, high)
            func error(_ scale: Float, _ offset: Float, _ range: ClosedRange<Float>) -> Double {
                var sum: Float = 0
                for i in 0..<part {
                    let y = x[i] - offset
                    let q = min(max((y / scale).rounded(.toNearestOrEven), range.lowerBound), range.upperBound)
                    sum += importance[first + i] * (y - scale * q) * (y - scale * q)
                }
                return Double(sum)
            }
            var least = Double.infinity
            if isSigned {
                for step in 0..<20_000 {
                    // q3_k's largest weight may lie far outside the range.
                    let scale = largest / limit * (type == .q3_k ? 0.3 : 0.74) + largest / limit * Float(step) / 20_000
                    let range = -limit...limit - 1
                    least = min(least, error(scale, 0, range), error(-scale, 0, range))
                }
            } else {
                for i in 0..<250 {
                    for j in 0..<250 {
                        let bottom = low + (high - low) * (-0.05 + 0.3 * Float(i) / 250)
                        let top = high - (high - low) * (-0.05 + 0.3 * Float(j) / 250)
                        least = min(least, error((top - bottom) / limit, bottom, 0...limit))
                    }
                }
            }
            best += least
        }
        let found = try #require(Self.quantized(weights, columns: 256, type, importance: weighted ? importance : nil))
        let error = Self.error(weights, found.values, importance: importance)
        #expect(error <= best * (weighted ? 1.15 : 1.05), "\(error / best)")
    }

    /// Whole blocks of q3_k, whose scales have few bits: the best of many factors, each with the best of all 64 scales for each part.
    @Test(arguments: [false, true]) func factorsAreNearTheBest(weighted: Bool) throws {
        let count = 6
        let weights = Self.gaussian(256 * count, seed: 100)
        let importance = weighted ? Self.someImportance(256, seed: 101) : [Float](repeating: 1, count: 256)
        var best = 0.0
        for block in stride(from: 0, to: weights.count, by: 256) {
            let x = Array(weights[block..<block + 256])
            let largest = x.map(\.magnitude).max()!
            var least = Float.infinity
            for step in 0..<60 {
                let d = largest / (4 * (14 + 0.35 * Float(step)))
                var sum: Float = 0
                for part in stride(from: 0, to: 256, by: 16) {
                    var partLeast = Float.infinity
                    for s in -32..<32 {
                        let scale = d * Float(s)
                        var error: Float = 0
                        for i in part..<part + 16 {
                            let q = s == 0 ? 0 : min(max((x[i] / scale).rounded(.toNearestOrEven), -4), 3)
                            error += importance[i] * (x[i] - scale * q) * (x[i] - scale * q)
                        }
                        partLeast = min(partLeast, error)
                    }
                    sum += partLeast
                }
                least = min(least, sum)
            }
            best += Double(least)
        }
        let found = try #require(Self.quantized(weights, columns: 256, .q3_k, importance: weighted ? importance : nil))
        let error = Self.error(weights, found.values, importance: importance)
        #expect(error <= best * (weighted ? 1.04 : 1.02), "\(error / best)")
    }

    /// The rules without a search, as ggml's reference code has them: d = max|x| / 127, and -8 steps for the largest weight.
    @Test func searchIsBetterThanTheRule() throws {
        let weights = Self.gaussian(32 * 500, seed: 20)
        for (type, limit) in [(WeightType.q8_0, Float(127)), (.q4_0, 8)] {
            var rule = 0.0
            for block in stride(from: 0, to: weights.count, by: 32) {
                let x = weights[block..<block + 32]
                let largest = x.max { $0.magnitude < $1.magnitude }!
                let scale = type == .q8_0 ? largest.magnitude / limit : largest / -limit
                let stored = Float(Float16(scale))
                for value in x {
                    let q = min((value / scale).rounded(.toNearestOrAwayFromZero), limit == 8 ? 7 : 127)
                    rule += Double(value - stored * q) * Double(value - stored * q)
                }
            }
            let found = try #require(Self.quantized(weights, columns: 32, type))
            #expect(Self.error(weights, found.values) < 0.95 * rule, "\(type)")
        }
    }

    @Test(arguments: types) func importanceTakesTheErrorWhereItMatters(_ type: WeightType) throws {
        let weights = Self.gaussian(512 * 20, seed: 30)
        let importance = Self.someImportance(512, seed: 31)
        let plain = try #require(Self.quantized(weights, columns: 512, type)).values
        let weighted = try #require(Self.quantized(weights, columns: 512, type, importance: importance)).values
        #expect(
            Self.error(weights, weighted, importance: importance)
                < 0.9 * Self.error(weights, plain, importance: importance))
        #expect(Self.error(weights, plain) < Self.error(weights, weighted))
        // The same everywhere is the same as none, but for the number of scales tried.
        let even = try #require(
            Self.quantized(weights, columns: 512, type, importance: [Float](repeating: 1, count: 512)))
        #expect(Self.error(weights, even.values) <= 1.0001 * Self.error(weights, plain))
    }

    /// Errors in proportion to the weights, from type to type.
    @Test func moreBitsAreBetter() throws {
        let weights = Self.gaussian(256 * 64, seed: 40)
        let power = weights.reduce(0.0) { $0 + Double($1) * Double($1) }
        for (type, limit) in [
            (WeightType.q8_0, 2.6e-5), (.q6_k, 3e-4), (.q5_k, 1.25e-3), (.q4_k, 5.1e-3), (.q4_0, 6.8e-3),
            (.q3_k, 2.2e-2),
        ] {
            let found = try #require(Self.quantized(weights, columns: 256, type))
            #expect(Self.error(weights, found.values) / power < limit, "\(type)")
        }
    }

    // MARK: - The same everywhere

    @Test(arguments: types) func everyLevelGivesTheSameBytes(_ type: WeightType) throws {
        // All magnitudes that fp16 scales can serve, and below; an odd number of blocks.
        var random = SplitMix64(state: 50)
        var weights = Self.gaussian(768 * 19, seed: 51, scale: 1)
        for i in 0..<weights.count {
            let power = Int(random.next() % 50) - 36
            weights[i] *= Float(sign: .plus, exponent: i / 64 % 3 == 0 ? power : -5, significand: 1)
            if i / 32 % 7 == 0 { weights[i] = abs(weights[i]) }
            if i / 32 % 11 == 0 { weights[i] = weights[i / 32 * 32] }
            if i % 97 == 0 { weights[i] = 0 }
        }
        for importance in [nil, Self.someImportance(768, seed: 52)] {
            let levels = QuantizerLevel.all
            let found = try levels.map { level in
                try #require(Self.quantized(weights, columns: 768, type, importance: importance, level: level)).blocks
            }
            for (level, blocks) in zip(levels, found) {
                #expect(blocks == found[0], "\(level.name) and \(levels[0].name)")
            }
        }
    }

    /// A row's blocks do not depend on the rows beside it.
    @Test(arguments: types) func rowsAreIndependent(_ type: WeightType) throws {
        let weights = Self.gaussian(256 * 21, seed: 60)
        let importance = Self.someImportance(256, seed: 61)
        let all = try #require(Self.quantized(weights, columns: 256, type, importance: importance)).blocks
        let apart = try (0..<21).flatMap { row in
            try #require(
                Self.quantized(
                    Array(weights[256 * row..<256 * row + 256]), columns: 256, type, importance: importance)
            ).blocks
        }
        #expect(all == apart)
    }

    @Test(arguments: [WeightType.q5_k, .q4_k, .q3_k]) func threadsAndPiecesDoNotMatter(_ type: WeightType) throws {
        let scratch = try Scratch()
        for threads in [1, 3] {
            try Converter.convert(
                .init(
                    input: packageRoot + "/Models/demo/checkpoint", output: scratch / "\(threads)", type: type,
                    overrides: try Overrides([]), threads: threads))
        }
        #expect(try scratch.read("1") == scratch.read("3"))
        let model = try ModelFile(path: scratch / "1")
        #expect(model.weights.layers[0].query.type == type)
        #expect(model.weights.head.type == .q6_k)
    }

    // MARK: - Values

    /// Blocks of the gguf package (Models/reference/make_block_fixtures.py): packed, every value is the same bits.
    @Test(arguments: WeightType.allCases.filter(\.isQuantized)) func valuesAreThoseOfTheGGUFPackage(_ type: WeightType)
        throws
    {
        let path = packageRoot + "/Tests/Fixtures/quantization/\(type.name)"
        let blocks = Array(try Data(contentsOf: URL(filePath: path + ".blocks")))
        let data = try Data(contentsOf: URL(filePath: path + ".values"))
        let expected = data.withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self) }
        }
        #expect(expected.count == 16 * 256 && blocks.count == 16 * type.rowBytes(256))
        let found = Self.values(of: blocks, rows: 16, columns: 256, type).map(\.bitPattern)
        #expect(found == expected)
    }

    // MARK: - Hostile weights

    @Test(arguments: types) func zeros(_ type: WeightType) throws {
        for zero in [Float(0), -0.0] {
            let found = try #require(Self.quantized([Float](repeating: zero, count: 512), columns: 512, type))
            #expect(found.values.allSatisfy { $0 == 0 })
        }
    }

    @Test(arguments: types) func constants(_ type: WeightType) throws {
        for value in [Float(1), -1, 0.1, -0.1, 1e-3, 300, -6e4] {
            let row = [Float](repeating: value, count: 512)
            let found = try #require(Self.quantized(row, columns: 512, type))
            // The scale's fp16 and, with minima, integers of six bits.
            for weight in found.values { #expect(abs(weight - value) <= abs(value) * 2e-3, "\(value)") }
        }
    }

    /// Where fp16 scales end: never worse than zeros, always finite.
    @Test(arguments: types) func smallWeights(_ type: WeightType) throws {
        for exponent in stride(from: -149, through: -8, by: 1) {
            let scale = Float(sign: .plus, exponent: exponent, significand: 1)
            let weights = Self.gaussian(512, seed: 70, scale: 1).map { $0 * scale }
            let found = try #require(Self.quantized(weights, columns: 512, type))
            let error = Self.error(weights, found.values)
            let power = weights.reduce(0.0) { $0 + Double($1) * Double($1) }
            #expect(found.values.allSatisfy(\.isFinite) && error <= power, "2^\(exponent)")
            // A step of 2^-24 is half of what there is at most.
            if exponent >= -22 { #expect(error < 0.1 * power, "2^\(exponent)") }
        }
    }

    @Test(arguments: types) func largeWeights(_ type: WeightType) throws {
        var weights = Self.gaussian(256 * 20, seed: 80)
        weights[256 * 17 + 5] = .greatestFiniteMagnitude
        weights[256 * 18] = -.greatestFiniteMagnitude
        var blocks = [UInt8](repeating: 0, count: 20 * type.rowBytes(256))
        let row = blocks.withUnsafeMutableBytes {
            Quantizer.encode(weights, rows: 20, columns: 256, as: type, to: $0.baseAddress!)
        }
        #expect(row == 17)
        // The largest that each type can have, and a little more.
        let most: Float =
            switch type {
            case .q8_0: 128 * 65504
            case .q6_k: 32 * 128 * 65504
            case .q3_k: 4 * 32 * 65504
            case .q5_k, .q4_k: 63 * 65504
            default: 8 * 65504
            }
        for sign in [Float(1), -1] {
            weights = [Float](repeating: 0, count: 256)
            weights[100] = 0.95 * sign * most
            let found = try #require(Self.quantized(weights, columns: 256, type))
            #expect(abs(found.values[100] - weights[100]) < 0.02 * most)
            weights[100] = 1.01 * sign * most
            #expect(Self.quantized(weights, columns: 256, type) == nil)
        }
    }
}
