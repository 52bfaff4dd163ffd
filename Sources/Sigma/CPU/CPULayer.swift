/// One layer's weights as plain pointers, so that hot loops copy them without touching a reference count. The back end's `ModelWeights` owns
/// what they point to.
struct CPULayer {
    let attentionNorm: UnsafePointer<Float>
    let query: WeightMatrix
    let key: WeightMatrix
    let value: WeightMatrix
    let output: WeightMatrix
    let queryBias: UnsafePointer<Float>?
    let keyBias: UnsafePointer<Float>?
    let valueBias: UnsafePointer<Float>?
    let outputBias: UnsafePointer<Float>?
    let queryNorm: UnsafePointer<Float>?
    let keyNorm: UnsafePointer<Float>?
    let feedForwardNorm: UnsafePointer<Float>
    /// nil in a dense layer, as is `experts`.
    let router: WeightMatrix?
    let selectionBias: UnsafePointer<Float>?
    let experts: ExpertRecords?
    /// The dense MLP, or the shared experts.
    let alwaysOn: MLPWeights?

    init(_ layer: LayerWeights) {
        attentionNorm = layer.attentionNorm.pointer
        query = layer.query
        key = layer.key
        value = layer.value
        output = layer.output
        queryBias = layer.queryBias?.pointer
        keyBias = layer.keyBias?.pointer
        valueBias = layer.valueBias?.pointer
        outputBias = layer.outputBias?.pointer
        queryNorm = layer.queryNorm?.pointer
        keyNorm = layer.keyNorm?.pointer
        feedForwardNorm = layer.feedForwardNorm.pointer
        switch layer.feedForward {
        case .dense(let mlp):
            (router, selectionBias, experts, alwaysOn) = (nil, nil, nil, mlp)
        case .mixture(let router, let selectionBias, let experts, let shared):
            self.router = router
            self.selectionBias = selectionBias?.pointer
            self.experts = experts
            alwaysOn = shared
        }
    }

    var quantizesAttentionInput: Bool { query.type.isQuantized || key.type.isQuantized || value.type.isQuantized }

    var quantizesFeedForwardInput: Bool {
        let layout = experts?.layout
        return (layout.map { $0.gateType.isQuantized || $0.upType.isQuantized } ?? false)
            || (alwaysOn.map { $0.gate.type.isQuantized || $0.up.type.isQuantized } ?? false)
    }
}
