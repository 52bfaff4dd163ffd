import Sigma
import SigmaCommand

/// What goes where in memory, and what to expect of it.
struct MemoryReport {
    let plan: MemoryPlan
    let machine: Machine
    let disk: DiskBandwidth?
    /// Generated tokens per second with all experts in memory, at most.
    let computeSpeed: Double
    let kvType: KVType
    let kvBlockBytes: Int

    var text: String {
        var rows = memoryPlanRows(plan, kvType: kvType, kvBlockBytes: kvBlockBytes)
        if let disk {
            rows.append(
                (
                    "disk", JSONWriter.fixed(disk.bytesPerSecond / 1e9, decimals: 2) + " GB/s",
                    disk.isDirect ? "direct reads of whole records" : "through the page cache: no direct reads here"
                ))
            let missTime = plan.expectedMissBytes / disk.bytesPerSecond
            rows.append(
                (
                    "expected speed", JSONWriter.fixed(1 / (missTime + 1 / computeSpeed), decimals: 1) + " tokens/s",
                    "at most, without prefetching; \(JSONWriter.fixed(computeSpeed, decimals: 0)) with all experts in memory"
                ))
        } else {
            rows.append(("expected speed", JSONWriter.fixed(computeSpeed, decimals: 1) + " tokens/s", "at most"))
        }
        return textTable(rows)
    }
}
