import Sigma

/// The routed experts of a checkpoint: a tensor for each matrix of each expert, or all experts of a layer stacked in one tensor, with gate and
/// up apart or fused.
struct ExpertTensors {
    let checkpoint: Checkpoint
    let configuration: ModelConfiguration

    private typealias Part = WeightRole.MLPPart

    /// The tensor that holds a matrix of an expert; of several spellings the one that is there, else the usual one.
    func name(layer: Int, _ expert: Int, _ part: WeightRole.MLPPart) -> String {
        let apart = "model.layers.\(layer).mlp.experts.\(expert).\(part)_proj.weight"
        if checkpoint.tensor(apart) != nil { return apart }
        return Self.stackedNames(layer: layer, part).first { checkpoint.tensor($0) != nil } ?? apart
    }

    /// Hugging Face's parameters of the experts' module, with and without `.weight`, and mlx's names.
    private static func stackedNames(layer: Int, _ part: Part) -> [String] {
        let prefix = "model.layers.\(layer).mlp."
        let own = ["experts.\(part)_proj", "experts.\(part)_proj.weight", "switch_mlp.\(part)_proj.weight"]
        let fused = part == .down ? [] : ["experts.gate_up_proj", "experts.gate_up_proj.weight"]
        return (fused + own).map { prefix + $0 }
    }

    /// - Throws: `SigmaError` (`.damaged`) naming a tensor of another shape or type.
    func find(
        layer: Int, _ expert: Int, _ part: WeightRole.MLPPart, rows: Int, columns: Int
    ) throws -> (any MatrixSource)? {
        let name = name(layer: layer, expert, part)
        guard let tensor = try checkpoint.find(name) else { return nil }
        if !name.hasPrefix("model.layers.\(layer).mlp.experts.\(expert).") {
            return try stacked(tensor, expert, part, rows: rows, columns: columns)
        }
        try tensor.check(shape: [rows, columns])
        return tensor
    }

    /// One expert's rows of `[experts, rows, columns]`; of a fused tensor `[experts, 2 x rows, columns]` the first half is gate's.
    private func stacked(
        _ tensor: SourceTensor, _ expert: Int, _ part: Part, rows: Int, columns: Int
    ) throws -> any MatrixSource {
        let isFused = tensor.name.contains("gate_up_proj")
        let expected = [configuration.expertCount, isFused ? 2 * rows : rows, columns]
        let transposed = [expected[0], expected[2], expected[1]]
        guard tensor.shape != transposed || transposed == expected else {
            throw transposedLayout(tensor, expected)
        }
        try tensor.check(shape: expected)
        // A square tensor could be either: its sister in the layer tells, whose sides differ then.
        if transposed == expected { try checkSister(of: tensor, expected: expected) }
        let type = tensor.storedType!
        let first = expert * expected[1] + (isFused && part == .up ? rows : 0)
        return RowsOfTensor(tensor: tensor, type: type, first: first)
    }

    private func checkSister(of tensor: SourceTensor, expected: [Int]) throws {
        let (hidden, intermediate) = (configuration.hiddenSize, configuration.expertIntermediateSize)
        let isDown = tensor.name.contains("down_proj")
        let layer = Int(tensor.name.split(separator: ".")[2]) ?? 0
        let sister = Self.stackedNames(layer: layer, isDown ? .gate : .down).lazy.compactMap { checkpoint.tensor($0) }
            .first
        let isFused = sister?.name.contains("gate_up_proj") ?? false
        let rows = isDown ? (isFused ? 2 * intermediate : intermediate) : hidden
        let columns = isDown ? hidden : intermediate
        if let sister, rows != columns, sister.shape == [configuration.expertCount, columns, rows] {
            throw transposedLayout(tensor, expected)
        }
        guard let sister, rows != columns, sister.shape == [configuration.expertCount, rows, columns] else {
            throw tensor.failure(
                "the shape \(expected) does not tell whether rows or columns come first, and no other tensor of the layer does"
            )
        }
    }

    private func transposedLayout(_ tensor: SourceTensor, _ expected: [Int]) -> SigmaError {
        var error = tensor.failure(
            "experts stored transposed, \(tensor.shape), are not read; expected \(expected), outputs before inputs")
        error.remedy =
            "Save the checkpoint with a tensor for each expert: save_pretrained(..., save_original_format=True) in transformers 5."
        return error
    }
}

/// Some rows of a tensor: one matrix of many.
struct RowsOfTensor: MatrixSource {
    let tensor: SourceTensor
    let type: WeightType
    /// The matrix's first row in the tensor.
    let first: Int

    private func shifted(_ rows: Range<Int>) -> Range<Int> { first + rows.lowerBound..<first + rows.upperBound }

    func bytes(rows: Range<Int>, columns: Int, scratch: UnsafeMutableRawPointer) throws -> UnsafeRawPointer {
        tensor.bytes(rows: shifted(rows), columns: columns, scratch: scratch)
    }
    func prefetch(rows: Range<Int>, columns: Int) { tensor.prefetch(rows: shifted(rows), columns: columns) }
    func release(rows: Range<Int>, columns: Int) { tensor.release(rows: shifted(rows), columns: columns) }
    func failure(_ message: String) -> SigmaError { tensor.failure(message + " (rows from \(first) on)") }
}
