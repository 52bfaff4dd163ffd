/// Which memory of a device goes where: made once, when a model is loaded, before anything is allocated.
///
/// Weights and activations are fixed. Keys and values take what is left when all experts are on the device; otherwise a part is kept for
/// them, and slots of experts get the rest.
package struct DeviceMemoryPlan: Sendable, Equatable {
    /// What the device has free, less a margin; at most what the user allows.
    package var availableBytes: Int
    package var denseBytes: Int
    /// Activations of the largest step, logits, tables.
    package var workspaceBytes: Int
    package var expertBytes: Int
    package var slotBytes: Int
    package var recordsPerToken: Int
    /// Records of the model; slots beyond them would be idle.
    package var recordCount: Int
    /// A limit on the slots that `--expert-cache` sets.
    package var slotLimit: Int?
    /// Two buffers for a layer's experts each: steps of many rows read them there instead of through the bus again and again.
    package var stagingBytes: Int
    /// One block of 256 positions in 16 bits.
    package var kvBlockBytes: Int
    package var contextLength: Int

    package init(
        availableBytes: Int, denseBytes: Int, workspaceBytes: Int, expertBytes: Int, slotBytes: Int,
        recordsPerToken: Int, recordCount: Int, slotLimit: Int?, stagingBytes: Int, kvBlockBytes: Int,
        contextLength: Int
    ) {
        self.availableBytes = availableBytes
        self.denseBytes = denseBytes
        self.workspaceBytes = workspaceBytes
        self.expertBytes = expertBytes
        self.slotBytes = slotBytes
        self.recordsPerToken = recordsPerToken
        self.recordCount = recordCount
        self.slotLimit = slotLimit
        self.stagingBytes = stagingBytes
        self.kvBlockBytes = kvBlockBytes
        self.contextLength = contextLength
    }

    /// Positions that all experts on the device must leave room for, if the model has that many.
    private static let wantedPositions = 32768

    private var fixedBytes: Int { denseBytes + workspaceBytes }
    private func kvBytes(_ positions: Int) -> Int {
        (min(positions, contextLength) + KVBlockLayout.length - 1) / KVBlockLayout.length * kvBlockBytes
    }

    /// Whether all experts are on the device.
    package var isResident: Bool {
        if let slotLimit, slotLimit < recordCount { return false }
        return fixedBytes + expertBytes + kvBytes(Self.wantedPositions) <= availableBytes
    }

    /// Slots of experts on the device; 0 where all are there.
    package var slotCount: Int {
        guard !isResident, slotBytes > 0 else { return 0 }
        let rest = availableBytes - fixedBytes - stagingBytes
        // A long sequence is worth something, but not all slots: at most half of what is left.
        let kv = max(kvBlockBytes, min(kvBytes(Self.wantedPositions), rest / 2))
        return min(slotLimit ?? recordCount, recordCount, max(0, rest - kv) / slotBytes)
    }

    /// What all sequences together may take.
    package var kvLimit: Int {
        let experts = isResident ? expertBytes : slotCount * slotBytes + stagingBytes
        return max(0, availableBytes - fixedBytes - experts)
    }

    /// The least that works: one block of keys and values, and the slots of one token.
    package var leastBytes: Int {
        fixedBytes + kvBlockBytes + min(expertBytes, recordsPerToken * slotBytes + stagingBytes)
    }

    /// Positions that a sequence alone can have.
    package func positionLimit(blockBytes: Int) -> Int { kvLimit / max(1, blockBytes) * KVBlockLayout.length }
}
