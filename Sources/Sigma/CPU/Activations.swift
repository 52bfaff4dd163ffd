/// A step's intermediate results, for comparisons with a reference and for statistics.
package enum Activation: String, Sendable, CaseIterable {
    case residual
    /// After the attention norm, or the feed-forward norm: the last that was computed.
    case normed
    /// After norm, RoPE and the factor head_dim^-1/2: [rows, headCount * headDim].
    case query
    /// [rows, queryWidth]
    case attended
    case routerScores
    /// Expert of each choice, as floats.
    case chosen
    case weights
    case feedForward
    /// silu(gate) * up of each choice, in the order of `chosen`: [rows, choices, expertIntermediateSize].
    case expertHidden
    /// The same of the dense MLP or the shared experts: [rows, width].
    case alwaysOnHidden
}

extension CPUBackend {
    /// A copy of what the last operation left, row-major; to be called between the operations of a step.
    package func activation(_ kind: Activation) -> [Float] {
        let c = configuration
        func copy(_ base: UnsafePointer<Float>, _ width: Int) -> [Float] {
            Array(UnsafeBufferPointer(start: base, count: rowCount * width))
        }
        let choices = c.expertsPerToken[layerIndex]
        let plan = plans[0]
        switch kind {
        case .residual: return copy(workspace.residual.base, c.hiddenSize)
        case .normed: return copy(workspace.normed.base, c.hiddenSize)
        case .query:
            return (0..<rowCount * c.headCount).flatMap { head in
                UnsafeBufferPointer(start: workspace.queries.base + head * paddedHeadDim, count: c.headDim)
            }
        case .attended: return copy(workspace.attended.base, c.queryWidth)
        case .routerScores: return copy(plan.scores, c.expertCount)
        case .chosen: return (0..<rowCount * choices).map { Float(plan.chosen[$0]) }
        case .weights: return copy(plan.weights, choices)
        case .feedForward: return copy(workspace.feedForward.base, c.hiddenSize)
        case .expertHidden:
            return (0..<rowCount * choices).flatMap { index in
                UnsafeBufferPointer(
                    start: workspace.gated.base + Int(plan.slots[index]) * gatedWidth,
                    count: c.expertIntermediateSize)
            }
        case .alwaysOnHidden:
            guard layers[layerIndex].alwaysOn != nil else { return [] }
            let group = plan.groups[plan.groupCount - 1]
            return (0..<rowCount).flatMap { row in
                UnsafeBufferPointer(
                    start: workspace.gated.base + (group.firstSlot + row) * gatedWidth, count: group.gate.rows)
            }
        }
    }
}
