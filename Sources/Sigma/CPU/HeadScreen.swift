import CSigma

/// What screening an output head works on: the states of a step's rows, and what is known of each row's largest logits. One is used again
/// from step to step; nothing is allocated once its lists have grown.
final class HeadScreen: @unchecked Sendable {
    /// Margins are this many standard deviations of an estimate's error wide, errors taken as noise: docs/screened-head.md says what was measured.
    static let deviations: Float = 6
    /// More of the largest logits than this are left to the full head.
    static let largestCount = 256
    /// Rows of the head that one member looks at at a time: whole groups.
    static let tile = 256

    /// Of one row of the step.
    struct Row {
        var state = sigma_screen_state()
        /// What must be reached: as many logits as are wanted are known that do.
        var threshold = -Float.infinity
        /// All logits are to be computed.
        var isFull = false
        var fineRows = 0
        var exactRows = 0
        /// So many of the largest are wanted.
        var count = 0
        /// Bits of the tokens that may be chosen; nil: all.
        var maskWords: UnsafePointer<UInt64>?

        /// Rows of the head that are computed first, for the threshold: those with the best estimates by both planes among the best by the
        /// coarse one.
        var probeCount: Int { max(64, 2 * count) }
        var candidateCount: Int { 4 * probeCount }
    }

    /// What one member has counted of one row.
    struct Counts {
        var fine = 0
        var exact = 0
    }

    let planes: ScreenPlanes
    let memberCount: Int
    let rowLimit: Int
    var deviations = HeadScreen.deviations
    /// [rowLimit]
    let rows: UnsafeMutablePointer<Row>
    /// [rowLimit, columns]
    let quants: UnsafeMutablePointer<Int8>
    /// [members, rowLimit]
    let counts: UnsafeMutablePointer<Counts>
    /// [members, rowLimit]: the best estimates, then the largest exact logits that a member has met.
    let lists: UnsafeMutablePointer<LargestLogits>
    /// [rowLimit]: rows of the head that are computed first, with the upper ends of their logits.
    let probes: UnsafeMutablePointer<LargestLogits>
    /// [rowLimit, 2 largestCount]
    let probed: UnsafeMutablePointer<Float>
    /// [rowLimit]: the largest logits of all.
    let results: UnsafeMutablePointer<LargestLogits>
    /// [members, tile]
    let found: UnsafeMutablePointer<Int32>
    /// Rows of which all logits are to be computed.
    var fullRows: [Int32] = []

    /// Rows that are asked for now, and what each may choose: [rowCount], kept alive.
    var rowCount = 0
    private(set) var masks: [TokenMask] = []
    /// States after the final norm [rows, hidden] in place of the step's; for measurements.
    var givenStates: UnsafePointer<Float>?

    init(_ planes: ScreenPlanes, head: WeightMatrix, memberCount: Int, rowLimit: Int) {
        self.planes = planes
        fineLimit = max(2048, head.byteCount / 8 / planes.rowBytes)
        exactLimit = max(256, planes.rows / 64)
        self.memberCount = memberCount
        self.rowLimit = rowLimit
        rows = .allocate(capacity: rowLimit)
        rows.initialize(repeating: Row(), count: rowLimit)
        quants = .allocate(capacity: rowLimit * planes.columns)
        quants.initialize(repeating: 0, count: rowLimit * planes.columns)
        counts = .allocate(capacity: memberCount * rowLimit)
        lists = .allocate(capacity: memberCount * rowLimit)
        lists.initialize(repeating: LargestLogits(), count: memberCount * rowLimit)
        probes = .allocate(capacity: rowLimit)
        probes.initialize(repeating: LargestLogits(), count: rowLimit)
        probed = .allocate(capacity: rowLimit * 2 * Self.largestCount)
        results = .allocate(capacity: rowLimit)
        results.initialize(repeating: LargestLogits(), count: rowLimit)
        found = .allocate(capacity: memberCount * Self.tile)
    }

    deinit {
        rows.deallocate()
        quants.deallocate()
        counts.deallocate()
        lists.deinitialize(count: memberCount * rowLimit)
        lists.deallocate()
        probes.deinitialize(count: rowLimit)
        probes.deallocate()
        probed.deallocate()
        results.deinitialize(count: rowLimit)
        results.deallocate()
        found.deallocate()
    }

    /// With more rows than these the full head is the better way: an eighth of its bytes are read of the fine plane, or a quarter of its groups
    /// of rows.
    let fineLimit: Int
    let exactLimit: Int

