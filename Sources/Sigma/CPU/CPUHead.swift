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
    var counts = HeadStatistics()
    private var selection = LargestLogits()
    // Indices of the requests of one call, by what computes them.
    private var allowedRequests: [Int] = []
    private var screenedRequests: [Int] = []
    private var fullRequests: [Int] = []
    private var comparedRequests: [Int] = []
    private var rows: [Int32] = []

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
        counts.fullRows += rows.count
        countRead()
        full.run(residualRows: rows, into: buffers.logits.base)
        return UnsafeBufferPointer(start: buffers.logits.base, count: rows.count * buffers.vocabularySize)
    }

    private func countRead() {
        context.stepBytes += context.weights.head.byteCount
        counts.bytes += context.weights.head.byteCount
    }

    /// Prefetches what a member reads first of the head.
    func prefetch(_ member: Int32) {
        if let screened { return screened.prefetch(member) }
        let head = context.weights.head
        let tile = context.team.share(member, of: full.tiles)
        context.prefetch(head, tile * CPUContext.headTile)
    }

    // MARK: - Requests

    /// Rows whose largest logits are wanted are computed of the allowed tokens alone where these are few, else go through the screen where it
    /// takes them; all others through the full head.
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
        rows.removeAll(keepingCapacity: true)
        for index in part { rows.append(Int32(requests[index].row)) }
        let logits = logits(rows)
        for (place, index) in part.enumerated() {
            let own = logits.row(place, of: part.count)
            let request = requests[index]
            switch request.wish {
            case .largest(let count):
                selection.select(count, of: own, mask: request.mask)
                selection.list.withUnsafeBufferPointer { body(index, .largest($0)) }
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

/// All logits of some rows: one operation of the team.
final class FullHead: TeamOperation, @unchecked Sendable {
    private let context: CPUContext
    private var rows: [Int32] = []
    private var areNormed = false
    private var logits: UnsafeMutablePointer<Float>

    init(_ context: CPUContext) {
        self.context = context
        logits = UnsafeMutablePointer(bitPattern: 64)!
    }

    var tiles: Int { (context.weights.head.rows + CPUContext.headTile - 1) / CPUContext.headTile }

    /// The logits of the group of rows of the head that begins at `first`, in `out` [16]: of float types it is one row.
    ///
    /// - Parameter row: after the final norm.
    /// - Returns: how many they are.
    func group(at first: Int, row: Int, _ out: UnsafeMutablePointer<Float>, _ member: Int32) -> Int {
        let head = context.weights.head
        let count = min(head.type.groupRows, head.rows - first)
        let input = context.input(
            context.activations.normed.base, context.activations.normedQuantized,
            width: context.configuration.hiddenSize,
            first: row)
        context.multiply(head, first, count, input, rows: 1, out, stride: count, member)
        return count
    }

    /// logits [rows, vocabulary] of rows of the residual stream.
    func run(residualRows: [Int32], into logits: UnsafeMutablePointer<Float>) {
        run(residualRows, areNormed: false, into: logits)
    }

    /// The same of rows that lie after the final norm already.
    func run(normedRows: [Int32], into logits: UnsafeMutablePointer<Float>) {
        run(normedRows, areNormed: true, into: logits)
    }

    private func run(_ rows: [Int32], areNormed: Bool, into logits: UnsafeMutablePointer<Float>) {
        self.rows = rows
        self.areNormed = areNormed
        self.logits = logits
        context.team.run(self)
        // Kept, it would make the caller's array, which is filled again each step, take new memory.
        self.rows = []
    }

    override func perform(_ member: Int32) {
        let head = context.weights.head
        rows.withUnsafeBufferPointer { rows in
            if !areNormed {
                while let index = context.team.take(0, of: rows.count, member) {
                    context.normalize(
                        row: Int(rows[index]), to: index, context.weights.finalNorm.pointer,
                        quantized: head.type.isQuantized)
                }
                context.team.barrier(member)
            }
            var input = context.input(
                context.activations.normed.base, context.activations.normedQuantized,
                width: context.configuration.hiddenSize)
            if areNormed { input.index = rows.baseAddress }
            while let tile = context.team.take(1, of: tiles, member) {
                let first = tile * CPUContext.headTile
                context.multiply(
                    head, first, min(CPUContext.headTile, head.rows - first), input, rows: rows.count, logits + first,
                    stride: context.configuration.vocabularySize, member)
            }
        }
    }
}
