extension CPUBackend: ActivationSource {
    /// A copy of what the last operation left, row-major; to be called between the operations of a step.
    package func activation(_ kind: Activation) -> [Float] {
        let c = context.configuration
        let rowCount = context.rowCount
        func copy(_ base: UnsafePointer<Float>, _ width: Int) -> [Float] {
            Array(UnsafeBufferPointer(start: base, count: rowCount * width))
        }
        let choices = c.expertsPerToken[feedForward.layerIndex]
        let plan = feedForward.plans[0]
        switch kind {
        case .residual: return copy(context.activations.residual.base, c.hiddenSize)
        case .normed: return copy(context.activations.normed.base, c.hiddenSize)
        case .query:
            return (0..<rowCount * c.headCount).flatMap { head in
                UnsafeBufferPointer(
                    start: attention.buffers.queries.base + head * context.paddedHeadDim, count: c.headDim)
            }
        case .attended: return copy(attention.buffers.attended.base, c.queryWidth)
        case .routerScores: return copy(plan.scores, c.expertCount)
        case .chosen: return (0..<rowCount * choices).map { Float(plan.chosen[$0]) }
        case .weights: return copy(plan.weights, choices)
        case .feedForward: return copy(feedForward.buffers.feedForward.base, c.hiddenSize)
        case .expertHidden:
            return (0..<rowCount * choices).flatMap { index in
                UnsafeBufferPointer(
                    start: feedForward.buffers.gated.base + Int(plan.slots[index]) * context.gatedWidth,
                    count: c.expertIntermediateSize)
            }
        case .alwaysOnHidden:
            guard let mlp = feedForward.layer.alwaysOn else { return [] }
            return (0..<rowCount).flatMap { row in
                UnsafeBufferPointer(
                    start: feedForward.buffers.gated.base + (rowCount * choices + row) * context.gatedWidth,
                    count: mlp.gate.rows)
            }
        }
    }
}
