import Sigma

public typealias TextTableRow = (label: String, value: String, remark: String)

/// Labels, values and remarks below each other.
public func textTable(_ rows: [TextTableRow]) -> String {
    let labelWidth = rows.map(\.label.count).max() ?? 0
    let valueWidth = rows.filter { !$0.remark.isEmpty }.map(\.value.count).max() ?? 0
    return rows.map { row in
        let label = row.label + String(repeating: " ", count: labelWidth - row.label.count)
        guard !row.remark.isEmpty else { return "\(label)  \(row.value)\n" }
        let padding = String(repeating: " ", count: max(0, valueWidth - row.value.count))
        return "\(label)  \(row.value)\(padding)  \(row.remark)\n"
    }.joined()
}

/// Lines of as many cells, each column as wide as its widest cell and flush right.
public func columnTable(_ lines: [[String]]) -> String {
    let widths = (lines.first ?? []).indices.map { column in lines.map { $0[column].count }.max()! }
    return lines.map { line in
        zip(line, widths).map { cell, width in String(repeating: " ", count: width - cell.count) + cell }
            .joined(separator: "  ") + "\n"
    }.joined()
}

/// The rows of a device's plan.
package func deviceMemoryRows(_ plan: DeviceMemoryPlan, kvType: KVType, kvBlockBytes: Int) -> [TextTableRow] {
    var rows: [TextTableRow] = [
        ("device memory", ByteSize.text(plan.availableBytes), "may be used"),
        ("dense weights", ByteSize.text(plan.denseBytes), "on the device"),
        ("activations", ByteSize.text(plan.workspaceBytes), "of the largest step, with its logits"),
        ("keys and values", ByteSize.text(kvBlockBytes), "for each 256 positions, \(kvType.rawValue)"),
    ]
    if plan.isResident {
        rows.append(("experts", ByteSize.text(plan.expertBytes), "all, on the device"))
    } else {
        rows.append(("experts", ByteSize.text(plan.expertBytes), "all, in pinned memory of the host"))
        rows.append(
            (
                "expert cache", ByteSize.text(plan.slotCount * plan.slotBytes),
                "\(plan.slotCount) of \(plan.recordCount) experts on the device"
            ))
        rows.append(("layer buffers", ByteSize.text(plan.stagingBytes), "for steps of many rows"))
    }
    let limit = min(plan.contextLength, plan.positionLimit(blockBytes: kvBlockBytes))
    return rows + [("longest sequence", "\(limit) tokens", "alone")]
}

/// The plan's rows of a table: what goes where.
package func memoryPlanRows(_ plan: MemoryPlan, kvType: KVType, kvBlockBytes: Int) -> [TextTableRow] {
    var rows: [TextTableRow] = []
    rows.append(("memory budget", plan.budget.map(ByteSize.text) ?? "none", ""))
    guard plan.budget != nil || !plan.isResident else {
        rows.append(("experts", ByteSize.text(plan.expertBytes), "all, in the mapped file"))
        return rows
    }
    rows.append(("process", ByteSize.text(plan.processBytes), "tokenizer, header, threads"))
    rows.append(("dense weights", ByteSize.text(plan.denseBytes), plan.isResident ? "mapped" : "owned"))
    rows.append(
        (
            "activations", ByteSize.text(plan.activationBytes),
            "\(plan.activationRowBytes >> 10) KiB for each further row"
        ))
    rows.append(("keys and values", ByteSize.text(kvBlockBytes), "for each 256 positions, \(kvType.rawValue)"))
    if plan.isResident {
        rows.append(("experts", ByteSize.text(plan.expertBytes), "all, in the mapped file"))
    } else {
        let slots = plan.slotsAtStart
        rows.append(
            (
                "expert cache", ByteSize.text(slots * plan.slotBytes),
                "\(slots) of \(plan.expertCount) experts of \(ByteSize.text(plan.slotBytes))"
            ))
        rows.append(
            (
                "expected hits", JSONWriter.fixed(plan.expectedHitRate * 100, decimals: 1) + " %",
                "where routing is balanced"
            ))
    }
    if let limit = plan.positionLimit(blockBytes: kvBlockBytes) {
        rows.append(("longest sequence", "\(limit) tokens", "alone, in the budget"))
    }
    return rows
}
