/// What a back end is and what it did since it was made: for statistics and tables.
package struct BackendReport: Sendable {
    /// Where the memory goes.
    package enum Memory: Sendable {
        case host(MemoryPlan)
        case device(DeviceMemoryPlan)
    }

    package var name: String
    /// Level of the CPU's kernels; nil elsewhere.
    package var instructionSet: String?
    /// Threads that compute; nil elsewhere.
    package var threads: Int?
    /// Of a device.
    package var deviceName: String?
    package var architecture: String?
    package var experts: ExpertStatistics
    package var head: HeadStatistics
    /// Whether low-bit planes find the largest logits.
    package var screensHead: Bool
    /// Bytes of the slots that experts may use now; of all experts where they all stay.
    package var expertCacheBytes: Int
    package var memory: Memory

    package init(
        name: String, instructionSet: String? = nil, threads: Int? = nil, deviceName: String? = nil,
        architecture: String? = nil,
        experts: ExpertStatistics, head: HeadStatistics, screensHead: Bool = false, expertCacheBytes: Int,
        memory: Memory
    ) {
        self.name = name
        self.instructionSet = instructionSet
        self.threads = threads
        self.deviceName = deviceName
        self.architecture = architecture
        self.experts = experts
        self.head = head
        self.screensHead = screensHead
        self.expertCacheBytes = expertCacheBytes
        self.memory = memory
    }
}

package protocol BackendReporting: AnyObject, Sendable {
    var report: BackendReport { get }
    /// Of `report` alone: read before and after every request.
    var expertStatistics: ExpertStatistics { get }
    var headStatistics: HeadStatistics { get }
}
