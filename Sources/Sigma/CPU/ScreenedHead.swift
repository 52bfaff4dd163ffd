import CSigma

/// The largest logits of a step's rows, without most of the output head.
///
/// A coarse plane gives every logit an upper end; the exact logits of the rows with the best ones give a threshold that the wanted ones
/// reach. Who can reach it is looked at in the fine plane, who still can is computed exactly, by the head's own kernel: a logit has the same
/// bits as `head` gives it. Sums of estimates are whole numbers, so neither threads nor what is computed beside a row make a difference.
extension CPUBackend {
    package var headStatistics: HeadStatistics { headCounts }

    /// Whether the file has planes and they are used.
    package var screensHead: Bool { screen != nil }
    /// Standard deviations that margins are wide: another number is for measurements and tests.
    package var screenDeviations: Float {
        get { screen?.deviations ?? HeadScreen.deviations }
        set { screen?.deviations = newValue }
    }

    /// Whether the screen takes rows that many at once, and so many of their logits.
    private func screens(_ rowCount: Int, _ count: Int) -> Bool {
        // OpenBLAS computes a row among many to other bits than alone.
        screen != nil && (1...HeadScreen.largestCount).contains(count) && !(usesBLAS && rowCount >= Self.blasMinimum)
    }

    package func forEachRow(
        of rows: Range<Int>, largest count: Int, allowed: [Bool],
        _ body: (_ row: Int, _ largest: UnsafeBufferPointer<TokenLogit>) -> Void
    ) {
        for first in stride(from: rows.lowerBound, to: rows.upperBound, by: headRowLimit) {
            let part = first..<min(first + headRowLimit, rows.upperBound)
            guard let screen, screens(part.count, count) else {
                let logits = head(rows: part)
                for row in part {
                    fullSelection.select(count, of: logits.row(row - part.lowerBound, of: part.count), allowed: allowed)
                    fullSelection.list.withUnsafeBufferPointer { body(row, $0) }
                }
                continue
            }
            findLargest(count, rows: part, allowed: allowed)
            for row in part {
                screen.results[row - part.lowerBound].list.withUnsafeBufferPointer { body(row, $0) }
            }
        }
    }

    package func forEachRow(
        of rows: Range<Int>, comparing count: Int, allowed: [Bool],
        _ body: (_ row: Int, _ logits: UnsafeBufferPointer<Float>) -> Void
    ) {
        for first in stride(from: rows.lowerBound, to: rows.upperBound, by: headRowLimit) {
            let part = first..<min(first + headRowLimit, rows.upperBound)
            let compares = screens(part.count, count)
            if compares { findLargest(count, rows: part, allowed: allowed, isCounted: false) }
            let logits = head(rows: part)
            for row in part {
                let index = row - part.lowerBound
                let own = logits.row(index, of: part.count)
                if compares, let screen, !screen.rows[index].isFull {
                    fullSelection.select(count, of: own, allowed: allowed)
                    headCounts.comparedRows += 1
                    if fullSelection.list != screen.results[index].list { headCounts.misses += 1 }
                }
                body(row, own)
            }
        }
    }

    /// Leaves the `count` largest logits of each row in the screen's results.
    ///
    /// - Parameter isCounted: whether the rows count as decided by the screen; and those that it leaves to the full head are then computed.
    func findLargest(_ count: Int, rows: Range<Int>, allowed: [Bool], isCounted: Bool = true) {
        let screen = screen!
        headRows = rows
        screen.begin(rowCount: rows.count, count: count)
        allowed.withUnsafeBytes { bytes in
            screen.allowed = bytes.isEmpty ? nil : bytes.baseAddress!.assumingMemoryBound(to: UInt8.self)
            run(.screen)
            screen.allowed = nil
        }
        let groupBytes = weights.head.type.groupBytes(configuration.hiddenSize)
        var bytes = screen.planes.coarseBytes
        screen.fullRows.removeAll(keepingCapacity: true)
        for row in 0..<rows.count {
            let work = screen.rows[row]
            let fineRows = work.fineRows + min(screen.candidateCount, screen.planes.rows)
            headCounts.fineRows += fineRows
            headCounts.exactRows += work.exactRows
            bytes += fineRows * screen.planes.rowBytes + work.exactRows * groupBytes
            if work.isFull {
                screen.fullRows.append(Int32(row))
                if isCounted { headCounts.fallbackRows += 1 }
                continue
            }
            if isCounted { headCounts.screenedRows += 1 }
            for member in 0..<team.memberCount {
                for logit in screen.lists[screen.place(Int32(member), row)].list {
                    screen.results[row].insert(logit, limit: count)
                }
            }
        }
        if isCounted, !screen.fullRows.isEmpty {
            run(.fullRows)
            bytes += weights.head.byteCount
            let logits = UnsafeBufferPointer(
                start: workspace.logits.base, count: screen.fullRows.count * configuration.vocabularySize)
            for (index, row) in screen.fullRows.enumerated() {
                screen.results[Int(row)].select(
                    count, of: logits.row(index, of: screen.fullRows.count), allowed: allowed)
            }
        }
        headCounts.bytes += bytes
        stepBytes += bytes
    }

