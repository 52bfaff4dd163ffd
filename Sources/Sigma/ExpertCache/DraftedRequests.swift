/// What a step with drafts asked a cache for, until it is known which of its rows stay.
struct DraftedRequests: Sendable {
    struct Request: Sendable {
        let record: Record
        /// The step's rows that chose it.
        let rows: RowSet
        /// What the policy is told if one of them stays.
        let use: RecordUse
        /// What it added to the statistics.
        let counted: ExpertStatistics
    }

    /// As they were when the step began.
    let policy: any EvictionPolicy
    let records: TypedArray<Record, RecordState>
    /// In their order.
    private(set) var requests: [Request] = []

    init(policy: any EvictionPolicy, records: TypedArray<Record, RecordState>) {
        self.policy = policy
        self.records = records
    }

    mutating func note(_ request: Request) { requests.append(request) }
}

extension ExpertCacheState {
    /// A step with drafts has ended, and everything that it was given is verified. The policy's order becomes what it would be if only the kept rows had
    /// asked: what others asked for keeps its place, or comes first where it was read for them. Hits count for kept rows only.
    package mutating func endDrafts(kept: RowSet) {
        guard let drafted else { return }
        self.drafted = nil
        var order = drafted.policy
        var isOrdered = TypedArray<Record, Bool>(repeating: false, count: table.recordCount)
        for index in 0..<table.recordCount {
            let record = Record(index)
            guard drafted.records[record].isIdle else { continue }
            if records[record].isIdle { isOrdered[record] = true } else { order.remove(record) }
        }
        for request in drafted.requests {
            let record = request.record
            guard request.rows.intersects(kept) else {
                statistics = statistics - request.counted
                continue
            }
            if isOrdered[record] { order.remove(record) }
            order.add(record, after: request.use)
            isOrdered[record] = records[record].isIdle
            // It was used, and has left since: policies may count that.
            if !isOrdered[record] { order.remove(record) }
        }
        for index in 0..<table.recordCount {
            let record = Record(index)
            if records[record].isIdle, !isOrdered[record] { order.add(record, after: .passed) }
        }
        policy = order
    }
}

extension RecordState {
    var isIdle: Bool {
        if case .idle = self { return true }
        return false
    }
}
