import Sigma
/// Runs a model over windows of a text and gathers the mean squares of what enters its matrices.
///
/// Memory: 8 bytes for every number that enters a matrix of the model, whatever the text's length. One thread uses it; no generation may
/// run on the engine meanwhile.
package final class ImportanceGatherer {
    private let engine: Engine
    private let backend: CPUBackend
    private let sequence: any SequenceState
    private let batch = Batch()
    /// As the entries of the result: sums of squares [groups, width], tokens [groups].
    private var entries: [ImportanceMatrix.Entry]
    private var sums: [[Double]]
    private let places: [String: Int]
    private var tokenCount = 0

    /// - Throws: `SigmaError(.unavailable)` if the model cannot have such a key-value cache, or another back end than the CPU's computes.
    package init(engine: Engine, kvType: KVType) throws {
        guard let backend = engine.backend as? CPUBackend else {
            throw SigmaError(
                .unavailable, "activations can be gathered on the CPU only, and the back end is \(engine.backend.name)",
                remedy: "Use --backend cpu.")
        }
        self.engine = engine
        self.backend = backend
        sequence = try backend.makeSequence(kvType: kvType)
        entries = ImportanceMatrix.blank(engine.configuration)
        sums = entries.map { Array(repeating: 0, count: $0.means.count) }
        places = Dictionary(uniqueKeysWithValues: entries.enumerated().map { ($0.element.name, $0.offset) })
    }

    /// Reads one window from its beginning.
    ///
    /// - Parameter isCancelled: asked before every layer.
    /// - Throws: `CancellationError` if it was cancelled; `SigmaError` as the forward pass. Nothing should be made of the sums afterwards.
    package func add(_ window: [Int32], isCancelled: () -> Bool) throws {
        sequence.truncate(to: 0)
        for first in stride(from: 0, to: window.count, by: backend.rowLimit) {
            let piece = window[first..<min(first + backend.rowLimit, window.count)]
            batch.removeAll()
            batch.append(piece, to: sequence)
            try backend.begin(batch)
            backend.embed()
            for layer in 0..<engine.configuration.layerCount {
                if isCancelled() { throw CancellationError() }
                try addLayer(layer)
            }
            for row in stride(from: 0, to: piece.count, by: backend.headRowLimit) {
                let rows = row..<min(row + backend.headRowLimit, piece.count)
                _ = backend.head(rows: rows)
                let width = engine.configuration.hiddenSize
                add(ImportanceMatrix.headInput, backend.activation(.normed)[..<(rows.count * width)])
            }
            try backend.end()
            tokenCount += piece.count
        }
    }

    private func addLayer(_ layer: Int) throws {
        backend.attend(layer: layer)
        add(ImportanceMatrix.attentionInput(layer), backend.activation(.normed)[...])
        add(ImportanceMatrix.attentionOutputInput(layer), backend.activation(.attended)[...])
        try backend.feedForward(layer: layer)
        let input = backend.activation(.normed)
        add(ImportanceMatrix.feedForwardInput(layer), input[...])
        let choices = engine.configuration.expertsPerToken[layer]
        if choices > 0 {
            let chosen = backend.activation(.chosen).map { Int($0) }
            let hidden = backend.activation(.expertHidden)
            let inputPlace = places[ImportanceMatrix.expertInput(layer)]!
            let downPlace = places[ImportanceMatrix.expertDownInput(layer)]!
            let (inputWidth, downWidth) = (entries[inputPlace].width, entries[downPlace].width)
            for (index, expert) in chosen.enumerated() {
                let row = index / choices
                add(inputPlace, group: expert, input[(row * inputWidth)..<((row + 1) * inputWidth)])
                add(downPlace, group: expert, hidden[(index * downWidth)..<((index + 1) * downWidth)])
            }
        }
        let alwaysOn = backend.activation(.alwaysOnHidden)
        if !alwaysOn.isEmpty { add(ImportanceMatrix.alwaysOnDownInput(layer), alwaysOn[...]) }
    }

    /// Adds rows to an entry without groups.
    private func add(_ name: String, _ rows: ArraySlice<Float>) {
        let place = places[name]!
        let width = entries[place].width
        for start in stride(from: 0, to: rows.count, by: width) { add(place, group: 0, rows[start..<start + width]) }
    }

    private func add(_ place: Int, group: Int, _ row: ArraySlice<Float>) {
        let first = group * row.count
        entries[place].counts[group] &+= 1
        sums[place].withUnsafeMutableBufferPointer { sums in
            row.withUnsafeBufferPointer { row in
                for i in 0..<row.count { sums[first + i] += Double(row[i]) * Double(row[i]) }
            }
        }
    }

    /// - Throws: `SigmaError(.damaged)` if the model computes numbers that are not finite.
    package func result() throws -> ImportanceMatrix {
        for (place, entry) in entries.enumerated() {
            for group in 0..<entry.groups where entry.counts[group] > 0 {
                for i in group * entry.width..<(group + 1) * entry.width {
                    let mean = Float(sums[place][i] / Double(entry.counts[group]))
                    guard mean.isFinite else {
                        throw SigmaError(
                            .damaged, "the model computes activations that are not finite", path: engine.modelPath,
                            item: entry.name)
                    }
                    entries[place].means[i] = mean
                }
            }
        }
        return ImportanceMatrix(modelName: engine.model.name, tokenCount: tokenCount, entries: entries)
    }
}