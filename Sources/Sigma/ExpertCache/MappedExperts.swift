/// Experts where the file maps them: all are there, and the system pages them. What is not in memory yet is asked for as a whole record when it
/// is first chosen: page by page, as faults would, a disk gives a fraction of its speed.
final class MappedExperts: ExpertStore {
    private let model: ModelFile
    /// [layer * experts + expert]: whether the record was asked for.
    private var isRequested: [Bool]
    private var wanted: [Int] = []
    private var layer = 0
    private var counts = ExpertStatistics()

    init(_ model: ModelFile) {
        self.model = model
        isRequested = Array(
            repeating: false, count: model.configuration.layerCount * model.configuration.expertCount)
    }

    var statistics: ExpertStatistics { counts }
    func beginStep(rows: Int) { wanted.removeAll(keepingCapacity: true) }

    func request(_ experts: [Int], layer: Int) {
        self.layer = layer
        wanted.append(contentsOf: experts)
        counts.requests += experts.count
        counts.hits += experts.count
        for expert in experts {
            let index = layer * model.configuration.expertCount + expert
            if isRequested[index] { continue }
            isRequested[index] = true
            let record = record(expert)
            model.prefetch(record.start, record.count)
        }
    }

    func take(_ wave: inout ExpertWave, waits: Bool) -> Bool {
        wave.removeAll()
        for expert in wanted { wave.append(expert, record(expert).start) }
        wanted.removeAll(keepingCapacity: true)
        return false
    }

    func release(_ wave: ExpertWave) {}
    /// Checked by whoever maps the file, at the end of every step.
    func confirm() {}

    private func record(_ expert: Int) -> (start: UnsafeRawPointer, count: Int) {
        guard case .mixture(_, _, let experts, _) = model.weights.layers[layer].feedForward else {
            preconditionFailure("a dense layer has no experts")
        }
        return (experts.base + expert * experts.layout.stride, experts.layout.usedBytes)
    }
}

extension ModelFile {
    /// Asks for everything that each token needs, in the order of a step, on a thread of its own: the requests wait for the disk.
    func requestDenseWeights() {
        // Without a thread the weights come by faults.
        try? NativeThread {
            for matrix in self.weights.denseMatrices {
                // In pieces, so that experts' requests get between them.
                for start in stride(from: 0, to: matrix.byteCount, by: 8 << 20) {
                    self.prefetch(matrix.data + start, min(8 << 20, matrix.byteCount - start))
                }
            }
        }.detach()
    }

    fileprivate func prefetch(_ start: UnsafeRawPointer, _ count: Int) {
        let offset = start - gguf.file.bytes.baseAddress!
        gguf.file.prefetch(offset..<offset + count)
    }
}

extension ModelWeights {
    /// All matrices that every token multiplies with, in the order of a step.
    fileprivate var denseMatrices: [WeightMatrix] {
        layers.flatMap { layer in
            let attention = [layer.query, layer.key, layer.value, layer.output]
            switch layer.feedForward {
            case .dense(let mlp): return attention + [mlp.gate, mlp.up, mlp.down]
            case .mixture(let router, _, _, let shared):
                return attention + [router] + (shared.map { [$0.gate, $0.up, $0.down] } ?? [])
            }
        } + [head]
    }
}
