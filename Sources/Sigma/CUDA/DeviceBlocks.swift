import CCUDA

extension KVBlockLayout {
    /// The blocks of the CUDA kernels (sigma_cuda.h).
    package init(device type: KVType, _ c: ModelConfiguration) {
        let (kernelType, dim) = (type.kernelType, Int32(c.headDim))
        let elementBytes =
            switch type {
            case .f32: 4
            case .f16: 2
            case .q8_0: 1
            }
        let offset: @Sendable (Bool, Int, Int) -> Int = { isValue, position, component in
            Int(sigma_cuda_kv_offset(kernelType, dim, isValue ? 1 : 0, Int32(position), Int32(component)))
        }
        let scaleOffset: @Sendable (Int, Int) -> Int = { position, component in
            Int(sigma_cuda_kv_scale_offset(dim, Int32(position), Int32(component)))
        }
        let tile = KVTileLayout(
            name: "cuda-tiles16", byteCount: Int(sigma_cuda_kv_tile_bytes(kernelType, dim)), elementBytes: elementBytes,
            width: Int(sigma_cuda_padded(dim)), offset: offset, scaleOffset: type == .q8_0 ? scaleOffset : nil)
        self.init(type: type, tile: tile, layerCount: c.layerCount, kvHeadCount: c.kvHeadCount)
    }
}

/// The addresses of a sequence's blocks on the device, for kernels.
final class DeviceBlockTable {
    private var memory: DeviceMemory?
    private var version = -1
    private static let entries = 512

    var address: DeviceAddress { memory?.address ?? 0 }

    /// Follows the sequence's blocks. No step that uses it may be running.
    func update(_ sequence: SequenceState, _ device: CUDADevice) throws(CUDAStatus) {
        guard version != sequence.addressVersion || memory == nil else { return }
        version = -1
        let count = sequence.blockCount
        if (memory?.byteCount ?? 0) / 8 < count || memory == nil {
            memory = try DeviceMemory(device, byteCount: max(Self.entries, 2 * count) * 8)
        }
        let addresses = (0..<count).map { UInt64(sequence.addresses[$0]) }
        if count > 0 { try device.copy(count * 8, from: addresses, to: memory!.address) }
        version = sequence.addressVersion
    }
}

extension SequenceState {
    /// Made when the sequence is first used on the device.
    var deviceTable: DeviceBlockTable {
        if let table = attachment { return unsafeDowncast(table, to: DeviceBlockTable.self) }
        let table = DeviceBlockTable()
        attachment = table
        return table
    }
}
