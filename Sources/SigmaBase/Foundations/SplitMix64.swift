/// A small generator with a fixed definition (Steele, Lea and Flood, 2014), so that seeds mean the same in every version.
package struct SplitMix64: RandomNumberGenerator, Sendable {
    package var state: UInt64
    package init(state: UInt64) { self.state = state }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        return Self.mixed(state)
    }

    /// The generator's output function: spreads every bit of `value` over all bits.
    @inlinable @inline(__always) package static func mixed(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// Uniform in 0 ..< 1, 53 bits.
    package mutating func nextUnit() -> Double { Double(next() >> 11) * 0x1p-53 }
}