    var tiles: Int { (planes.rows + Self.tile - 1) / Self.tile }
    func tileRange(_ tile: Int) -> Range<Int> { tile * Self.tile..<min((tile + 1) * Self.tile, planes.rows) }
    func place(_ member: Int32, _ row: Int) -> Int { Int(member) * rowLimit + row }

    /// Row `row` of those that are asked for next, in ascending order from 0.
    func begin(row: Int, count: Int, mask: TokenMask) {
        if row == 0 { masks.removeAll(keepingCapacity: true) }
        masks.append(mask)
        rows[row] = Row()
        rows[row].count = count
        if !mask.allowsAll { rows[row].maskWords = mask.words }
        for member in 0..<memberCount {
            counts[member * rowLimit + row] = Counts()
            lists[member * rowLimit + row].removeAll()
        }
    }

    /// Of the rows that are asked for: probes of the one that has most.
    var mostProbes: Int {
        var most = 1
        for row in 0..<rowCount { most = max(most, rows[row].probeCount) }
        return most
    }

    /// Joins what the members computed exactly.
    func collect(_ row: Int) {
        for member in 0..<memberCount {
            for logit in lists[member * rowLimit + row].list { results[row].insert(logit, limit: rows[row].count) }
        }
    }

    /// The 8-bit form of a state x [hidden], which is rotated in place.
    func setState(_ row: Int, _ x: UnsafeMutablePointer<Float>, offset: Float) {
        sigma_screen_rotate(x, Int32(planes.hidden))
        let usable =
            sigma_screen_quantize(
                x, Int32(planes.hidden), deviations, quants + row * planes.columns, &rows[row].state) != 0
        rows[row].state.offset = offset
        if !usable || !offset.isFinite { setFull(row) }
    }

    /// The row takes part in what all rows do together, but nothing of it is used.
    func setFull(_ row: Int) {
        rows[row].isFull = true
        rows[row].state.q = UnsafePointer(quants + row * planes.columns)
        rows[row].threshold = .infinity
    }

    /// Joins what the members found, and chooses the rows whose exact logits come first by both planes.
    func chooseProbes(_ row: Int, _ kernels: sigma_kernels) {
        probes[row].removeAll()
        results[row].removeAll()
        for member in 0..<memberCount {
            let index = member * rowLimit + row
            for candidate in lists[index].list { results[row].insert(candidate, limit: rows[row].candidateCount) }
            lists[index].removeAll()
        }
        let candidates = results[row].list
        for candidate in candidates { prefetch(Int(candidate.id)) }
        for candidate in candidates {
            let upperEnd = refined(Int(candidate.id), coarse: candidate.logit, row, kernels)
            probes[row].insert(TokenLogit(id: candidate.id, logit: upperEnd), limit: rows[row].probeCount)
        }
    }

    /// Prefetches what `refined` reads of a row.
    func prefetch(_ id: Int) {
        sigma_prefetch(planes.fineRow(id), planes.rowBytes)
        sigma_prefetch(planes.group(of: id) + 4 * planes.columns, Int(SIGMA_SCREEN_NUMBERS))
    }

    /// Takes the probes' exact logits in, and decides what other rows must reach.
    func setThreshold(_ row: Int) {
        results[row].removeAll()
        guard !rows[row].isFull else { return }
        for (index, probe) in probes[row].list.enumerated() {
            results[row].insert(
                TokenLogit(id: probe.id, logit: probed[row * 2 * Self.largestCount + index]), limit: rows[row].count)
        }
        let known = results[row].list
        let count = rows[row].count
        if known.count < count { setFull(row) } else { rows[row].threshold = known[count - 1].logit }
    }

    /// The estimate's upper end of a logit by both planes.
    /// - Parameter coarse: the upper end by the coarse plane.
    func refined(_ id: Int, coarse: Float, _ row: Int, _ kernels: sigma_kernels) -> Float {
        let state = rows[row].state
        let numbers = planes.numbers(id)
        let common = numbers.norm * state.norm_margin + state.offset
        let estimate = coarse - (numbers.coarse_error * state.error_margin + common)
        let sum = 2 * kernels.screen_fine(planes.fineRow(id), Int32(planes.columns), state.q) - 3 * state.sum
        return estimate + Float(sum) * (numbers.half_step * 0.25 * state.scale)
            + (numbers.fine_error * state.error_margin + common)
    }
}
