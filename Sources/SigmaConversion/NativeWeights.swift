import CSigma
import Sigma

/// The weights of a native model file by role.
package struct NativeWeights: WeightSources {
    private let file: ModelFile

    package init(_ file: ModelFile) { self.file = file }

    package func find(_ role: WeightRole, rows: Int, columns: Int) throws -> (any MatrixSource)? {
        if role.isVector { return vector(ModelFileFormat.name(role)) }
        guard let matrix = matrix(role) else { return nil }
        precondition(matrix.rows == rows && matrix.columns == columns, "not this file's configuration")
        return PackedMatrix(file: file, name: ModelFileFormat.name(role), matrix: matrix)
    }

    package func missing(_ role: WeightRole) -> SigmaError {
        SigmaError(.damaged, "the tensor is missing", path: file.path, item: ModelFileFormat.name(role))
    }

    /// Vectors lie in the file as in any GGUF file.
    private func vector(_ name: String) -> (any MatrixSource)? {
        guard let tensor = file.gguf.tensor(name), let type = WeightType(rawValue: tensor.type.number) else {
            return nil
        }
        return GGUFMatrix(file: file.gguf, tensor: tensor, type: type, offset: tensor.offset)
    }

    private func matrix(_ role: WeightRole) -> WeightMatrix? {
        switch role {
        case .embedding: return file.weights.embedding
        case .head: return file.configuration.tiedEmbeddings ? nil : file.weights.head
        case .finalNorm: return nil
        case .expert(let layer, let expert, let part):
            guard case .mixture(_, _, let experts, _) = file.weights.layers[layer].feedForward else { return nil }
            switch part {
            case .gate: return experts.gate(expert)
            case .up: return experts.up(expert)
            case .down: return experts.down(expert)
            }
        case .layer(let index, let part):
            let layer = file.weights.layers[index]
            switch (part, layer.feedForward) {
            case (.attention(.query), _): return layer.query
            case (.attention(.key), _): return layer.key
            case (.attention(.value), _): return layer.value
            case (.attention(.output), _): return layer.output
            case (.router, .mixture(let router, _, _, _)): return router
            case (.dense(let part), .dense(let mlp)): return Self.matrix(part, of: mlp)
            case (.shared(let part), .mixture(_, _, _, let shared?)): return Self.matrix(part, of: shared)
            default: return nil
            }
        }
    }

    private static func matrix(_ part: WeightRole.MLPPart, of mlp: MLPWeights) -> WeightMatrix {
        switch part {
        case .gate: mlp.gate
        case .up: mlp.up
        case .down: mlp.down
        }
    }
}

/// Rows of a matrix in a native model file: float ones as they lie there, packed ones as ggml's blocks again.
struct PackedMatrix: MatrixSource {
    let file: ModelFile
    let name: String
    let matrix: WeightMatrix

    var type: WeightType { matrix.type }

    func bytes(rows: Range<Int>, columns: Int, scratch: UnsafeMutableRawPointer) -> UnsafeRawPointer {
        guard type.isQuantized else { return matrix.data(row: rows.lowerBound) }
        var row = rows.lowerBound
        while row < rows.upperBound {
            let first = row % type.groupRows
            let count = min(type.groupRows - first, rows.upperBound - row)
            sigma_unpack_group(
                Int32(type.rawValue), matrix.data(row: row - first), Int32(first), Int32(count), columns,
                scratch + (row - rows.lowerBound) * type.rowBytes(columns))
            row += count
        }
        return UnsafeRawPointer(scratch)
    }

    func release(rows: Range<Int>, columns: Int) {
        let start = matrix.data - file.gguf.file.bytes.baseAddress!
        let first = rows.lowerBound / type.groupRows * type.groupRows
        file.gguf.file.release(
            start + type.matrixBytes(rows: first, columns: columns)..<start
                + type.matrixBytes(rows: rows.upperBound, columns: columns))
    }

    func failure(_ message: String) -> SigmaError {
        let offset = matrix.data - file.gguf.file.bytes.baseAddress!
        return SigmaError(.damaged, message, path: file.path, item: name, offset: UInt64(offset))
    }
}
