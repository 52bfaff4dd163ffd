import Sigma

/// A back end that is measured, with what its rows say of it.
struct Subject {
    let backend: any Backend
    /// Of the processor; 1 where a device computes.
    let threads: Int
    let machine: Machine
    /// Of the CPU back end.
    let plan: MemoryPlan?
    /// Whether all experts lie where they are computed with.
    let isResident: Bool
    /// Bytes per second at which experts come that are not there: from the disk, or across the bus from the host's memory; nil: all are there.
    let missBandwidth: Double?
    let disk: DiskBandwidth?
    /// Slots for experts, and the experts of a token.
    private let slots: Int
    private let recordsPerToken: Int

    /// - Parameters:
    ///   - machine: of the CPU, measured with these threads.
    ///   - disk: of the model file; nil where it has no experts, or where nobody asks for its speed.
    init(_ backend: CPUBackend, machine: Machine, disk: DiskBandwidth?) {
        self.backend = backend
        self.machine = machine
        threads = backend.threadCount
        plan = backend.memoryPlan
        isResident = backend.memoryPlan.isResident
        self.disk = isResident ? nil : disk
        missBandwidth = self.disk?.bytesPerSecond
        slots = backend.memoryPlan.slotsAtStart
        recordsPerToken = backend.memoryPlan.recordsPerToken
    }

    init(_ backend: CUDABackend, _ device: DeviceMeasurement) {
        self.backend = backend
        machine = Machine(device)
        threads = 1
        plan = nil
        isResident = backend.memoryPlan.isResident
        disk = nil
        missBandwidth = isResident ? nil : device.busBandwidth
        slots = backend.memoryPlan.slotCount
        recordsPerToken = backend.memoryPlan.recordsPerToken
    }

    /// Bytes that experts may have now.
    var expertCacheBytes: Int {
        (backend as? CPUBackend)?.expertCacheBytes ?? (backend as? CUDABackend)?.expertCacheBytes ?? 0
    }

    /// Whether planes find the largest logits.
    var screensHead: Bool { (backend as? CPUBackend)?.screensHead ?? false }

    /// Tokens that fill the expert cache twice.
    var warmUpTokens: Int { isResident || recordsPerToken == 0 ? 8 : max(8, 2 * slots / recordsPerToken) }
}
