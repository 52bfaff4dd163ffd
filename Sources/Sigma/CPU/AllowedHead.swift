import CSigma

/// The largest logits of rows that may choose among few tokens: only these tokens' groups of the output head are computed. One operation of the
/// team.
///
/// A logit has the same bits as the full head gives it: it is computed by the head's own kernel, a group of rows at a time.
final class AllowedHead: TeamOperation, @unchecked Sendable {
    /// Of the head, a group of rows that one row of the step wants.
    private struct Item {
        /// Among the rows that are asked for.
        var row: Int32
        /// The group's first row.
        var first: Int32
    }

    private let context: CPUContext
    private let full: FullHead
    /// Rows of the step that are asked for, and what each wants.
    private var rows: [Int32] = []
    private var counts: [Int] = []
    private var masks: [TokenMask] = []
    private var items: [Item] = []
    /// [members, StepPath.headRows]: the largest logits that a member has met.
    private var lists: [LargestLogits]
    /// The same while the team computes: each member has elements of its own.
    private var memberLists: UnsafeMutableBufferPointer<LargestLogits>?
    private(set) var results: [LargestLogits]

    init(_ context: CPUContext, _ full: FullHead) {
        self.context = context
        self.full = full
        lists = Array(repeating: LargestLogits(), count: context.team.memberCount * StepPath.headRows)
        results = Array(repeating: LargestLogits(), count: StepPath.headRows)
    }

    private var head: WeightMatrix { context.weights.head }

    /// Whether the mask's tokens are in at most so many groups of the head.
    func takes(_ mask: TokenMask, groups limit: Int) -> Bool {
        let size = head.type.groupRows
        guard mask.count <= limit * size else { return false }
        var count = 0
        forEachGroup(of: mask) { _ in count += 1 }
        return count <= limit
    }

    /// Begins a list of rows.
    func begin() {
        rows.removeAll(keepingCapacity: true)
        counts.removeAll(keepingCapacity: true)
        masks.removeAll(keepingCapacity: true)
        items.removeAll(keepingCapacity: true)
    }

    /// Adds a row of the step, of which `count` of the largest logits that the mask allows are wanted.
    func add(row: Int, count: Int, mask: TokenMask) {
        let place = Int32(rows.count)
        rows.append(Int32(row))
        counts.append(count)
        masks.append(mask)
        forEachGroup(of: mask) { items.append(Item(row: place, first: Int32($0))) }
    }

    /// Leaves the largest logits of each row in `results`.
    func find(_ statistics: inout HeadStatistics) {
        for index in lists.indices { lists[index].removeAll() }
        lists.withUnsafeMutableBufferPointer { buffer in
            memberLists = buffer
            context.team.run(self)
            memberLists = nil
        }
        for row in rows.indices {
            results[row].removeAll()
            for member in 0..<context.team.memberCount {
                for logit in lists[place(member, row)].list { results[row].insert(logit, limit: counts[row]) }
            }
        }
        let bytes = items.count * head.type.groupBytes(context.configuration.hiddenSize)
        statistics.allowedRows += rows.count
        statistics.exactRows += items.count
        statistics.bytes += bytes
        context.stepBytes += bytes
        // A mask that nobody needs any more can be written anew.
        masks.removeAll(keepingCapacity: true)
    }

    private func place(_ member: Int, _ row: Int) -> Int { member * StepPath.headRows + row }

    /// Calls `body` with the first row of each group that has a token of the mask, in order.
    private func forEachGroup(of mask: TokenMask, _ body: (Int) -> Void) {
        let size = head.type.groupRows
        let ones: UInt64 = (1 << UInt64(size)) - 1
        for index in 0..<TokenMask.wordCount(mask.vocabularySize) where mask.words[index] != 0 {
            var word = mask.words[index]
            while word != 0 {
                let first = word.trailingZeroBitCount / size * size
                body(index * 64 + first)
                word &= ~(ones << UInt64(first))
            }
        }
    }

    override func perform(_ member: Int32) {
        while let row = context.team.take(0, of: rows.count, member) {
            context.normalize(
                row: Int(rows[row]), to: row, context.weights.finalNorm.pointer, quantized: head.type.isQuantized)
        }
        context.team.barrier(member)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: Int(SIGMA_GROUP)) { out in
            while let index = context.team.take(1, of: items.count, member) {
                let item = items[index]
                let row = Int(item.row)
                let count = full.group(at: Int(item.first), row: row, out.baseAddress!, member)
                let mask = masks[row]
                for offset in 0..<count where mask.allows(Int(item.first) + offset) {
                    memberLists![place(Int(member), row)].insert(
                        TokenLogit(id: item.first + Int32(offset), logit: out[offset]), limit: counts[row])
                }
            }
        }
    }
}
