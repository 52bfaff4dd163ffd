/// Where the experts' records are, and a table on the device that tells kernels so: [layers, experts] addresses.
///
/// Either all are on the device; or all are in pinned memory of the host, and slots on the device hold some of them. Then a kernel reads a record
/// that has no slot through the bus, so that no token waits for the host; after the step a slot is filled with it. The table changes between
/// steps only, and a slot only while the table does not name it: what is computed never depends on the slots.
final class DeviceExperts {
    private enum Home {
        case device(DeviceMemory)
        case host(PinnedMemory)
    }

    private let device: CUDADevice
    private let places: ExpertRecordTable
    /// What a kernel reads of a record, in each layer.
    private let recordBytes: [Int]
    /// Offset of every record in its home.
    private let offsets: TypedArray<Record, Int>
    private let home: Home
    private let table: DeviceMemory
    private let tableCopy: PinnedMemory
    private var tableIsCurrent = false
    private var counts = ExpertStatistics()

    // Slots; none where all are on the device.
    private let slotMemory: DeviceMemory?
    private let slotBytes: Int
    /// [records]
    private var slotOfRecord: TypedArray<Record, Slot?>
    private var freeSlots: [Slot] = []
    private var policy: (any EvictionPolicy)?
    private var pending: [(record: Record, slot: Slot, event: CUDAEvent)] = []
    private var idleEvents: [CUDAEvent] = []
    private let copyStream: CUDAStream
    private var isUsed: TypedArray<Record, Bool>

    // Buffers for a layer's experts, in turn, in steps of many rows.
    private var staging: DeviceMemory?
    private let stagedTable: DeviceMemory?
    private let stagedCopy: PinnedMemory?
    /// Of each buffer: that it is filled, and that it may be filled again.
    private var isReady: [CUDAEvent] = []
    private var isDone: [CUDAEvent] = []
    private var wasUsed = [false, false]
    /// Layers with experts, in their order.
    private let mixtureLayers: [Int]
    private(set) var isStaged = false

    /// Records that are brought after one step at most: what a step of one row can miss, and a few steps of several.
    private static let uploadsPerStep = 128

    static func stagingBytes(_ places: ExpertRecordTable) -> Int {
        let layers = (0..<places.layerCount).map { layer in
            (0..<places.expertCount).reduce(0) {
                $0 + (places.places[places.record(layer: layer, expert: Expert($1))]?.byteCount ?? 0)
            }
        }
        return 2 * (layers.max() ?? 0)
    }

    /// Takes the memory; the records come by `items`, then `fillSlots`.
    ///
    /// - Parameters:
    ///   - slotCount: 0: all experts on the device.
    ///   - recordBytes: what a kernel reads of a record, in each layer.
    /// - Throws: `CUDAStatus`; `CUDAUnavailable.tooLittleHostMemory`.
    init(
        _ device: CUDADevice, _ places: ExpertRecordTable, slotCount: Int, policy: EvictionPolicyKind,
        recordBytes: [Int]
    ) throws {
        self.device = device
        self.recordBytes = recordBytes
        self.places = places
        var offset = 0
        offsets = TypedArray(
            places.places.map { place in
                defer { offset += place?.byteCount ?? 0 }
                return offset
            })
        let total = offset
        slotBytes = places.slotBytes
        let tableBytes = max(8, places.recordCount * 8)
        table = try DeviceMemory(device, byteCount: tableBytes)
        tableCopy = try PinnedMemory(device, byteCount: tableBytes)
        copyStream = try CUDAStream(device)
        slotOfRecord = TypedArray(repeating: nil, count: places.recordCount)
        isUsed = TypedArray(repeating: false, count: places.recordCount)
        mixtureLayers = (0..<places.layerCount).filter { places.choices[$0] > 0 }
        if slotCount == 0 {
            home = .device(try DeviceMemory(device, byteCount: total))
            (slotMemory, stagedTable, stagedCopy) = (nil, nil, nil)
            return
        }
        if let available = AvailableMemory.bytes, AvailableMemory.afterMargin(available) < total {
            throw CUDAUnavailable.tooLittleHostMemory(needed: total)
        }
        do {
            home = .host(try PinnedMemory(device, byteCount: total + DirectFileReader.alignment))
        } catch {
            guard error.code == CUDAStatus.outOfMemory else { throw error }
            throw CUDAUnavailable.tooLittleHostMemory(needed: total)
        }
        slotMemory = try DeviceMemory(device, byteCount: slotCount * slotBytes)
        staging = try DeviceMemory(device, byteCount: Self.stagingBytes(places))
        stagedTable = try DeviceMemory(device, byteCount: tableBytes)
        stagedCopy = try PinnedMemory(device, byteCount: tableBytes)
        freeSlots = (0..<slotCount).reversed().map { Slot($0) }
        self.policy = policy.make(recordCount: places.recordCount, capacity: slotCount)
        for _ in 0..<2 {
            isReady.append(try CUDAEvent(device))
            isDone.append(try CUDAEvent(device))
        }
    }

