import Sigma
import SystemLibrary

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
    /// Slots for experts, the experts of a token, and all of them.
    private let slots: Int
    private let recordsPerToken: Int
    private let recordCount: Int

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
            recordCount = plan.expertCount
        case .device(let plan):
            isResident = plan.isResident
            self.disk = nil
            missBandwidth = isResident ? nil : busBandwidth
            slots = plan.slotCount
            recordsPerToken = plan.recordsPerToken
            recordCount = plan.recordCount
        }
    }

    /// Bytes that experts may have now.
    var expertCacheBytes: Int { backend.report.expertCacheBytes }
    /// Whether planes find the largest logits.
    var screensHead: Bool { backend.report.screensHead }

    /// Tokens that fill the expert cache: they choose twice as many experts as it has room for, and all but those that it has no room for.
    var warmUpTokens: Int {
        isResident || recordsPerToken == 0
            ? 8 : max(8, 2 * slots / recordsPerToken, tokens(using: Double(slots) / Double(recordCount)))
    }
    /// Random tokens to read before anything is counted: mapped experts come into memory when they are first used.
    var readingTokens: Int {
        guard case .host = memory, isResident, recordsPerToken > 0 else { return 0 }
        return tokens(using: 1)
    }

    /// Random tokens that use this share of the experts, or all but half a percent.
    private func tokens(using share: Double) -> Int {
        let chosen = Double(recordsPerToken) / Double(recordCount)
        return chosen < 1 ? Int((log(max(0.005, 1 - share)) / log(1 - chosen)).rounded(.up)) : 1
    }
}
