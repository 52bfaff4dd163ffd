extension MemoryPlan {
    /// The sizes that the model and the process decide.
    init(_ model: ModelFile, _ weights: ModelWeights, limits: MemoryLimits) {
        let table = ExpertRecordTable(model)
        // The header is read while the model is loaded, and stays in the page cache; the tokenizer's tables are made of it.
        self.init(
            budget: nil, isResident: true,
            processBytes: limits.processBytes
                ?? AvailableMemory.ownBytes + Self.growthBytes + 2 * model.gguf.dataOffset,
            denseBytes: OwnedWeights.byteCount(weights), expertBytes: table.totalBytes,
            expertCount: table.presentCount, slotBytes: table.slotBytes, recordsPerToken: table.recordsPerToken,
            slotLimit: table.presentCount, activationBytes: 0, activationRowBytes: 0,
            kvBlockBytes: model.configuration.kvBlockBytes(.f16))
        contextLength = model.configuration.contextLength
    }

    /// What a process takes beside what is planned, once it works: stacks, buffers of input and output, the allocator's slack.
    private static let growthBytes = 24 << 20

    /// Chooses between the mapped file and slots.
    mutating func decide(_ limits: MemoryLimits) {
        guard expertCount > 0, limits.cache != .all else {
            budget = limits.memory
            return
        }
        let offer = limits.memory == nil && limits.cache == .auto ? AvailableMemory.offer : nil
        // With a limit of the user's, resident experts must leave room for a long sequence; without, the system pages what nobody uses.
        let positions = min(contextLength, limits.memory == nil ? 4096 : 32768)
        let sequence = (positions / KVBlockLayout.length + 1) * kvBlockBytes
        let resident = processBytes + denseBytes + expertBytes + activationBytes + 512 * activationRowBytes + sequence
        switch limits.cache {
        case .bytes(let bytes) where bytes < expertBytes:
            isResident = false
            budget = limits.memory
            slotLimit = max(0, bytes) / slotBytes
        case .bytes, .all: budget = limits.memory
        case .auto:
            budget = limits.memory
            if let size = limits.memory ?? offer?.budget, size < resident {
                isResident = false
                budget = size
                self.offer = offer
            }
        }
    }
}
