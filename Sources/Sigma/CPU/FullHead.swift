/// All logits of some rows, and the largest of them where these are wanted: one operation of the team.
final class FullHead: TeamOperation, @unchecked Sendable {
    /// What a row wants beside its logits.
    private struct Wish {
        /// So many of the largest; 0: none.
        var count = 0
        /// Bits of the tokens that may be chosen; nil: all.
        var maskWords: UnsafePointer<UInt64>?
    }

    private let context: CPUContext
    // Of the call.
    private var rows: [Int32] = []
    /// Held while their bits are read.
    private var masks: [TokenMask] = []
    private var areNormed = false
    private var logits: UnsafeMutablePointer<Float>
    /// [headRows]
    private let wishes: UnsafeMutablePointer<Wish>
    /// [members, headRows]: the largest logits that a member has met.
    private let lists: UnsafeMutablePointer<LargestLogits>
    /// [headRows]: the largest logits of all.
    let results: UnsafeMutablePointer<LargestLogits>
    /// [members, headTile]
    private let found: UnsafeMutablePointer<Int32>

    init(_ context: CPUContext) {
        self.context = context
        logits = UnsafeMutablePointer(bitPattern: 64)!
        wishes = .allocate(capacity: StepPath.headRows)
        wishes.initialize(repeating: Wish(), count: StepPath.headRows)
        let listCount = context.team.memberCount * StepPath.headRows
        lists = .allocate(capacity: listCount)
        lists.initialize(repeating: LargestLogits(), count: listCount)
        results = .allocate(capacity: StepPath.headRows)
        results.initialize(repeating: LargestLogits(), count: StepPath.headRows)
        found = .allocate(capacity: context.team.memberCount * CPUContext.headTile)
    }

    deinit {
        wishes.deallocate()
        lists.deinitialize(count: context.team.memberCount * StepPath.headRows)
        lists.deallocate()
        results.deinitialize(count: StepPath.headRows)
        results.deallocate()
        found.deallocate()
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

    /// Begins a list of rows.
    func begin() { rows.removeAll(keepingCapacity: true) }

    /// Adds a row, of which `count` of the largest logits that the mask allows are wanted beside all of them.
    func add(row: Int, count: Int, mask: TokenMask?) {
        let place = rows.count
        rows.append(Int32(row))
        wishes[place] = Wish(count: count)
        if let mask, !mask.allowsAll {
            masks.append(mask)
            wishes[place].maskWords = mask.words
        }
        results[place].removeAll()
        guard count > 0 else { return }
        for member in 0..<context.team.memberCount { lists[member * StepPath.headRows + place].removeAll() }
    }

    /// logits [rows, vocabulary] of the list, and what it wants of them in `results`.
    ///
    /// - Parameter areNormed: whether rows are those after the final norm, not of the residual stream.
    func run(areNormed: Bool, into logits: UnsafeMutablePointer<Float>) {
        self.areNormed = areNormed
        self.logits = logits
        context.team.run(self)
        for place in rows.indices where wishes[place].count > 0 {
            for member in 0..<context.team.memberCount {
                for logit in lists[member * StepPath.headRows + place].list {
                    results[place].insert(logit, limit: wishes[place].count)
                }
            }
        }
        masks.removeAll(keepingCapacity: true)
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
                let count = min(CPUContext.headTile, head.rows - first)
                context.multiply(
                    head, first, count, input, rows: rows.count, logits + first,
                    stride: context.configuration.vocabularySize, member)
                for place in rows.indices where wishes[place].count > 0 { select(first, count, place, member) }
            }
        }
    }

    /// Takes the largest of a tile's logits into the member's list, while the tile is in the first cache.
    private func select(_ first: Int, _ count: Int, _ place: Int, _ member: Int32) {
        let wish = wishes[place]
        let list = lists + (Int(member) * StepPath.headRows + place)
        let values = logits + (place * context.configuration.vocabularySize + first)
        list.pointee.take(
            UnsafeBufferPointer(start: values, count: count), first: first, allowed: wish.maskWords, limit: wish.count,
            found: found + Int(member) * CPUContext.headTile)
    }
}
