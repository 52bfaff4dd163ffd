import CQuantization
import CSigma
import Sigma

/// Rows of weights from the checkpoint's type to the model file's.
package enum Quantizer {
    /// Weights of one row, from a checkpoint's bytes (little-endian, any alignment) to fp32.
    ///
    /// - Returns: false if there is a NaN or an infinity among them.
    package static func widen(
        _ source: UnsafeRawPointer, _ type: WeightType, count: Int, to row: UnsafeMutablePointer<Float>
    ) -> Bool {
        precondition(!type.isQuantized, "checkpoints hold floats")
        sigma_kernels_best().pointee.widen(source, Int32(type.rawValue), row, Int32(count))
        // A NaN or an infinity has all exponent bits set: one more carries into the sign bit. Loops of such sums become vectors.
        var carries: UInt32 = 0
        for i in 0..<count { carries |= row[i].bitPattern & 0x7f80_0000 &+ 0x0080_0000 }
        return carries & 0x8000_0000 == 0
    }

    /// At most a group of rows in ggml's blocks to fp32, exactly.
    static func dequantize(
        _ blocks: UnsafeRawPointer, _ type: WeightType, rows: Int, columns: Int, to values: UnsafeMutablePointer<Float>
    ) {
        let number = Int32(type.rawValue)
        withUnsafeTemporaryAllocation(byteCount: type.groupBytes(columns), alignment: 64) { group in
            sigma_pack_group(number, blocks, Int32(rows), columns, group.baseAddress!)
            for row in 0..<rows {
                sigma_dequantize_row(number, group.baseAddress!, Int32(row), columns, values + row * columns)
            }
        }
    }

    /// Rows of fp32 weights to rows of `type`, row-major. `columns` must be a multiple of the type's block length.
    ///
    /// - Parameters:
    ///   - importance: how much each column's error counts, `columns` positive numbers with a mean near 1; nil: all count alike. Float types
    ///     have no use for it.
    ///   - level: results are the same bytes on all of them.
    /// - Returns: the first row that has a weight too large for the type; nil if all is well.
    package static func encode(
        _ weights: UnsafePointer<Float>, rows: Int, columns: Int, as type: WeightType,
        importance: UnsafePointer<Float>? = nil, to target: UnsafeMutableRawPointer, level: QuantizerLevel = .best
    ) -> Int? {
        switch type {
        case .f32:
            target.copyMemory(from: weights, byteCount: 4 * rows * columns)
            return nil
        case .bf16:
            return encodeHalves(weights, rows, columns, target, FloatBits.bf16, infinity: 0x7f80)
        case .f16:
            return encodeHalves(weights, rows, columns, target, FloatBits.f16, infinity: 0x7c00)
        case .q8_0, .q6_k, .q5_k, .q4_k, .q4_0, .q3_k:
            let row = level.table.pointee.quantize(Int32(type.rawValue), weights, rows, columns, importance, target)
            return row < 0 ? nil : row
        case .q4_1, .q5_0, .q5_1, .q2_k, .iq4_nl, .iq4_xs, .mxfp4:
            preconditionFailure("no target of conversions")
        }
    }

    @inline(__always) private static func encodeHalves(
        _ weights: UnsafePointer<Float>, _ rows: Int, _ columns: Int, _ target: UnsafeMutableRawPointer,
        _ convert: (Float) -> UInt16, infinity: UInt16
    ) -> Int? {
        for row in 0..<rows {
            var worst: UInt16 = 0
            for i in row * columns..<(row + 1) * columns {
                let bits = convert(weights[i])
                worst = max(worst, bits & 0x7fff)
                target.storeBytes(of: bits, toByteOffset: 2 * i, as: UInt16.self)
            }
            if worst >= infinity { return row }
        }
        return nil
    }
}

/// A level of the quantizers' code.
package struct QuantizerLevel: @unchecked Sendable {
    let table: UnsafePointer<sigma_quantizer>

    package var name: String { String(cString: table.pointee.name) }

    /// The best that this processor can run.
    package static let best = QuantizerLevel(table: sigma_quantizer_best())

    /// All that this processor can run, the best last.
    package static var all: [QuantizerLevel] {
        ["portable", "avx2", "avx512"].compactMap { (name: String) -> QuantizerLevel? in
            sigma_quantizer_named(name).map { QuantizerLevel(table: $0) }
        }
    }
}
