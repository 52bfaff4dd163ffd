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

/// A back end that shows a step's intermediate results.
package protocol ActivationSource: AnyObject {
    /// A copy of what the last operation left, row-major; to be called between the operations of a step.
    func activation(_ kind: Activation) -> [Float]
}
