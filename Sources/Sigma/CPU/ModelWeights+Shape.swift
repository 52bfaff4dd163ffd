extension ModelWeights {
    /// Whether any of the large matrices (all but the routers) is quantized.
    var hasQuantizedMatrix: Bool {
        func isQuantized(_ mlp: MLPWeights) -> Bool {
            mlp.gate.type.isQuantized || mlp.up.type.isQuantized || mlp.down.type.isQuantized
        }
        return embedding.type.isQuantized || head.type.isQuantized
            || layers.contains { layer in
                if [layer.query, layer.key, layer.value, layer.output].contains(where: { $0.type.isQuantized }) {
                    return true
                }
                switch layer.feedForward {
                case .dense(let mlp): return isQuantized(mlp)
                case .mixture(_, _, let experts, let shared):
                    let layout = experts.layout
                    return layout.gateType.isQuantized || layout.upType.isQuantized || layout.downType.isQuantized
                        || (shared.map(isQuantized) ?? false)
                }
            }
    }

    /// Outputs of the widest gate projection.
    var widestMLP: Int {
        layers.map { layer in
            switch layer.feedForward {
            case .dense(let mlp): mlp.gate.rows
            case .mixture(_, _, let experts, let shared): max(experts.layout.intermediate, shared?.gate.rows ?? 0)
            }
        }.max() ?? 0
    }
}
