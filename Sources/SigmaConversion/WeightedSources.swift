import Sigma
import SigmaStudies

/// A model's weights with the importance of their columns, which quantizers weigh errors by.
struct WeightedSources: WeightSources {
    let base: any WeightSources
    let importance: ImportanceMatrix
    /// Whether the embedding is the head too.
    let tiedEmbeddings: Bool

    func find(_ role: WeightRole, rows: Int, columns: Int) throws -> (any MatrixSource)? {
        guard let source = try base.find(role, rows: rows, columns: columns) else { return nil }
        guard !role.isFloat else { return source }
        return Source(base: source, role: role, sources: self)
    }

    func missing(_ role: WeightRole) -> SigmaError { base.missing(role) }
    func leftovers(_ roles: Set<WeightRole>, of configuration: ModelConfiguration) -> Leftovers {
        base.leftovers(roles, of: configuration)
    }

    /// nil where none is known: an embedding that is not the head, whose rows are copied and never multiplied.
    private func columns(_ role: WeightRole) -> [Float]? {
        switch role {
        case .embedding: tiedEmbeddings ? importance.columns(ImportanceMatrix.headInput) : nil
        case .head: importance.columns(ImportanceMatrix.headInput)
        case .layer(let layer, .attention(.output)): importance.columns(ImportanceMatrix.attentionOutputInput(layer))
        case .layer(let layer, .attention): importance.columns(ImportanceMatrix.attentionInput(layer))
        case .layer(let layer, .dense(.down)), .layer(let layer, .shared(.down)):
            importance.columns(ImportanceMatrix.alwaysOnDownInput(layer))
        case .layer(let layer, .dense), .layer(let layer, .shared):
            importance.columns(ImportanceMatrix.feedForwardInput(layer))
        case .expert(let layer, let expert, .down):
            importance.columns(ImportanceMatrix.expertDownInput(layer), expert: expert)
        case .expert(let layer, let expert, _):
            importance.columns(ImportanceMatrix.expertInput(layer), expert: expert)
        case .finalNorm, .layer: nil
        }
    }

    /// Made anew for each piece that is converted: all of them together would be large.
    private struct Source: MatrixSource {
        let base: any MatrixSource
        let role: WeightRole
        let sources: WeightedSources

        var type: WeightType { base.type }
        var columnImportance: [Float]? { sources.columns(role) }
        func bytes(rows: Range<Int>, columns: Int, scratch: UnsafeMutableRawPointer) throws -> UnsafeRawPointer {
            try base.bytes(rows: rows, columns: columns, scratch: scratch)
        }
        func prefetch(rows: Range<Int>, columns: Int) { base.prefetch(rows: rows, columns: columns) }
        func release(rows: Range<Int>, columns: Int) { base.release(rows: rows, columns: columns) }
        func failure(_ message: String) -> SigmaError { base.failure(message) }
    }
}
