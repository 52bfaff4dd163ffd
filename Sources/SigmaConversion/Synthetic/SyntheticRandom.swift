import SigmaBase
import SystemLibrary

/// Random numbers that depend on a key and a counter alone: any thread can make any part.
struct SyntheticRandom: Sendable {
    private let key: UInt64

    init(seed: UInt64) { key = SplitMix64.mixed(seed &+ Self.step) }
    private init(key: UInt64) { self.key = key }

    /// Independent numbers for a part of what `self` is for.
    func part(_ number: Int) -> SyntheticRandom {
        SyntheticRandom(key: SplitMix64.mixed(key ^ SplitMix64.mixed(UInt64(bitPattern: Int64(number)) &+ Self.step)))
    }

    /// The number at `index`: 64 bits.
    @inline(__always) subscript(index: Int) -> UInt64 {
        SplitMix64.mixed(key &+ UInt64(bitPattern: Int64(index)) &* Self.step)
    }

    /// 0..<1, a multiple of 2^-53.
    @inline(__always) func uniform(_ index: Int) -> Double { Double(self[index] >> 11) * 0x1p-53 }

    /// Standard normal numbers 0, 1, ... of this key, by Box and Muller.
    func fillNormal(_ values: UnsafeMutableBufferPointer<Float>) {
        for pair in 0..<(values.count + 1) / 2 {
            let radius = (-2 * log(1 - uniform(2 * pair))).squareRoot()
            let angle = 2 * Double.pi * uniform(2 * pair + 1)
            values[2 * pair] = Float(radius * cos(angle))
            if 2 * pair + 1 < values.count { values[2 * pair + 1] = Float(radius * sin(angle)) }
        }
    }

    func normals(_ count: Int) -> [Float] {
        [Float](unsafeUninitializedCapacity: count) { buffer, filled in
            fillNormal(UnsafeMutableBufferPointer(rebasing: buffer[..<count]))
            filled = count
        }
    }

    private static let step: UInt64 = 0x9e37_79b9_7f4a_7c15
}
