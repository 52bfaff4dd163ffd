import CSigma

// For measurements: the screen on any states.
extension CPUBackend: HeadExperiments {
    package var screenDeviations: Float {
        get { head.screened?.screen.deviations ?? HeadScreen.deviations }
        set { head.screened?.screen.deviations = newValue }
    }

    /// More rows than these of one step go through the full head.
    package var mostScreenedRows: Int {
        get { head.mostScreenedRows }
        set { head.mostScreenedRows = newValue }
    }

    /// The step's rows after the final norm [rows, hidden]; to be called inside a step, after the last layer.
    package func finalStates(rows: Range<Int>) -> [Float] {
        let hidden = context.configuration.hiddenSize
        let kernels = context.kernels
        var states = [Float](repeating: 0, count: rows.count * hidden)
        for (index, row) in rows.enumerated() {
            states.withUnsafeMutableBufferPointer {
                kernels.rms_norm(
                    context.activations.residual.base + row * hidden, context.weights.finalNorm.pointer,
                    context.configuration.rmsNormEpsilon,
                    $0.baseAddress! + index * hidden, Int32(hidden))
            }
        }
        return states
    }

    package func compareHeads(
        _ states: [Float], largest count: Int, mask: TokenMask, deviations: Float? = nil
    ) throws -> [HeadComparison] {
        let screened = head.screened!
        let screen = screened.screen
        let hidden = context.configuration.hiddenSize
        let rowCount = states.count / hidden
        precondition(rowCount <= headRowLimit && rowCount * hidden == states.count)
        precondition((1...HeadScreen.largestCount).contains(count))
        try reserveBuffers(StepShape(rows: headRowLimit))
        let before = screen.deviations
        screen.deviations = deviations ?? before
        defer { screen.deviations = before }
        states.withUnsafeBufferPointer {
            screen.givenStates = $0.baseAddress
            screened.begin()
            for row in 0..<rowCount { screened.add(row: row, count: count, mask: mask) }
            var counts = HeadStatistics()
            screened.find(into: head.buffers.logits.base, isCounted: false, &counts)
            screen.givenStates = nil
        }
        let all = head.buffers.logits.base
        head.full.begin()
        for row in 0..<rowCount { head.full.add(row: row, count: 0, mask: nil) }
        head.full.run(areNormed: true, into: all)
        let logits = UnsafeBufferPointer(start: all, count: rowCount * context.configuration.vocabularySize)
        var selection = LargestLogits()
        return (0..<rowCount).map { row in
            selection.select(count, of: logits.row(row, of: rowCount), mask: mask)
            let work = screen.rows[row]
            let probed = Set(screen.probes[row].list.map(\.id))
            let missing = selection.list.filter { !probed.contains($0.id) }
            return HeadComparison(
                full: selection.list, screened: work.isFull ? nil : screen.results[row].list,
                neededDeviations: work.isFull
                    ? 0 : missing.map { neededDeviations(Int($0.id), work, screen) }.max() ?? 0,
                fineRows: work.fineRows, exactRows: work.exactRows)
        }
    }

    private func neededDeviations(_ id: Int, _ work: HeadScreen.Row, _ screen: HeadScreen) -> Double {
        let planes = screen.planes
        let numbers = planes.numbers(id)
        let values = decodedPlanes(id)
        var (coarse, fine) = (Double(work.state.offset), Double(work.state.offset))
        for column in 0..<planes.hidden {
            let x = Double(work.state.scale) * Double(work.state.q[column])
            coarse += Double(values.coarse[column]) * x
            fine += Double(values.both[column]) * x
        }
        // Of one standard deviation.
        func width(_ error: Float) -> Double {
            (Double(error) * Double(work.state.error_margin) + Double(numbers.norm) * Double(work.state.norm_margin))
                / Double(screen.deviations)
        }
        let threshold = Double(work.threshold)
        return max(
            0, (threshold - coarse) / width(numbers.coarse_error), (threshold - fine) / width(numbers.fine_error))
    }

    /// A row as the planes have it [hidden], rotated: the coarse one alone, and both.
    private func decodedPlanes(_ id: Int) -> (coarse: [Float], both: [Float]) {
        let planes = head.screened!.screen.planes
        let numbers = planes.numbers(id)
        let group = planes.group(of: id)
        let row = planes.fineRow(id)
        var coarse: [Float] = []
        var both: [Float] = []
        for column in 0..<planes.hidden {
            let first = group.load(
                fromByteOffset: column / 16 * 64 + 4 * (id % Int(SIGMA_GROUP)) + column % 4, as: UInt8.self)
            let second = row.load(fromByteOffset: column / 256 * 64 + column % 64, as: UInt8.self)
            let value = numbers.half_step * Float(2 * Int(first >> UInt8(2 * (column % 16 / 4)) & 3) - 3)
            coarse.append(value)
            both.append(
                value + numbers.half_step / 4 * Float(2 * Int(second >> UInt8(2 * (column % 256 / 64)) & 3) - 3))
        }
        return (coarse, both)
    }

    package func headRow(_ id: Int) -> [Float] {
        var row = [Float](repeating: 0, count: context.configuration.hiddenSize)
        row.withUnsafeMutableBufferPointer {
            context.weights.head.copyRow(id, to: $0.baseAddress!, context.kernels)
        }
        return row
    }

    package func coarseError(_ id: Int) -> [Float] {
        let planes = head.screened!.screen.planes
        var row = headRow(id)
        for column in row.indices { row[column] -= planes.mean.values[column] }
        let coarse = decodedPlanes(id).coarse
        row.withUnsafeMutableBufferPointer { row in
            sigma_screen_rotate(row.baseAddress!, Int32(row.count))
            for column in row.indices { row[column] -= coarse[column] }
            sigma_screen_rotate_back(row.baseAddress!, Int32(row.count))
        }
        return row
    }
}
