import CSigma

/// Final norm and output head: all logits of some rows, or the largest of them.
final class CPUHead: @unchecked Sendable {
    struct Buffers: CPUBuffers {
        let vocabularySize: Int
        /// [rows asked for at once, vocabulary]; the screen keeps its estimates here.
        var logits = CPUBuffer<Float>()

        mutating func visit(_ shape: StepShape, _ visitor: inout some BufferVisitor) throws {
            try visitor.visit(&logits, min(shape.rows, StepPath.headRows) * vocabularySize)
        }
    }

    let context: CPUContext
    var buffers: Buffers
    let full: FullHead
    /// Nil: the file has no planes, or they are not to be used.
    let screened: ScreenedHead?
    /// For rows that may choose among few tokens.
    private let allowed: AllowedHead
    /// More rows than these of one step go through the full head, which costs less then. For tests and measurements.
    var mostScreenedRows = StepPath.screenedRows
    var counts = HeadStatistics()
    private var selection = LargestLogits()
    // Indices of the requests of one call, by what computes them.
    private var allowedRequests: [Int] = []
    private var screenedRequests: [Int] = []
    private var fullRequests: [Int] = []
    private var comparedRequests: [Int] = []

    init(_ context: CPUContext) {
        self.context = context
        buffers = Buffers(vocabularySize: context.configuration.vocabularySize)
        let full = FullHead(context)
        self.full = full
        screened = context.weights.screen.map { ScreenedHead(context, $0, full) }
        allowed = AllowedHead(context, full)
    }

    /// Logits [rows, vocabulary] of rows of the step, valid until the next call.
    func logits(_ rows: [Int32]) -> UnsafeBufferPointer<Float> {
        precondition(rows.count <= StepPath.headRows && rows.allSatisfy { $0 >= 0 && $0 < context.rowCount })
        full.begin()
        for row in rows { full.add(row: Int(row), count: 0, mask: nil) }
        computeAll(rows.count)
        return UnsafeBufferPointer(start: buffers.logits.base, count: rows.count * buffers.vocabularySize)
    }

    /// The rows that the full head has been given.
    private func computeAll(_ rowCount: Int) {
        counts.fullRows += rowCount
        context.stepBytes += context.weights.head.byteCount
        counts.bytes += context.weights.head.byteCount
        full.run(areNormed: false, into: buffers.logits.base)
    }

    /// Prefetches what a member reads first of the head.
    func prefetch(_ member: Int32) {
        if let screened, context.rowCount <= mostScreenedRows { return screened.prefetch(member) }
        let head = context.weights.head
        let tile = context.team.share(member, of: full.tiles)
        context.prefetch(head, tile * CPUContext.headTile)
    }

    // MARK: - Requests

    /// Rows whose largest logits are wanted are computed of the allowed tokens alone where these are few, else go through the screen where it
    /// takes them; all others through the full head. That reads its bytes once for all its rows, while the screen looks for each row's
    /// candidates apart: many rows, and those beside a row that needs all logits, are the full head's.
    func read(_ requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void) {
        allowedRequests.removeAll(keepingCapacity: true)
        screenedRequests.removeAll(keepingCapacity: true)
        fullRequests.removeAll(keepingCapacity: true)
        for (index, request) in requests.enumerated() {
            if allows(request) {
                allowedRequests.append(index)
            } else if case .largest(let count) = request.wish, let screened, screened.takes(count) {
                screenedRequests.append(index)
            } else {
                fullRequests.append(index)
            }
        }
        if !fullRequests.isEmpty || screenedRequests.count > mostScreenedRows {
            fullRequests += screenedRequests
            fullRequests.sort()
            screenedRequests.removeAll(keepingCapacity: true)
        }
        // OpenBLAS computes a row among many to other bits than alone.
        if context.usesBLAS, allowedRequests.count + screenedRequests.count >= StepPath.blasMinimum {
            fullRequests = Array(requests.indices)
            allowedRequests.removeAll(keepingCapacity: true)
            screenedRequests.removeAll(keepingCapacity: true)
        }
        for first in stride(from: 0, to: allowedRequests.count, by: StepPath.headRows) {
            readAllowed(
                allowedRequests[first..<min(first + StepPath.headRows, allowedRequests.count)], of: requests, body)
        }
        for first in stride(from: 0, to: screenedRequests.count, by: StepPath.headRows) {
            let part = screenedRequests[first..<min(first + StepPath.headRows, screenedRequests.count)]
            readScreened(part, of: requests, body)
        }
        for first in stride(from: 0, to: fullRequests.count, by: StepPath.headRows) {
            let part = fullRequests[first..<min(first + StepPath.headRows, fullRequests.count)]
            readFull(part, of: requests, body)
        }
    }

