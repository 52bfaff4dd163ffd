/// Brings the weights of a mapped file from the disk before they are computed with, in large requests: page by page, as faults would, a
/// disk gives a fraction of its speed. Weights that are in memory already cost one cheap call each.
final class WeightPaging {
    private let model: ModelFile
    /// [layer, expert]: whether the record was asked for.
    private var isRequested: [Bool]
    private let expertCount: Int

    init(_ model: ModelFile) {
        self.model = model
        expertCount = model.configuration.expertCount
        isRequested = Array(repeating: false, count: model.configuration.layerCount * expertCount)
    }

    /// Asks for everything that each token needs, in the order of a step, on a thread of its own: the requests wait for the disk.
    func requestDenseWeights() {
        let model = model
        // Without a thread the weights come by faults.
        try? NativeThread {
            for matrix in model.weights.denseMatrices {
                // In pieces, so that experts' requests get between them.
                for start in stride(from: 0, to: matrix.byteCount, by: 8 << 20) {
                    model.prefetch(matrix.data + start, min(8 << 20, matrix.byteCount - start))
                }
            }
        }.detach()
    }

    /// Asks for an expert's record as a whole, the first time that it is chosen. Returns before the record is there.
    func requestExpert(_ expert: Int, layer: Int, of experts: ExpertRecords) {
        let index = layer * expertCount + expert
        if isRequested[index] { return }
        isRequested[index] = true
        model.prefetch(experts.base + expert * experts.layout.stride, experts.layout.usedBytes)
    }
}

extension ModelFile {
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
