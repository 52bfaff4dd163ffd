import Sigma

/// Rows of weights from the checkpoint's type to the model file's.
package enum Quantizer {
    /// Weights of one row, from a checkpoint's bytes (little-endian, any alignment) to fp32.
    ///
    /// - Returns: false if there is a NaN or an infinity among them.
    package static func widen(
        _ source: UnsafeRawPointer, _ type: WeightType, count: Int, to row: UnsafeMutablePointer<Float>
    ) -> Bool {
        switch type {
        case .f32: UnsafeMutableRawPointer(row).copyMemory(from: source, byteCount: 4 * count)
        case .bf16:
            for i in 0..<count {
                row[i] = FloatBits.float(bf16: source.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self))
            }
        case .f16:
            for i in 0..<count {
                row[i] = FloatBits.float(f16: source.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self))
            }
        default: preconditionFailure("checkpoints hold floats")
        }
        // A NaN or an infinity has all exponent bits set.
        var worst: UInt32 = 0
        for i in 0..<count { worst = max(worst, row[i].bitPattern & 0x7fff_ffff) }
        return worst < 0x7f80_0000
    }

    /// One row of fp32 weights to `type`. `count` must be a multiple of the type's block length.
    ///
    /// - Returns: false if a weight (or a block's scale) is too large for the type.
    package static func encode(
        _ row: UnsafePointer<Float>, count: Int, as type: WeightType, to target: UnsafeMutableRawPointer
    ) -> Bool {
        switch type {
        case .f32:
            target.copyMemory(from: row, byteCount: 4 * count)
            return true
        case .bf16:
            return encodeHalves(row, count, target, FloatBits.bf16, infinity: 0x7f80)
        case .f16:
            return encodeHalves(row, count, target, FloatBits.f16, infinity: 0x7c00)
        case .q8_0:
            return encodeQ8_0(row, count: count, to: target)
        case .q4_0, .q4_k, .q6_k:
            preconditionFailure("no quantizer for \(type)")
        }
    }

    @inline(__always) private static func encodeHalves(
        _ row: UnsafePointer<Float>, _ count: Int, _ target: UnsafeMutableRawPointer, _ convert: (Float) -> UInt16,
        infinity: UInt16
    ) -> Bool {
        var worst: UInt16 = 0
        for i in 0..<count {
            let bits = convert(row[i])
            worst = max(worst, bits & 0x7fff)
            target.storeBytes(of: bits, toByteOffset: 2 * i, as: UInt16.self)
        }
        return worst < infinity
    }

    /// ggml's Q8_0: blocks of 32, each an fp16 scale d = max|x| / 127 and 32 signed bytes, x / d rounded half away from zero. As in ggml
    /// the bytes come from the product with 1/d, and d is the fp32 number, not the stored one.
    ///
    /// Plain loops over 32 that the compiler makes vectors of; the steps are such that it can: no calls, no branches.
    private static func encodeQ8_0(_ row: UnsafePointer<Float>, count: Int, to target: UnsafeMutableRawPointer) -> Bool
    {
        var fits = true
        // Adding 2^23 to a smaller number that is not negative rounds it to an integer, ties to even.
        let magic: Float = 0x1p23
        for block in 0..<count / 32 {
            let values = row + 32 * block
            var largest: UInt32 = 0
            for i in 0..<32 { largest = max(largest, values[i].bitPattern & 0x7fff_ffff) }
            let scale = Float(bitPattern: largest) / 127
            var inverse: Float = scale > 0 ? 1 / scale : 0
            // Below 2^-128 or so the inverse is infinite; the stored scale is 0 there.
            if !inverse.isFinite { inverse = 0 }
            let half = FloatBits.f16(scale)
            fits = fits && half < 0x7c00
            let output = target + 34 * block
            output.storeBytes(of: half, as: UInt16.self)
            let bytes = (output + 2).assumingMemoryBound(to: UInt8.self)
            for i in 0..<32 {
                let bits = values[i].bitPattern
                let scaled = Float(bitPattern: bits & 0x7fff_ffff) * inverse  // at most 127.00001
                let even = (scaled + magic) - magic
                // An exact half that went down goes up instead.
                let rounded = even + (scaled - even == 0.5 ? 1 : 0)
                let integer = (rounded + magic).bitPattern & 0xff
                let sign = UInt32(bitPattern: Int32(bitPattern: bits) >> 31)
                bytes[i] = UInt8(truncatingIfNeeded: (integer ^ sign) &- sign)
            }
        }
        return fits
    }
}
