/// Conversions between fp32 and the 16-bit formats, bit for bit the same on every machine.
package enum FloatBits {
    /// bf16 is the upper half of fp32: exact.
    @inline(__always) package static func float(bf16 bits: UInt16) -> Float { Float(bitPattern: UInt32(bits) << 16) }

    /// Round to nearest, ties to even. NaN stays NaN; values beyond the range become infinite.
    @inline(__always) package static func bf16(_ value: Float) -> UInt16 {
        let bits = value.bitPattern
        if bits & 0x7fff_ffff > 0x7f80_0000 { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
        return UInt16(truncatingIfNeeded: (bits &+ 0x7fff &+ ((bits >> 16) & 1)) >> 16)
    }

    @inline(__always) package static func float(f16 bits: UInt16) -> Float {
        let sign = UInt32(bits & 0x8000) << 16
        if bits & 0x7c00 == 0x7c00 { return Float(bitPattern: sign | 0x7f80_0000 | UInt32(bits & 0x3ff) << 13) }
        // With fp32's exponent the value is 2^112 too small; the product is exact, subnormals included.
        let magnitude = Float(bitPattern: UInt32(bits & 0x7fff) << 13) * 0x1p112
        return Float(bitPattern: sign | magnitude.bitPattern)
    }

    /// Round to nearest, ties to even. NaN stays NaN; values beyond the range become infinite.
    @inline(__always) package static func f16(_ value: Float) -> UInt16 {
        let sign = UInt16(truncatingIfNeeded: (value.bitPattern >> 16) & 0x8000)
        let bits = value.bitPattern & 0x7fff_ffff
        if bits >= 0x4780_0000 { return sign | (bits > 0x7f80_0000 ? 0x7e00 : 0x7c00) }
        if bits >= 0x3880_0000 {
            let rounded = bits &+ 0xfff &+ ((bits >> 13) & 1)
            return sign | UInt16(truncatingIfNeeded: (rounded &- 0x3800_0000) >> 13)
        }
        // Below 2^-14: adding 0.5 rounds to a multiple of 2^-24, f16's smallest step.
        let shifted = Float(bitPattern: bits) + 0.5
        return sign | UInt16(truncatingIfNeeded: shifted.bitPattern &- 0x3f00_0000)
    }
}
