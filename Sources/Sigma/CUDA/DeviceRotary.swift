/// Cosines and sines of RoPE on the device: [positions, headDim / 2] each, computed on the host as the CPU back end does, as far as positions have
/// come.
final class DeviceRotary {
    private let device: CUDADevice
    private let rotary: RotaryEmbedding
    private let half: Int
    private var memory: DeviceMemory
    private var capacity: Int
    private var count = 0

    /// Computed at a time.
    private static let piece = 4096

    static func byteCount(_ c: ModelConfiguration) -> Int { 2 * c.contextLength * (c.headDim / 2) * 4 }

    init(_ device: CUDADevice, _ c: ModelConfiguration) throws(CUDAStatus) {
        self.device = device
        rotary = RotaryEmbedding(headDim: c.headDim, theta: c.ropeTheta, scaling: c.ropeScaling)
        half = c.headDim / 2
        capacity = c.contextLength
        memory = try DeviceMemory(device, byteCount: Self.byteCount(c))
    }

    var cosines: DeviceAddress { memory.address }
    var sines: DeviceAddress { memory.address + DeviceAddress(capacity * half * 4) }

    /// Has the first `positions` positions computed. No step may be running.
    ///
    /// - Returns: whether the tables have moved.
    func extend(to positions: Int) throws(CUDAStatus) -> Bool {
        guard positions > count else { return false }
        var hasMoved = false
        if positions > capacity {
            // Beyond what the model states, for those who ask for it.
            capacity = max(positions, 2 * capacity)
            memory = try DeviceMemory(device, byteCount: 2 * capacity * half * 4)
            count = 0
            hasMoved = true
        }
        let end = min(capacity, (positions + Self.piece - 1) / Self.piece * Self.piece)
        var cosineValues = [Float](repeating: 0, count: (end - count) * half)
        var sineValues = cosineValues
        let rotary = rotary
        let (first, half) = (count, half)
        cosineValues.withUnsafeMutableBufferPointer { cosines in
            sineValues.withUnsafeMutableBufferPointer { sines in
                for position in first..<end {
                    let offset = (position - first) * half
                    rotary.write(
                        position: position, cosines: cosines.baseAddress! + offset, sines: sines.baseAddress! + offset)
                }
            }
        }
        let offset = DeviceAddress(count * half * 4)
        let bytes = cosineValues.count * 4
        try device.copy(bytes, from: cosineValues, to: cosines + offset)
        try device.copy(bytes, from: sineValues, to: sines + offset)
        count = end
        return hasMoved
    }
}
