/// Memory of the CPU back end: what the plan needs to know of it, and how it keeps to it.
extension CPUBackend {
    package var rowLimit: Int {
        let most = memoryPlan.isResident ? residentRowLimit : MemoryBudget.rowCapacity / 4
        guard let budget else { return most }
        let limit = budget.rowLimit(kvPositionBytes: kvPositionBytes)
        return memoryPlan.isResident ? min(most, limit) : limit
    }

    /// Experts that are in memory can be met again soon. Where they are read from the disk, more steps would mean more reads.
    package var sharedRowLimit: Int { memoryPlan.isResident ? min(rowLimit, 256) : rowLimit }

    package var expertStatistics: ExpertStatistics { expertCache?.statistics ?? ExpertStatistics() }

    /// Bytes of the slots that experts may use now; of all experts where they are mapped.
    package var expertCacheBytes: Int {
        expertCache.map { $0.slotCount * $0.slotBytes } ?? memoryPlan.expertBytes
    }

    package func positionLimit(kvType: KVType) -> Int? {
        memoryPlan.positionLimit(blockBytes: configuration.kvBlockBytes(kvType))
    }

    package func hasRoom(for count: Int, in sequence: any SequenceState) -> Bool {
        guard let budget else { return true }
        let cache = unsafeDowncast(sequence, to: KVCache.self)
        return budget.hasRoom(
            kvGrowth: cache.growth(to: cache.length + count), activations: memoryPlan.activationBytes)
    }

    /// What the model would use under other limits.
    ///
    /// - Throws: `SigmaError(.unavailable)` if they are too small.
    package func memoryPlan(for limits: MemoryLimits) throws -> MemoryPlan {
        let measuredRows = 1024
        var plan = MemoryPlan(model, weights, limits: limits)
        plan.activationBytes = try activationBytes(rows: 1)
        plan.activationRowBytes =
            (try activationBytes(rows: measuredRows) - plan.activationBytes) / (measuredRows - 1) + 1
        plan.decide(limits)
        try plan.check(path: model.path)
        return plan
    }

    /// Decides where experts stay, and brings what is always needed into memory.
    func setUpMemory(_ limits: MemoryLimits, _ makeReader: ((ModelFile) throws -> any RecordReader)?) throws {
        memoryPlan = try memoryPlan(for: limits)
        if memoryPlan.budget != nil { budget = MemoryBudget(memoryPlan) }
        guard !memoryPlan.isResident else {
            paging.requestDenseWeights(weights)
            return
        }
        let reader = try makeReader?(model) ?? DirectFileReader(model.gguf.file)
        let owned = try OwnedWeights(model, weights, reader: reader)
        ownedWeights = owned
        // What opening the file brought in.
        model.gguf.file.release(model.gguf.dataOffset..<model.byteCount)
        let cache = try ExpertCache(
            table: ExpertRecordTable(model), reader: reader,
            slotCapacity: memoryPlan.slots(kv: 0, activations: memoryPlan.activationBytes), policy: limits.policy)
        expertCache = cache
        foresight = ExpertForesight(cache, configuration, mode: limits.prediction)
    }

    /// Bytes of the activations of a step.
    private func activationBytes(rows: Int) throws -> Int {
        var planned = Workspace(isPlanned: true)
        try reserve(&planned, rows: rows)
        return planned.byteCount
    }

    /// Before a step takes memory for its rows and positions: slots give theirs, and activations that were needed for a long prompt go.
    ///
    /// - Throws: `SigmaError(.unavailable)` if fewer slots than a token needs would remain.
    func makeRoom() throws {
        guard !memoryPlan.isResident || budget != nil else { return }
        let needed = try activationBytes(rows: rowCount)
        if workspace.byteCount > 2 * needed + Self.idleActivationBytes { workspace.release() }
        guard let budget else { return }
        let activations = max(needed, workspace.byteCount)
        let growth = batch.segments.reduce(0) { $0 + cache(of: $1).growth(to: $1.position + $1.count) }
        guard budget.hasRoom(kvGrowth: growth, activations: activations) else {
            throw SigmaError(
                .unavailable,
                "the memory budget of \((budget.plan.budget ?? 0) >> 20) MiB has no room for \((growth + needed) >> 20) MiB more of keys, values and activations",
                remedy: "Use more memory (--memory), a shorter prompt, fewer sequences at once, or --kv-type q8_0.")
        }
        expertCache?.setSlotLimit(budget.slots(kvGrowth: growth, activations: activations))
    }

    /// Activations beyond need that are kept: not worth the page faults.
    private static let idleActivationBytes = 16 << 20
}

extension ModelConfiguration {
    /// Bytes of 256 positions' keys and values.
    package func kvBlockBytes(_ type: KVType) -> Int {
        layerCount * 2 * kvHeadCount * KVCache.blockLength * type.rowBytes(headDim: headDim)
    }
}

extension MemoryPlan {
    /// The sizes that the model and the process decide.
    init(_ model: ModelFile, _ weights: ModelWeights, limits: MemoryLimits) {
        let table = ExpertRecordTable(model)
        // The header is read while the model is loaded, and stays in the page cache; the tokenizer's tables are made of it.
        self.init(
            budget: nil, isResident: true,
            processBytes: AvailableMemory.ownBytes + Self.growthBytes + 2 * model.gguf.dataOffset,
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
        let sequence = (positions / KVCache.blockLength + 1) * kvBlockBytes
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
