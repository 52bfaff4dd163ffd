import Sigma

/// What a weight is for, whatever a source calls it. Layers and experts count from 0.
package enum WeightRole: Hashable, Sendable {
    case embedding
    case finalNorm
    case head
    case layer(Int, LayerPart)
    /// One matrix of one routed expert.
    case expert(layer: Int, Int, MLPPart)

    package enum AttentionPart: Hashable, Sendable, CaseIterable { case query, key, value, output }
    package enum MLPPart: Hashable, Sendable, CaseIterable { case gate, up, down }

    package enum LayerPart: Hashable, Sendable {
        case attentionNorm
        case attention(AttentionPart)
        case attentionBias(AttentionPart)
        case queryNorm
        case keyNorm
        case feedForwardNorm
        case router
        case selectionBias
        case dense(MLPPart)
        case shared(MLPPart)
    }

    /// Norms and biases: one row of numbers, in their own precision.
    package var isVector: Bool {
        switch self {
        case .finalNorm: true
        case .layer(_, let part):
            switch part {
            case .attentionNorm, .attentionBias, .queryNorm, .keyNorm, .feedForwardNorm, .selectionBias: true
            case .attention, .router, .dense, .shared: false
            }
        case .embedding, .head, .expert: false
        }
    }

    /// Whether its outputs are q or k, which RoPE turns.
    package var isRotated: Bool {
        switch self {
        case .layer(_, .attention(let part)), .layer(_, .attentionBias(let part)): part == .query || part == .key
        default: false
        }
    }

    /// Whether the weights are float in every model file.
    package var isFloat: Bool {
        if case .layer(_, .router) = self { return true }
        return isVector
    }
}

/// Where the weights of a model are: a checkpoint, a GGUF file, a model file, or whatever makes them.
package protocol WeightSources: Sendable {
    /// The weights [rows, columns] of a role (a vector is one row); nil if there are none.
    ///
    /// - Throws: `SigmaError` (`.damaged`) naming a tensor of another shape, or of a type that is not read.
    func find(_ role: WeightRole, rows: Int, columns: Int) throws -> (any MatrixSource)?

    /// An error that names what was looked for.
    func missing(_ role: WeightRole) -> SigmaError

    /// The tensors that none of `roles` used.
    func leftovers(_ roles: Set<WeightRole>, of configuration: ModelConfiguration) -> Leftovers
}

extension WeightSources {
    package func leftovers(_ roles: Set<WeightRole>, of configuration: ModelConfiguration) -> Leftovers { Leftovers() }
}

/// Tensors of a source that nothing asked for.
package struct Leftovers: Sendable {
    /// Names of tensors that mean that the model computes something that we would leave out.
    package var unknown: [String] = []
    /// The file of the first.
    package var path: String?
    /// What is left out knowingly.
    package var warnings: [String] = []

    package init() {}
}

extension ModelFileFormat {
    /// llama.cpp's name for gate and up of all of a layer's experts in one tensor.
    static let fusedExperts = "ffn_gate_up_exps.weight"

    /// The name of a role's tensor, as llama.cpp has it. A plain file's tensor for a matrix of experts holds all of a layer's.
    package static func name(_ role: WeightRole) -> String {
        switch role {
        case .embedding: embedding
        case .finalNorm: finalNorm
        case .head: head
        case .expert(let index, _, let part): layer(index, name(part) + "_exps.weight")
        case .layer(let index, let part):
            switch part {
            case .attentionNorm: layer(index, attentionNorm)
            case .attention(let part): layer(index, name(part) + ".weight")
            case .attentionBias(let part): layer(index, name(part) + ".bias")
            case .queryNorm: layer(index, queryNorm)
            case .keyNorm: layer(index, keyNorm)
            case .feedForwardNorm: layer(index, feedForwardNorm)
            case .router: layer(index, router)
            case .selectionBias: layer(index, selectionBias)
            case .dense(let part): layer(index, name(part) + ".weight")
            case .shared(let part): layer(index, name(part) + sharedSuffix + ".weight")
            }
        }
    }

    private static func name(_ part: WeightRole.AttentionPart) -> String {
        switch part {
        case .query: query
        case .key: key
        case .value: value
        case .output: output
        }
    }

    private static func name(_ part: WeightRole.MLPPart) -> String {
        switch part {
        case .gate: gate
        case .up: up
        case .down: down
        }
    }
}
