import Sigma

/// A back end that is measured, with what its rows say of it.
struct Subject {
    let backend: any EngineBackend
    /// Of the processor; 1 where a device computes.
    let threads: Int
    let machine: Machine
    let memory: BackendReport.Memory
    /// Whether all experts lie where they are computed with.
    let isResident: Bool
    /// Bytes per second at which experts come that are not there: from the disk, or across the bus from the host's memory; nil: all are there.
    let missBandwidth: Double?
    let disk: DiskBandwidth?
    /// Slots for experts, and the experts of a token.
    private let slots: Int
    private let recordsPerToken: Int

    /// - Parameters:
    ///   - machine: of the CPU, measured with the back end's threads; or of the device.
    ///   - disk: of the model file; nil where it has no experts, or where nobody asks for its speed.
    ///   - busBandwidth: bytes per second from the host to the device.
    init(
        _ backend: any EngineBackend, machine: Machine, disk: DiskBandwidth? = nil, busBandwidth: Double? = nil
    ) {
        let report = backend.report
        self.backend = backend
        self.machine = machine
        threads = report.threads ?? 1
        memory = report.memory
        switch report.memory {
        case .host(let plan):
            isResident = plan.isResident
            self.disk = isResident ? nil : disk
            missBandwidth = self.disk?.bytesPerSecond
            slots = plan.slotsAtStart
            recordsPerToken = plan.recordsPerToken
        case .device(let plan):
            isResident = plan.isResident
            self.disk = nil
            missBandwidth = isResident ? nil : busBandwidth
            slots = plan.slotCount
            recordsPerToken = plan.recordsPerToken
        }
    }

    /// Bytes that experts may have now.
    var expertCacheBytes: Int { backend.report.expertCacheBytes }
    /// Whether planes find the largest logits.
    var screensHead: Bool { backend.report.screensHead }

    /// Tokens that fill the expert cache twice.
    var warmUpTokens: Int { isResident || recordsPerToken == 0 ? 8 : max(8, 2 * slots / recordsPerToken) }
    /// Random tokens to read before anything is counted. Mapped experts come into memory when they are first used: at top-1 of 96, 512 tokens
    /// use all but half a percent of them.
    var readingTokens: Int {
        guard case .host = memory, isResident, recordsPerToken > 0 else { return 0 }
        return 512
    }
}