    // MARK: - On the members

    /// The rows of which all logits are wanted, one behind the other; their states are as screening left them.
    func fullRowsBody(_ member: Int32) {
        let screen = screen!
        screen.fullRows.withUnsafeBufferPointer { index in
            var input = activations(
                workspace.normed.base, workspace.normedQuantized, width: configuration.hiddenSize)
            input.index = index.baseAddress
            multiplyHead(input, rows: index.count, list: 0, member)
        }
    }

    func screenBody(_ member: Int32) {
        let screen = screen!
        let rowCount = headRows.count
        while let row = team.take(0, of: rowCount, member) { prepareState(screen, row, member) }
        team.barrier(member)
        while let tile = team.take(1, of: screen.tiles, member) { estimate(screen, tile, rowCount, member) }
        team.barrier(member)
        while let row = team.take(2, of: rowCount, member) { screen.chooseProbes(row, kernels) }
        team.barrier(member)
        while let item = team.take(3, of: rowCount * screen.probeCount, member) {
            probe(screen, item / screen.probeCount, item % screen.probeCount, member)
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
        workspace.logits.base + row * configuration.vocabularySize
    }

    /// The state as the head's own products see it: where they read 8 bits, those.
    private func prepareState(_ screen: HeadScreen, _ row: Int, _ member: Int32) {
        let hidden = configuration.hiddenSize
        let isQuantized = weights.head.type.isQuantized
        let normed = workspace.normed.base + row * hidden
        let blocks = workspace.normedQuantized.base + row * (hidden / 32)
        if let states = screen.givenStates {
            normed.update(from: states + row * hidden, count: hidden)
            if isQuantized { kernels.quantize_activations(normed, blocks, Int32(hidden)) }
        } else {
            normalize(
                row: headRows.lowerBound + row, to: row, weights.finalNorm.pointer, quantized: isQuantized)
        }
        let state = scratch(member)
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
        let stride = configuration.vocabularySize
        let tileEstimates = workspace.logits.base + range.lowerBound
        let found = screen.found + Int(member) * HeadScreen.tile
        withUnsafeTemporaryAllocation(of: sigma_screen_state.self, capacity: rowCount) { states in
            for row in 0..<rowCount { states[row] = screen.rows[row].state }
            kernels.screen_rows(
                screen.planes.group(of: range.lowerBound), Int32(range.count), Int32(screen.planes.columns),
                states.baseAddress, Int32(rowCount), tileEstimates, stride)
        }
        for row in 0..<rowCount where !screen.rows[row].isFull {
            let values = tileEstimates + row * stride
            if let allowed = screen.allowed {
                sigma_screen_mask(values, allowed + range.lowerBound, Int32(range.count))
            }
            let place = screen.place(member, row)
            let limit = screen.candidateCount
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
        let head = weights.head
        let groupRows = head.type.groupRows
        let first = id / groupRows * groupRows
        let count = min(groupRows, head.rows - first)
        let input = activations(
            workspace.normed.base, workspace.normedQuantized, width: configuration.hiddenSize, first: row)
        multiply(head, first, count, input, rows: 1, out, stride: count, member)
        return (first, count)
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
            if sum > limit + screen.probeCount { screen.setFull(row) } else { screen.rows[row][keyPath: total] = sum }
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
                    TokenLogit(id: Int32(id), logit: out[id - group.first]), limit: screen.count)
            }
        }
    }
}
