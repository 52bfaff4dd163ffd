import CSigma

extension KVBlockLayout {
    /// The blocks of the CPU's kernels (sigma_kv.h).
    package init(host type: KVType, _ c: ModelConfiguration) {
        let (kernelType, dim) = (type.kernelType, Int32(c.headDim))
        let offset: @Sendable (Bool, Int, Int) -> Int = { isValue, position, component in
            Int(sigma_kv_offset(kernelType, dim, isValue ? 1 : 0, Int32(position), Int32(component)))
        }
        let scaleOffset: @Sendable (Int, Int) -> Int = { position, component in
            Int(sigma_kv_scale_offset(kernelType, dim, Int32(position), Int32(component)))
        }
        let tile = KVTileLayout(
            name: type.hostLayoutName, byteCount: Int(sigma_kv_tile_bytes(kernelType, dim)),
            elementBytes: Int(sigma_kv_element_bytes(kernelType)), width: Int(sigma_kv_width(dim)), offset: offset,
            scaleOffset: type == .f32 ? nil : scaleOffset)
        self.init(type: type, tile: tile, layerCount: c.layerCount, kvHeadCount: c.kvHeadCount)
    }
}

extension KVType {
    /// Of the CPU's tiles, in session files.
    fileprivate var hostLayoutName: String {
        switch self {
        case .f32: "tiles16"
        case .f16: "tiles16-words"
        case .q8_0: "tiles16-pairs"
        }
    }
}

extension ModelConfiguration {
    /// Bytes of 256 positions' keys and values in the process's memory.
    package func kvBlockBytes(_ type: KVType) -> Int { KVBlockLayout(host: type, self).byteCount }
}

/// Blocks of keys and values in the process's memory, counted in its budget.
final class HostBlockStore: KVBlockStore {
    private let budget: MemoryBudget?

    init(_ budget: MemoryBudget?) { self.budget = budget }

    func take(_ byteCount: Int) throws -> UInt {
        // Large pages would be cleared as a whole when a block's first position is written, and answers would wait for that.
        guard let memory = try? AnonymousMemory(byteCount: byteCount) else {
            throw SigmaError(
                .unavailable, "no memory for \(byteCount >> 20) MiB more of keys and values",
                remedy: .anyOf([.lower(.contextLength), .set(.kvType, to: "q8_0")]))
        }
        budget?.add(kvBytes: byteCount)
        return UInt(bitPattern: memory.base)
    }

    func giveBack(_ address: UInt, byteCount: Int) {
        AnonymousMemory(base: pointer(address), byteCount: byteCount).free()
        budget?.add(kvBytes: -byteCount)
    }

    func copy(_ byteCount: Int, from source: UInt, to target: UInt) {
        pointer(target).copyMemory(from: pointer(source), byteCount: byteCount)
    }

    func read(_ bytes: UnsafeMutableRawBufferPointer, from address: UInt) {
        bytes.copyMemory(from: UnsafeRawBufferPointer(start: pointer(address), count: bytes.count))
    }

    func write(_ bytes: UnsafeRawBufferPointer, to address: UInt) {
        pointer(address).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
    }

    private func pointer(_ address: UInt) -> UnsafeMutableRawPointer { UnsafeMutableRawPointer(bitPattern: address)! }
}
