import Sigma

/// Runs a model over windows of a text and gathers the mean squares of what enters its matrices.
///
/// Memory: that of the sums, whatever the text's length. One thread uses it; no generation may run on the engine meanwhile.
package final class ImportanceGatherer {
    private let engine: Engine
    private let source: any ActivationSource
    private let sequence: SequenceState
    private let batch = Batch()
    private let sums: ImportanceSums
    private var tokenCount = 0

    /// - Parameter sums: of the engine's model.
    /// - Throws: `SigmaError(.unavailable)` if the model cannot have such a key-value cache, or a back end computes that keeps activations to itself.
    package init(engine: Engine, kvType: KVType, sums: ImportanceSums) throws {
        guard let source = engine.backend as? any ActivationSource else {
            throw SigmaError(
                .unavailable,
                "activations can be gathered on the CPU only, and the back end is \(engine.backend.report.name)",
                remedy: .set(.backend, to: "cpu"))
        }
        self.engine = engine
        self.source = source
        sequence = try engine.backend.makeSequence(kvType: kvType)
        self.sums = sums
    }

    /// Reads one window from its beginning.
    ///
    /// - Parameter isCancelled: asked before every layer.
    /// - Throws: `CancellationError` if it was cancelled; `SigmaError` as the forward pass. Nothing should be made of the sums afterwards.
    package func add(_ window: [Int32], isCancelled: () -> Bool) throws {
        sequence.truncate(to: 0)
        var position = 0
        while position < window.count {
            let piece = try engine.piece(of: window[position...], for: sequence)
            batch.removeAll()
            batch.append(piece, to: sequence)
            let width = engine.configuration.hiddenSize
            let completed = try engine.forwardPass.run(batch, observer: self, isCancelled: isCancelled) { backend in
                for row in stride(from: 0, to: piece.count, by: backend.headRowLimit) {
                    let rows = row..<min(row + backend.headRowLimit, piece.count)
                    _ = backend.head(rows: rows)
                    add(ImportanceMatrix.headInput, source.activation(.normed)[..<(rows.count * width)])
                }
            }
            guard completed else { throw CancellationError() }
            tokenCount += piece.count
            position += piece.count
        }
    }

    /// Adds rows to an entry without groups.
    private func add(_ name: String, _ rows: ArraySlice<Float>) {
        let place = sums.places[name]!
        let width = sums.entries[place].width
        for start in stride(from: 0, to: rows.count, by: width) { add(place, group: 0, rows[start..<start + width]) }
    }

    private func add(_ place: Int, group: Int, _ row: ArraySlice<Float>) {
        let first = group * row.count
        sums.entries[place].counts[group] &+= 1
        sums.squares[place].withUnsafeMutableBufferPointer { squares in
            row.withUnsafeBufferPointer { row in
                for i in 0..<row.count { squares[first + i] += Double(row[i]) * Double(row[i]) }
            }
        }
    }

    /// - Throws: `SigmaError(.damaged)` if the model computes numbers that are not finite.
    package func result() throws -> ImportanceMatrix {
        for (place, entry) in sums.entries.enumerated() {
            for group in 0..<entry.groups where entry.counts[group] > 0 {
                for i in group * entry.width..<(group + 1) * entry.width {
                    let mean = Float(sums.squares[place][i] / Double(entry.counts[group]))
                    guard mean.isFinite else {
                        throw SigmaError(
                            .damaged, "the model computes activations that are not finite", path: engine.modelPath,
                            item: entry.name)
                    }
                    sums.entries[place].means[i] = mean
                }
            }
        }
        return ImportanceMatrix(modelName: engine.model.name, tokenCount: tokenCount, entries: sums.entries)
    }
}
extension ImportanceGatherer: LayerObserver {
    package func attended(layer: Int) {
        add(ImportanceMatrix.attentionInput(layer), source.activation(.normed)[...])
        add(ImportanceMatrix.attentionOutputInput(layer), source.activation(.attended)[...])
    }

    package func fedForward(layer: Int) {
        let input = source.activation(.normed)
        add(ImportanceMatrix.feedForwardInput(layer), input[...])
        let choices = engine.configuration.expertsPerToken[layer]
        if choices > 0 {
            let chosen = source.activation(.chosen).map { Int($0) }
            let hidden = source.activation(.expertHidden)
            let inputPlace = sums.places[ImportanceMatrix.expertInput(layer)]!
            let downPlace = sums.places[ImportanceMatrix.expertDownInput(layer)]!
            let (inputWidth, downWidth) = (sums.entries[inputPlace].width, sums.entries[downPlace].width)
            for (index, expert) in chosen.enumerated() {
                let row = index / choices
                add(inputPlace, group: expert, input[(row * inputWidth)..<((row + 1) * inputWidth)])
                add(downPlace, group: expert, hidden[(index * downWidth)..<((index + 1) * downWidth)])
            }
        }
        let alwaysOn = source.activation(.alwaysOnHidden)
        if !alwaysOn.isEmpty { add(ImportanceMatrix.alwaysOnDownInput(layer), alwaysOn[...]) }
    }
}
