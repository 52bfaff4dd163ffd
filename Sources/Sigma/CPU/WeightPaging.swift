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
    func requestDenseWeights(_ weights: ModelWeights) {
        let model = model
        // Without a thread the weights come by faults.
        try? NativeThread {
            for region in weights.denseRegions {
                // In pieces, so that experts' requests get between them.
                for start in stride(from: 0, to: region.byteCount, by: 8 << 20) {
                    model.prefetch(region.data + start, min(8 << 20, region.byteCount - start))
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
    /// All that every token reads of matrices, and where the head is screened what it may read of it, in the order of a step.
    fileprivate var denseRegions: [(data: UnsafeRawPointer, byteCount: Int)] {
        let matrices = layers.flatMap { layer in
            let attention = [layer.query, layer.key, layer.value, layer.output]
            switch layer.feedForward {
            case .dense(let mlp): return attention + [mlp.gate, mlp.up, mlp.down]
            case .mixture(let router, _, _, let shared):
                return attention + [router] + (shared.map { [$0.gate, $0.up, $0.down] } ?? [])
            }
        }
        let planes = screen.map {
            [(data: $0.coarse, byteCount: $0.coarseBytes), (data: $0.fine, byteCount: $0.fineBytes)]
        }
        return matrices.map { (data: $0.data, byteCount: $0.byteCount) } + (planes ?? [])
            + [(data: head.data, byteCount: head.byteCount)]
    }
}
