import CCUDA

// Logits by row: the largest are found on the device, and only they come to the host.
extension CUDABackend {
    package func readLogits(_ requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void) {
        LogitRequest.forEachRun(requests, limit: headRowLimit) { run in
            // Each part of a run wants the same of its rows, and allows the same.
            var first = run.lowerBound
            while first < run.upperBound {
                var end = first + 1
                while end < run.upperBound, requests[end].wish == requests[first].wish,
                    requests[end].mask === requests[first].mask
                { end += 1 }
                let rows = requests[first].row..<requests[first].row + end - first
                switch requests[first].wish {
                case .largest(let count): readLargest(count, rows, requests[first].mask) { body(first + $0, $1) }
                case .all:
                    let logits = head(rows: rows)
                    for index in 0..<rows.count { body(first + index, .all(logits.row(index, of: rows.count))) }
                }
                first = end
            }
        }
    }

    private func readLargest(
        _ count: Int, _ rows: Range<Int>, _ mask: TokenMask, _ body: (_ index: Int, _ logits: RowLogits) -> Void
    ) {
        guard count > 0, count <= Int(SIGMA_CUDA_MAX_TOP) else {
            var largest = LargestLogits()
            let logits = head(rows: rows)
            for index in 0..<rows.count {
                largest.select(count, of: logits.row(index, of: rows.count), mask: mask)
                largest.list.withUnsafeBufferPointer { body(index, .largest($0)) }
            }
            return
        }
        let keys = largestKeys(count, rows, mask)
        var list: [TokenLogit] = []
        for index in 0..<rows.count {
            list.removeAll(keepingCapacity: true)
            // After a failure there are none, and nothing is chosen from the step.
            for key in keys.dropFirst(index * count).prefix(count) where key != 0 {
                let logit = sigma_cuda_key_logit(key)
                if logit.isFinite { list.append(TokenLogit(id: sigma_cuda_key_id(key), logit: logit)) }
            }
            list.withUnsafeBufferPointer { body(index, .largest($0)) }
        }
    }
}

extension CUDABackend: StepMemory {
    package var rowLimit: Int { workspace.rowLimit }
    package var batchRowLimit: Int { rowLimit }
    package var sharedRowLimit: Int { rowLimit }

    package func positionLimit(kvType: KVType) -> Int? {
        memoryPlan.positionLimit(blockBytes: KVBlockLayout(device: kvType, configuration).byteCount)
    }

    /// Activations have their place; what decides is whether the blocks that are missing fit.
    package func room(for sequence: SequenceState, limit: Int, beside batch: Batch) -> Int {
        let limit = min(limit, rowLimit - batch.tokens.count)
        guard limit > 0 else { return 0 }
        let others = batch.segments.reduce(0) { $0 + $1.sequence.growth(to: $1.position + $1.count) }
        func fits(_ count: Int) -> Bool {
            pool.hasRoom(for: others + sequence.growth(to: sequence.length + count))
        }
        if fits(limit) { return limit }
        // What the blocks hold that fit.
        var (fitting, failing) = (0, limit)
        while failing - fitting > 1 {
            let middle = (fitting + failing) / 2
            if fits(middle) { fitting = middle } else { failing = middle }
        }
        return fitting
    }

    package func hasRoom(for sequence: SequenceState, positions: Int) -> Bool {
        pool.hasRoom(for: sequence.growth(to: positions))
    }

    package func reserve(_ positions: Int, of sequence: SequenceState) throws { try sequence.reserve(positions) }
}

extension CUDABackend: BackendReporting {
    package var expertStatistics: ExpertStatistics { experts.statistics }
    package var headStatistics: HeadStatistics { HeadStatistics() }

    package var report: BackendReport {
        BackendReport(
            name: "cuda", deviceName: device.name, architecture: device.architecture, experts: expertStatistics,
            head: headStatistics, expertCacheBytes: experts.byteCount, memory: .device(memoryPlan))
    }
}
