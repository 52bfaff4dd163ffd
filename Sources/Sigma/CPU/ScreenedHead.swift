import CSigma

/// The largest logits of a step's rows, without most of the output head. One operation of the team.
///
/// A coarse plane gives every logit an upper end; the exact logits of the rows with the best ones give a threshold that the wanted ones
/// reach. Rows that can reach it are looked at in the fine plane, and those that still can are computed exactly, by the head's own kernel: a logit
/// has the same bits as the full head gives it. Sums of estimates are whole numbers, so neither threads nor what is computed beside a row make a
/// difference.
final class ScreenedHead: TeamOperation, @unchecked Sendable {
    let context: CPUContext
    let screen: HeadScreen
    let full: FullHead
    /// Of the step, or what stands in their place for measurements: where each screened row comes from.
    private var rows: [Int32] = []
    /// [rows, vocabulary]: estimates.
    private var logits: UnsafeMutablePointer<Float>

    init(_ context: CPUContext, _ planes: ScreenPlanes, _ full: FullHead) {
        self.context = context
        self.full = full
        screen = HeadScreen(
            planes, head: context.weights.head, memberCount: context.team.memberCount, rowLimit: StepPath.headRows)
        logits = UnsafeMutablePointer(bitPattern: 64)!
    }

    private var kernels: sigma_kernels { context.kernels }
    private var team: ThreadTeam { context.team }

    /// Whether the screen looks for so many of the largest.
    func takes(_ count: Int) -> Bool { (1...HeadScreen.largestCount).contains(count) }

    /// Prefetches what a member reads first.
    func prefetch(_ member: Int32) {
        let first = screen.tileRange(team.share(member, of: screen.tiles)).lowerBound
        sigma_prefetch(screen.planes.group(of: first), 2 * screen.planes.groupBytes)
    }

    /// Begins a list of rows.
    func begin() { rows.removeAll(keepingCapacity: true) }

    /// Adds a row of the step, of which `count` of the largest logits that the mask allows are wanted.
    func add(row: Int, count: Int, mask: TokenMask) {
        screen.begin(row: rows.count, count: count, mask: mask)
        rows.append(Int32(row))
    }

    /// Leaves the largest logits of each row in the screen's results.
    ///
    /// - Parameters:
    ///   - logits: room for [rows, vocabulary].
    ///   - isCounted: whether the rows count as decided by the screen; and those that it leaves to the full head are then computed.
    func find(into logits: UnsafeMutablePointer<Float>, isCounted: Bool, _ counts: inout HeadStatistics) {
        self.logits = logits
        screen.rowCount = rows.count
        team.run(self)
        let head = context.weights.head
        let groupBytes = head.type.groupBytes(context.configuration.hiddenSize)
        var bytes = screen.planes.coarseBytes
        screen.fullRows.removeAll(keepingCapacity: true)
        for row in rows.indices {
            let work = screen.rows[row]
            let fineRows = work.fineRows + min(work.candidateCount, screen.planes.rows)
            counts.fineRows += fineRows
            counts.exactRows += work.exactRows
            bytes += fineRows * screen.planes.rowBytes + work.exactRows * groupBytes
            if work.isFull {
                screen.fullRows.append(Int32(row))
                if isCounted { counts.fallbackRows += 1 }
                continue
            }
            if isCounted { counts.screenedRows += 1 }
            screen.collect(row)
        }
        if isCounted, !screen.fullRows.isEmpty {
            full.begin()
            for row in screen.fullRows {
                full.add(row: Int(row), count: screen.rows[Int(row)].count, mask: screen.masks[Int(row)])
            }
            full.run(areNormed: true, into: logits)
            bytes += head.byteCount
            for (index, row) in screen.fullRows.enumerated() {
                swap(&screen.results[Int(row)], &full.results[index])
            }
        }
        counts.bytes += bytes
        context.stepBytes += bytes
    }

    // MARK: - On the members

