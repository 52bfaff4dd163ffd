import Sigma

/// The weights of a GGUF file with llama.cpp's tensors (row-major, the experts of a layer in one tensor) by role.
package struct GGUFWeights: WeightSources {
    /// Divisors of RoPE's frequencies: part of the configuration.
    static let ropeDivisors = "rope_freqs.weight"

    private let parts: GGUFParts
    /// Rows of a head whose q and k lie in pairs; nil where halves lie one after the other, as here.
    private let interleavedHead: Int?

    package init(_ parts: GGUFParts, _ configuration: GGUFConfiguration) {
        self.parts = parts
        interleavedHead = configuration.family.interleavesRotaryRows ? configuration.model.headDim : nil
    }

    package func find(_ role: WeightRole, rows: Int, columns: Int) throws -> (any MatrixSource)? {
        guard let (file, tensor) = parts.tensor(name(role)) else { return nil }
        func failure(_ message: String) -> SigmaError { Self.failure(file, tensor, message) }
        var expected = role.isVector ? [columns] : [columns, rows]
        // The matrix's first row in the tensor.
        var start = 0
        if case .expert(_, let expert, let part) = role {
            let isFused = Self.isFused(tensor.name)
            if isFused { expected[1] = 2 * rows }
            // How many there are is the tensor's to say; the file was checked to hold them all.
            guard tensor.dimensions.count <= 3 else { throw failure("expected 3 dimensions") }
            let count = tensor.dimensions.count == 3 ? tensor.dimensions[2] : 1
            guard expert < count else { throw failure("expected more experts than \(expert), found \(count)") }
            expected.append(count)
            // Of a fused tensor the first half of an expert's rows is gate's.
            start = expert * expected[1] + (isFused && part == .up ? rows : 0)
        }
        guard Self.withoutTrailingOnes(tensor.dimensions) == Self.withoutTrailingOnes(expected) else {
            throw failure("expected dimensions \(expected), found \(tensor.dimensions)")
        }
        let type = try Self.weightType(file, tensor, floatOnly: role.isFloat)
        let matrix = GGUFMatrix(
            file: file, tensor: tensor, type: type, offset: tensor.offset + start * type.rowBytes(columns))
        guard let interleavedHead, role.isRotated else { return matrix }
        return InterleavedRows(matrix: matrix, headDim: interleavedHead, isVector: role.isVector)
    }

    package func missing(_ role: WeightRole) -> SigmaError {
        SigmaError(.damaged, "the tensor is missing", path: parts.path, item: name(role))
    }

    /// Newer files may have gate and up of a layer's experts in one tensor.
    private func name(_ role: WeightRole) -> String {
        let name = ModelFileFormat.name(role)
        guard case .expert(let layer, _, let part) = role, part != .down, parts.tensor(name) == nil else { return name }
        let fused = ModelFileFormat.layer(layer, ModelFileFormat.fusedExperts)
        return parts.tensor(fused) == nil ? name : fused
    }

    private static func isFused(_ name: String) -> Bool { name.hasSuffix("." + ModelFileFormat.fusedExperts) }

    package func leftovers(_ roles: Set<WeightRole>, of configuration: ModelConfiguration) -> Leftovers {
        var leftovers = Leftovers()
        let used = Set(roles.map { ByteKey(text: name($0)) })
        for part in parts.parts {
            for tensor in part.tensors
            where !used.contains(ByteKey(text: tensor.name)) && tensor.name != Self.ropeDivisors {
                leftovers.unknown.append(tensor.name)
                if leftovers.path == nil { leftovers.path = part.file.path }
            }
        }
        return leftovers
    }

    /// The number of experts in a layer's tensors must be the configuration's: a smaller number would leave some out unnoticed.
    package func checkExpertCount(_ configuration: ModelConfiguration) throws {
        for layer in 0..<configuration.layerCount where !configuration.isDense(layer: layer) {
            for part in WeightRole.MLPPart.allCases {
                let name = name(.expert(layer: layer, 0, part))
                guard let (file, tensor) = parts.tensor(name) else { continue }
                let count = tensor.dimensions.count >= 3 ? tensor.dimensions[2] : 1
                guard count == configuration.expertCount else {
                    throw Self.failure(file, tensor, "expected \(configuration.expertCount) experts, found \(count)")
                }
            }
        }
    }

    private static func weightType(
        _ file: GGUFFile, _ tensor: GGUFFile.Tensor, floatOnly: Bool
    ) throws -> WeightType {
        if let type = WeightType(rawValue: tensor.type.number), !(floatOnly && type.isQuantized) { return type }
        let supported = WeightType.allCases.filter { !(floatOnly && $0.isQuantized) }.map(\.ggml.name)
        throw failure(
            file, tensor,
            "weights of type \(tensor.type.name) are not read here; expected \(supported.joined(separator: ", "))",
            remedy: floatOnly
                ? nil
                : "Take a file of those types (Q8_0, Q4_K_M, Q3_K_M and IQ4_XS files are), or convert the original checkpoint."
        )
    }

    private static func failure(
        _ file: GGUFFile, _ tensor: GGUFFile.Tensor, _ message: String, remedy: Remedy? = nil
    ) -> SigmaError {
        SigmaError(
            .damaged, message, path: file.file.path, item: tensor.name, offset: UInt64(tensor.headerOffset),
            remedy: remedy)
    }

    /// Writers differ in whether they keep them.
    private static func withoutTrailingOnes(_ dimensions: [Int]) -> ArraySlice<Int> {
        var result = dimensions[...]
        while result.count > 1, result.last == 1 { result.removeLast() }
        return result
    }
}

/// Rows of a GGUF tensor, as they lie in the file.
struct GGUFMatrix: MatrixSource {
    let file: GGUFFile
    let tensor: GGUFFile.Tensor
    let type: WeightType
    /// Of the matrix, from the file's begin: a tensor may hold several.
    let offset: Int

    func bytes(rows: Range<Int>, columns: Int, scratch: UnsafeMutableRawPointer) -> UnsafeRawPointer {
        file.file.bytes.baseAddress! + (offset + rows.lowerBound * type.rowBytes(columns))
    }

    func prefetch(rows: Range<Int>, columns: Int) {
        let rowBytes = type.rowBytes(columns)
        file.file.prefetch(offset + rows.lowerBound * rowBytes..<offset + rows.upperBound * rowBytes)
    }

    func release(rows: Range<Int>, columns: Int) {
        let rowBytes = type.rowBytes(columns)
        file.file.release(offset + rows.lowerBound * rowBytes..<offset + rows.upperBound * rowBytes)
    }

    func failure(_ message: String) -> SigmaError {
        SigmaError(.damaged, message, path: file.file.path, item: tensor.name, offset: UInt64(offset))
    }
}
