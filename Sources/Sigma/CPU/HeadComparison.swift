import CSigma

/// One state's largest logits by the full head and by the screen.
package struct HeadComparison: Sendable {
    package var full: [TokenLogit]
    /// Nil: the screen left the state to the full head.
    package var screened: [TokenLogit]?
    /// Standard deviations that the margins had to be wide for every one of `full` to be found, by the threshold that was used.
    package var neededDeviations: Double
    /// Rows of the head that were looked at in the fine plane, and computed exactly.
    package var fineRows: Int
    package var exactRows: Int

    package var isMiss: Bool { screened.map { $0 != full } ?? false }
    /// Whether another token is the likeliest.
    package var isMissOfTheFirst: Bool { screened.map { $0.first != full.first } ?? false }
}

// For measurements: the screen on any states.
extension CPUBackend {
    /// The step's rows after the final norm [rows, hidden]; to be called inside a step, after the last layer.
    package func finalStates(rows: Range<Int>) -> [Float] {
        let hidden = configuration.hiddenSize
        var states = [Float](repeating: 0, count: rows.count * hidden)
        for (index, row) in rows.enumerated() {
            states.withUnsafeMutableBufferPointer {
                kernels.rms_norm(
                    workspace.residual.base + row * hidden, weights.finalNorm.pointer, configuration.rmsNormEpsilon,
                    $0.baseAddress! + index * hidden, Int32(hidden))
            }
        }
        return states
    }

    /// Both heads on states [at most headRowLimit, hidden]. Not inside a step, and only where there are planes.
    ///
    /// - Parameters:
    ///   - allowed: tokens that count; empty: all.
    ///   - deviations: how wide margins are; nil: as in generation.
    /// - Throws: `SigmaError(.unavailable)` if memory ends.
    package func compareHeads(
        _ states: [Float], largest count: Int, allowed: [Bool], deviations: Float? = nil
    ) throws -> [HeadComparison] {
        let screen = screen!
        let rowCount = states.count / configuration.hiddenSize
        precondition(rowCount <= headRowLimit && rowCount * configuration.hiddenSize == states.count)
        precondition((1...HeadScreen.largestCount).contains(count))
        try reserve(&workspace, rows: headRowLimit)
        let before = screen.deviations
        screen.deviations = deviations ?? before
        defer { screen.deviations = before }
        states.withUnsafeBufferPointer {
            screen.givenStates = $0.baseAddress
            findLargest(count, rows: 0..<rowCount, allowed: allowed, isCounted: false)
            screen.givenStates = nil
        }
        screen.fullRows = (0..<Int32(rowCount)).map { $0 }
        run(.fullRows)
        let logits = UnsafeBufferPointer(
            start: workspace.logits.base, count: rowCount * configuration.vocabularySize)
        return (0..<rowCount).map { row in
            fullSelection.select(count, of: logits.row(row, of: rowCount), allowed: allowed)
            let work = screen.rows[row]
            let probed = Set(screen.probes[row].list.map(\.id))
            let missing = fullSelection.list.filter { !probed.contains($0.id) }
            return HeadComparison(
                full: fullSelection.list, screened: work.isFull ? nil : screen.results[row].list,
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
        let planes = screen!.planes
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

    /// A row of the output head [hidden], exactly.
    package func headRow(_ id: Int) -> [Float] {
        var row = [Float](repeating: 0, count: configuration.hiddenSize)
        row.withUnsafeMutableBufferPointer { weights.head.copyRow(id, to: $0.baseAddress!, kernels) }
        return row
    }

    /// What the coarse plane misses of a row [hidden]: the direction in which its estimate is worst.
    package func coarseError(_ id: Int) -> [Float] {
        let planes = screen!.planes
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