    override func perform(_ member: Int32) {
        let screen = screen
        let rowCount = screen.rowCount
        while let row = team.take(0, of: rowCount, member) { prepareState(screen, row, member) }
        team.barrier(member)
        while let tile = team.take(1, of: screen.tiles, member) { estimate(screen, tile, rowCount, member) }
        team.barrier(member)
        while let row = team.take(2, of: rowCount, member) { screen.chooseProbes(row, kernels) }
        team.barrier(member)
        let probes = screen.mostProbes
        while let item = team.take(3, of: rowCount * probes, member) {
            probe(screen, item / probes, item % probes, member)
        }
        team.barrier(member)
        while let row = team.take(4, of: rowCount, member) { screen.setThreshold(row) }
        team.barrier(member)
        while let item = team.take(5, of: rowCount * screen.tiles, member) {
            let row = item / screen.tiles
            screen.counts[screen.place(member, row)].fine += search(screen, row, item % screen.tiles, member)
        }
        team.barrier(member)
        if member == 0 { decide(screen, rowCount, \.fine, \.fineRows, limit: screen.fineLimit) }
        team.barrier(member)
        while let item = team.take(6, of: rowCount * screen.tiles, member) {
            refine(screen, item / screen.tiles, item % screen.tiles, member)
        }
        team.barrier(member)
        if member == 0 { decide(screen, rowCount, \.exact, \.exactRows, limit: screen.exactLimit) }
        team.barrier(member)
        while let item = team.take(7, of: rowCount * screen.tiles, member) {
            computeExactly(screen, item / screen.tiles, item % screen.tiles, member)
        }
    }

    private func estimates(_ row: Int) -> UnsafeMutablePointer<Float> {
        logits + row * context.configuration.vocabularySize
    }

    /// The state as the head's own products see it: where they read 8 bits, those.
    private func prepareState(_ screen: HeadScreen, _ row: Int, _ member: Int32) {
        let hidden = context.configuration.hiddenSize
        let isQuantized = context.weights.head.type.isQuantized
        let normed = context.activations.normed.base + row * hidden
        let blocks = context.activations.normedQuantized.base + row * (hidden / 32)
        if let states = screen.givenStates {
            normed.update(from: states + row * hidden, count: hidden)
            if isQuantized { kernels.quantize_activations(normed, blocks, Int32(hidden)) }
        } else {
            context.normalize(
                row: Int(rows[row]), to: row, context.weights.finalNorm.pointer, quantized: isQuantized)
        }
        let state = context.scratch(member)
        if isQuantized {
            for block in 0..<hidden / 32 {
                let scale = blocks[block].scale
                withUnsafeBytes(of: &blocks[block].q) { q in
                    for i in 0..<32 { state[32 * block + i] = scale * Float(Int8(bitPattern: q[i])) }
                }
            }
        } else {
            state.update(from: normed, count: hidden)
        }
        var input = sigma_activations(
            values: UnsafePointer(state), value_stride: hidden, blocks: nil, block_stride: 0, index: nil)
        var offset: Float = 0
        kernels.matmul_float(
            screen.planes.mean.pointer, Int32(SIGMA_F32), 1, Int32(hidden), &input, 1, &offset, 1)
        screen.setState(row, state, offset: offset)
    }

    /// The upper ends of a tile's logits, and the best of them.
    private func estimate(_ screen: HeadScreen, _ tile: Int, _ rowCount: Int, _ member: Int32) {
        let range = screen.tileRange(tile)
        let stride = context.configuration.vocabularySize
        let tileEstimates = logits + range.lowerBound
        let found = screen.found + Int(member) * HeadScreen.tile
        withUnsafeTemporaryAllocation(of: sigma_screen_state.self, capacity: rowCount) { states in
            for row in 0..<rowCount { states[row] = screen.rows[row].state }
            kernels.screen_rows(
                screen.planes.group(of: range.lowerBound), Int32(range.count), Int32(screen.planes.columns),
                states.baseAddress, Int32(rowCount), tileEstimates, stride)
        }
        for row in 0..<rowCount where !screen.rows[row].isFull {
            let values = tileEstimates + row * stride
            if let words = screen.rows[row].maskWords {
                sigma_screen_mask(values, words + range.lowerBound / 64, Int32(range.count))
            }
            let place = screen.place(member, row)
            let limit = screen.rows[row].candidateCount
            let least = screen.lists[place].least(of: limit)
            let count = Int(sigma_screen_find(values, Int32(range.count), least, Int32(range.lowerBound), found))
            for index in 0..<count {
                let id = found[index]
                screen.lists[place].insert(
                    TokenLogit(id: id, logit: values[Int(id) - range.lowerBound]), limit: limit)
            }
        }
    }