    /// Whether the allowed tokens of a row are so few that what they need of the head is well below what else would be read.
    private func allows(_ request: LogitRequest) -> Bool {
        guard case .largest(let count) = request.wish, !request.mask.allowsAll else { return false }
        let head = context.weights.head
        let other = screened.map { $0.takes(count) ? $0.screen.planes.coarseBytes : head.byteCount } ?? head.byteCount
        let groups = other / StepPath.allowedHeadShare / head.type.groupBytes(context.configuration.hiddenSize)
        return allowed.takes(request.mask, groups: groups)
    }

    private func readAllowed(
        _ part: ArraySlice<Int>, of requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void
    ) {
        allowed.begin()
        for index in part {
            allowed.add(
                row: requests[index].row, count: requests[index].wish.largestCount ?? 0, mask: requests[index].mask)
        }
        allowed.find(&counts)
        for (place, index) in part.enumerated() {
            allowed.results[place].list.withUnsafeBufferPointer { body(index, .largest($0)) }
        }
    }

    private func readScreened(
        _ part: ArraySlice<Int>, of requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void
    ) {
        guard let screened else { return }
        find(part, of: requests, screened, isCounted: true)
        for (place, index) in part.enumerated() {
            screened.screen.results[place].list.withUnsafeBufferPointer { body(index, .largest($0)) }
        }
    }

    private func find(
        _ part: ArraySlice<Int>, of requests: [LogitRequest], _ screened: ScreenedHead, isCounted: Bool
    ) {
        screened.begin()
        for index in part {
            let request = requests[index]
            screened.add(row: request.row, count: request.wish.largestCount ?? 0, mask: request.mask)
        }
        screened.find(into: buffers.logits.base, isCounted: isCounted, &counts)
    }

    private func readFull(
        _ part: ArraySlice<Int>, of requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void
    ) {
        // Where both ways are to be compared, the screen comes first: it uses the same memory.
        comparedRequests.removeAll(keepingCapacity: true)
        if let screened, !(context.usesBLAS && part.count >= StepPath.blasMinimum) {
            for index in part where requests[index].wish.comparison.map(screened.takes) ?? false {
                comparedRequests.append(index)
            }
            if !comparedRequests.isEmpty { find(comparedRequests[...], of: requests, screened, isCounted: false) }
        }
        var comparedPlace = 0
        full.begin()
        for index in part {
            if case .largest(let count) = requests[index].wish {
                full.add(row: requests[index].row, count: count, mask: requests[index].mask)
            } else {
                full.add(row: requests[index].row, count: 0, mask: nil)
            }
        }
        computeAll(part.count)
        let logits = UnsafeBufferPointer(start: buffers.logits.base, count: part.count * buffers.vocabularySize)
        for (place, index) in part.enumerated() {
            let own = logits.row(place, of: part.count)
            let request = requests[index]
            switch request.wish {
            case .largest: full.results[place].list.withUnsafeBufferPointer { body(index, .largest($0)) }
            case .all(let comparison):
                if comparedPlace < comparedRequests.count, comparedRequests[comparedPlace] == index {
                    compare(place: comparedPlace, largest: comparison ?? 0, of: own, mask: request.mask)
                    comparedPlace += 1
                }
                body(index, .all(own))
            }
        }
    }

    /// Counts whether the screen, where it decided, found the same as all logits say.
    private func compare(place: Int, largest count: Int, of logits: UnsafeBufferPointer<Float>, mask: TokenMask) {
        guard let screen = screened?.screen, !screen.rows[place].isFull else { return }
        selection.select(count, of: logits, mask: mask)
        counts.comparedRows += 1
        if selection.list != screen.results[place].list { counts.misses += 1 }
    }
}

extension LogitRequest.Wish {
    /// How many of the largest are looked for.
    fileprivate var largestCount: Int? {
        switch self {
        case .largest(let count): count
        case .all(let comparison): comparison
        }
    }

    fileprivate var comparison: Int? {
        if case .all(let count) = self { return count }
        return nil
    }
}