    deinit {
        // What it copies from and to goes with it.
        try? copyStream.device.use()
        try? copyStream.synchronize()
    }

    var isResident: Bool { slotMemory == nil }
    var statistics: ExpertStatistics { counts }
    /// Bytes of the experts that the device can hold.
    var byteCount: Int { slotMemory?.byteCount ?? places.totalBytes }

    func items() -> [WeightUpload.Item] {
        places.places.indices.compactMap { record in
            guard let place = places.places[record] else { return nil }
            let target: WeightUpload.Item.Target =
                switch home {
                case .device(let memory): .device(memory.address + DeviceAddress(offsets[record]))
                case .host(let memory): .host(UInt(bitPattern: memory.base) + UInt(offsets[record]))
                }
            return WeightUpload.Item(
                name: places.name(of: record), offset: place.offset, byteCount: place.byteCount,
                checksum: place.checksum, target: target)
        }
    }

    /// Fills the slots with the first experts of every layer, and waits for them.
    func fillSlots() throws(CUDAStatus) {
        guard policy != nil else { return }
        for expert in 0..<places.expertCount {
            for layer in mixtureLayers where !freeSlots.isEmpty {
                let record = places.record(layer: layer, expert: Expert(expert))
                guard places.places[record] != nil else { continue }
                let slot = freeSlots.removeLast()
                try copy(record, to: slotAddress(slot))
                slotOfRecord[record] = slot
                policy?.add(record, after: .passed)
            }
        }
        try copyStream.synchronize()
    }

    // MARK: - The step

    /// The table that the step's kernels of a layer are given. `begin` has been called.
    func records(layer: Int) -> DeviceAddress {
        (isStaged ? stagedTable! : table).address + DeviceAddress(layer * places.expertCount * 8)
    }

    /// Whether `records` of a step like this one is always the same address.
    func isStaged(rows: Int) -> Bool { !isResident && rows > Self.directRows }

    /// Rows of a step that may read records through the bus: with more, the same record would be read again and again.
    private static let directRows = 64

    /// Brings the table up to date. No step may be running.
    func begin(rows: Int, in stream: CUDAStream) throws(CUDAStatus) {
        isStaged = isStaged(rows: rows)
        if !isResident { try takeInUploads() }
        if !tableIsCurrent {
            let entries = tableCopy.base.assumingMemoryBound(to: DeviceAddress.self)
            for record in places.places.indices { entries[record.index] = address(of: record) }
            try stream.copy(places.recordCount * 8, from: tableCopy.base, to: table.address)
            tableIsCurrent = true
        }
        guard isStaged, let stagedCopy, let stagedTable, let staging else { return }
        let entries = stagedCopy.base.assumingMemoryBound(to: DeviceAddress.self)
        for (turn, layer) in mixtureLayers.enumerated() {
            let buffer = staging.address + DeviceAddress(turn % 2 * (staging.byteCount / 2))
            for expert in 0..<places.expertCount {
                let record = places.record(layer: layer, expert: Expert(expert))
                entries[record.index] =
                    slotOfRecord[record].map { slotAddress($0) } ?? buffer + DeviceAddress(stagedOffset(record, layer))
            }
        }
        try stream.copy(places.recordCount * 8, from: stagedCopy.base, to: stagedTable.address)
        wasUsed = [false, false]
        if !mixtureLayers.isEmpty { try stage(turn: 0) }
    }

    /// Before a layer's kernels: has the next layer's experts come, and waits for this one's.
    func beginLayer(_ layer: Int, in stream: CUDAStream) throws(CUDAStatus) {
        guard isStaged, let turn = mixtureLayers.firstIndex(of: layer) else { return }
        if turn + 1 < mixtureLayers.count { try stage(turn: turn + 1) }
        try stream.wait(for: isReady[turn % 2])
    }

    func endLayer(_ layer: Int, in stream: CUDAStream) throws(CUDAStatus) {
        guard isStaged, let turn = mixtureLayers.firstIndex(of: layer) else { return }
        try isDone[turn % 2].record(in: stream)
        wasUsed[turn % 2] = true
    }

    private func stage(turn: Int) throws(CUDAStatus) {
        let layer = mixtureLayers[turn]
        let buffer = staging!.address + DeviceAddress(turn % 2 * (staging!.byteCount / 2))
        if wasUsed[turn % 2] { try copyStream.wait(for: isDone[turn % 2]) }
        for expert in 0..<places.expertCount {
            let record = places.record(layer: layer, expert: Expert(expert))
            guard slotOfRecord[record] == nil, places.places[record] != nil else { continue }
            try copy(record, to: buffer + DeviceAddress(stagedOffset(record, layer)))
        }
        try isReady[turn % 2].record(in: copyStream)
    }