    /// The exact logits of the group that `id` is in (float heads: of it alone): `head`'s bits.
    /// - Returns: the first row and how many there are, in `out` [16].
    private func exactLogits(
        _ id: Int, _ row: Int, _ out: UnsafeMutablePointer<Float>, _ member: Int32
    ) -> (first: Int, count: Int) {
        let groupRows = context.weights.head.type.groupRows
        let first = id / groupRows * groupRows
        return (first, full.group(at: first, row: row, out, member))
    }

    private func probe(_ screen: HeadScreen, _ row: Int, _ index: Int, _ member: Int32) {
        guard !screen.rows[row].isFull, index < screen.probes[row].list.count else { return }
        let id = Int(screen.probes[row].list[index].id)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: Int(SIGMA_GROUP)) { out in
            let place = exactLogits(id, row, out.baseAddress!, member)
            screen.probed[row * 2 * HeadScreen.largestCount + index] = out[id - place.first]
        }
        screen.counts[screen.place(member, row)].exact += 1
        // Once is enough.
        estimates(row)[id] = -.infinity
    }

    /// Rows of a tile that can reach the threshold, in the member's list; returns their number.
    private func search(_ screen: HeadScreen, _ row: Int, _ tile: Int, _ member: Int32) -> Int {
        guard !screen.rows[row].isFull else { return 0 }
        let range = screen.tileRange(tile)
        return Int(
            sigma_screen_find(
                estimates(row) + range.lowerBound, Int32(range.count), screen.rows[row].threshold,
                Int32(range.lowerBound), screen.found + Int(member) * HeadScreen.tile))
    }

    /// Adds up what the members have counted; too much of it makes a row one for the full head.
    private func decide(
        _ screen: HeadScreen, _ rowCount: Int, _ counted: KeyPath<HeadScreen.Counts, Int>,
        _ total: WritableKeyPath<HeadScreen.Row, Int>, limit: Int
    ) {
        for row in 0..<rowCount where !screen.rows[row].isFull {
            var sum = 0
            for member in 0..<team.memberCount {
                sum += screen.counts[screen.place(Int32(member), row)][keyPath: counted]
            }
            if sum > limit + screen.rows[row].probeCount {
                screen.setFull(row)
            } else {
                screen.rows[row][keyPath: total] = sum
            }
        }
    }

    private func refine(_ screen: HeadScreen, _ row: Int, _ tile: Int, _ member: Int32) {
        let count = search(screen, row, tile, member)
        let found = screen.found + Int(member) * HeadScreen.tile
        let values = estimates(row)
        // Rows lie far from each other: a few are on their way while one is read.
        let ahead = 4
        for index in 0..<min(ahead, count) { screen.prefetch(Int(found[index])) }
        for index in 0..<count {
            if index + ahead < count { screen.prefetch(Int(found[index + ahead])) }
            let id = Int(found[index])
            let upperEnd = screen.refined(id, coarse: values[id], row, kernels)
            values[id] = upperEnd
            if upperEnd >= screen.rows[row].threshold { screen.counts[screen.place(member, row)].exact += 1 }
        }
    }

    private func computeExactly(_ screen: HeadScreen, _ row: Int, _ tile: Int, _ member: Int32) {
        let count = search(screen, row, tile, member)
        let found = screen.found + Int(member) * HeadScreen.tile
        let place = screen.place(member, row)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: Int(SIGMA_GROUP)) { out in
            var group = (first: 0, count: 0)
            for index in 0..<count {
                let id = Int(found[index])
                if id >= group.first + group.count { group = exactLogits(id, row, out.baseAddress!, member) }
                screen.lists[place].insert(
                    TokenLogit(id: Int32(id), logit: out[id - group.first]), limit: screen.rows[row].count)
            }
        }
    }
}
