import Sigma
import SigmaCommand

/// Memory that measuring the machine may take: before a model is loaded, all that its budget leaves beside the process as it is.
struct MeasuringMemory {
    let bytes: Int

    /// - Parameter budget: of the process; nil: what the system lets it have.
    init(budget: Int?) {
        let used = ProcessUsage.peakMemory + Self.slack
        bytes = (budget ?? AvailableMemory.offer?.budget).map { $0 - used } ?? .max
    }

    /// - Throws: `SigmaError(.unavailable)` with the least budget that works.
    func check() throws {
        guard bytes < Self.least else { return }
        let needed = ProcessUsage.peakMemory + Self.slack + Self.least
        throw SigmaError(
            .unavailable,
            "the memory limit has no room for measuring the machine (\(ByteSize.text(needed)) are needed)",
            remedy: .raise(.memory, least: "\((needed >> 20) + 1) MiB"))
    }

    /// Threads and what they touch while they measure.
    private static let slack = 4 << 20
    private static let least = 8 << 20
}