    private func stagedOffset(_ record: Record, _ layer: Int) -> Int {
        offsets[record] - offsets[places.record(layer: layer, expert: Expert(0))]
    }

    /// Takes note of what a completed step's kept rows used, and has what was missing come into slots.
    ///
    /// - Parameters:
    ///   - kept: rows that stay, in ascending order. The others read experts and leave no trace but bytes.
    ///   - chosen: of each layer, the experts of all rows.
    /// - Returns: bytes that the step read of different records.
    @discardableResult
    func end(kept: [Range<Int>], chosen: (_ layer: Int) -> UnsafeBufferPointer<Int32>) throws(CUDAStatus) -> Int {
        var bytes = 0
        var missed: [Record] = []
        for layer in mixtureLayers {
            let choices = places.choices[layer]
            for rows in kept {
                for expert in chosen(layer)[(rows.lowerBound * choices)..<(rows.upperBound * choices)] {
                    let record = places.record(layer: layer, expert: Expert(Int(expert)))
                    guard !isUsed[record] else { continue }
                    isUsed[record] = true
                    bytes += recordBytes[layer]
                    counts.requests += 1
                    if isResident || slotOfRecord[record] != nil {
                        counts.hits += 1
                        if !isStaged {
                            policy?.remove(record)
                            policy?.add(record, after: .hit)
                        }
                    } else if !isStaged {
                        missed.append(record)
                    }
                }
            }
            for expert in chosen(layer) {
                let record = places.record(layer: layer, expert: Expert(Int(expert)))
                guard !isUsed[record] else { continue }
                isUsed[record] = true
                bytes += recordBytes[layer]
                if !isResident, !isStaged, slotOfRecord[record] == nil {
                    counts.bytesRead += places.places[record]?.byteCount ?? 0
                    counts.reads += 1
                }
            }
            for expert in chosen(layer) {
                isUsed[places.record(layer: layer, expert: Expert(Int(expert)))] = false
            }
        }
        // A step of many rows meets nearly all experts, and leaves the slots as they are.
        guard !isResident else { return bytes }
        if isStaged {
            for record in places.places.indices where slotOfRecord[record] == nil {
                counts.bytesRead += places.places[record]?.byteCount ?? 0
                counts.reads += places.places[record] == nil ? 0 : 1
            }
            return bytes
        }
        counts.bytesRead += missed.reduce(0) { $0 + (places.places[$1]?.byteCount ?? 0) }
        counts.reads += missed.count
        let waiting = Set(pending.map(\.record))
        for record in missed.prefix(Self.uploadsPerStep) where !waiting.contains(record) {
            let event: CUDAEvent
            if let idle = idleEvents.popLast() { event = idle } else { event = try CUDAEvent(device) }
            guard let slot = freeSlots.popLast() ?? evict() else {
                idleEvents.append(event)
                break
            }
            do throws(CUDAStatus) {
                try copy(record, to: slotAddress(slot))
                try event.record(in: copyStream)
            } catch {
                try? copyStream.synchronize()
                freeSlots.append(slot)
                throw error
            }
            pending.append((record, slot, event))
        }
        return bytes
    }

    private func evict() -> Slot? {
        guard let victim = policy?.removeVictim() else { return nil }
        tableIsCurrent = false
        defer { slotOfRecord[victim] = nil }
        return slotOfRecord[victim]
    }

    /// What has come is in the table from now on.
    private func takeInUploads() throws(CUDAStatus) {
        while let first = pending.first, try first.event.hasCome() {
            pending.removeFirst()
            slotOfRecord[first.record] = first.slot
            policy?.add(first.record, after: .missed)
            idleEvents.append(first.event)
            tableIsCurrent = false
        }
    }

    /// Asynchronous, in the copying stream.
    private func copy(_ record: Record, to target: DeviceAddress) throws(CUDAStatus) {
        guard case .host(let memory) = home, let place = places.places[record] else { return }
        try copyStream.copy(place.byteCount, from: memory.base + offsets[record], to: target)
    }

    private func slotAddress(_ slot: Slot) -> DeviceAddress {
        slotMemory!.address + DeviceAddress(slot.index * slotBytes)
    }

    private func address(of record: Record) -> DeviceAddress {
        switch home {
        case .device(let memory): return memory.address + DeviceAddress(offsets[record])
        case .host(let memory):
            return slotOfRecord[record].map { slotAddress($0) } ?? memory.address + DeviceAddress(offsets[record])
        }
    }
}
