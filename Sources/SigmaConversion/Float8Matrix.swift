import Sigma

/// A matrix of 8-bit floats (E4M3) with a scale for each block of it, as FP8 checkpoints have them: `NAME` and `NAME_scale_inv`. A weight is the
/// product, rounded to fp32.
struct Float8Matrix: MatrixSource {
    private let tensor: SourceTensor
    private let block: Float8Block
    /// [block rows, block columns]
    private let scales: [Float]
    private let scaleColumns: Int

    let type = WeightType.f32

    /// - Throws: `SigmaError` (`.damaged`) naming the tensor of another shape or type, or whose scales are no finite numbers.
    init(_ tensor: SourceTensor, scales: SourceTensor, _ block: Float8Block) throws {
        self.tensor = tensor
        self.block = block
        let shape = [
            (tensor.shape[0] + block.rows - 1) / block.rows, (tensor.shape[1] + block.columns - 1) / block.columns,
        ]
        try scales.check(shape: shape)
        var values = [Float](repeating: 0, count: shape[0] * shape[1])
        guard Quantizer.widen(scales.bytes.baseAddress!, scales.type, count: values.count, to: &values) else {
            throw scales.failure("expected finite scales")
        }
        self.scales = values
        scaleColumns = shape[1]
    }

    /// By a byte's bits: sign, four of exponent, three of mantissa. All exponent and mantissa bits set is no number; there is no infinity.
    private static let values: [Float] = (0..<256).map { bits in
        let (exponent, mantissa) = (bits >> 3 & 15, Float(bits & 7))
        if bits & 0x7f == 0x7f { return .nan }
        let magnitude =
            exponent == 0
            ? mantissa * 0x1p-9 : (1 + mantissa / 8) * Float(sign: .plus, exponent: exponent - 7, significand: 1)
        return bits & 0x80 == 0 ? magnitude : -magnitude
    }

    func bytes(rows: Range<Int>, columns: Int, scratch: UnsafeMutableRawPointer) -> UnsafeRawPointer {
        let out = scratch.assumingMemoryBound(to: Float.self)
        let bytes = tensor.bytes
        Self.values.withUnsafeBufferPointer { table in
            scales.withUnsafeBufferPointer { scales in
                for (index, row) in rows.enumerated() {
                    let scaleRow = row / block.rows * scaleColumns
                    for first in stride(from: 0, to: columns, by: block.columns) {
                        let scale = scales[scaleRow + first / block.columns]
                        for column in first..<min(first + block.columns, columns) {
                            out[index * columns + column] = table[Int(bytes[row * columns + column])] * scale
                        }
                    }
                }
            }
        }
        return UnsafeRawPointer(scratch)
    }

    private func place(_ rows: Range<Int>, _ columns: Int) -> Range<Int> {
        let start = tensor.tensor.offset
        return start + rows.lowerBound * columns..<start + rows.upperBound * columns
    }
    func prefetch(rows: Range<Int>, columns: Int) { tensor.shard.file.prefetch(place(rows, columns)) }
    func release(rows: Range<Int>, columns: Int) { tensor.shard.file.release(place(rows, columns)) }
    func failure(_ message: String) -> SigmaError { tensor.failure(message) }
}

/// The part of an FP8 matrix that shares a scale.
package struct Float8Block: Sendable, Equatable {
    let rows: Int
    let columns: Int

    /// What `quantization_config` says; nil if there is none.
    ///
    /// - Throws: `SigmaError` (`.damaged`) for any other quantization.
    init?(_ config: ConfigReader) throws {
        let key = "quantization_config"
        guard let section = try config.section(key) else { return nil }
        guard try section.string("quant_method") == "fp8" else {
            let method = try section.string("quant_method") ?? "none"
            throw config.failure(
                key, "expected quant_method fp8, found \(method): other quantized checkpoints are not read",
                remedy: "Convert the original checkpoint, or a GGUF file.")
        }
        if let format = try section.string("fmt"), format != "e4m3" {
            throw section.failure("fmt", "expected e4m3, found \(format)")
        }
        let size = try section.integers("weight_block_size")
        guard size.count == 2, size.allSatisfy({ (1...1 << 16).contains($0) }) else {
            throw section.failure("weight_block_size", "expected rows and columns of a block that shares a scale")
        }
        rows = size[0]
        columns = size[1]
    }
}
