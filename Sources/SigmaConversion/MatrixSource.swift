import Sigma

/// Where the weights of one matrix (or the numbers of one vector: a single row) come from. Rows are in ggml's blocks of `type`, row-major.
package protocol MatrixSource: Sendable {
    /// Of the weights as the source has them.
    var type: WeightType { get }

    /// The bytes of some rows of `columns` weights: `rows.count * type.rowBytes(columns)`, any alignment.
    ///
    /// - Parameter scratch: room for as many bytes, for sources that make them; the result may lie there or elsewhere, and is
    ///   valid until the next call with the same scratch.
    func bytes(rows: Range<Int>, columns: Int, scratch: UnsafeMutableRawPointer) throws -> UnsafeRawPointer

    /// Says that these rows will be wanted soon.
    func prefetch(rows: Range<Int>, columns: Int)

    /// Says that these rows are done: a source may be larger than the memory.
    func release(rows: Range<Int>, columns: Int)

    /// An error that names the file and the tensor.
    func failure(_ message: String) -> SigmaError

    /// How much each column's error counts when the weights are quantized (see `Quantizer.encode`); nil: all count alike.
    var columnImportance: [Float]? { get }
}

extension MatrixSource {
    package var columnImportance: [Float]? { nil }
    package func prefetch(rows: Range<Int>, columns: Int) {}
}

extension SourceTensor: MatrixSource {
    package var type: WeightType { storedType! }

    package func bytes(rows: Range<Int>, columns: Int, scratch: UnsafeMutableRawPointer) -> UnsafeRawPointer {
        bytes.baseAddress! + rows.lowerBound * type.rowBytes(columns)
    }

    package func prefetch(rows: Range<Int>, columns: Int) {
        let rowBytes = type.rowBytes(columns)
        shard.file.prefetch(
            tensor.offset + rows.lowerBound * rowBytes..<tensor.offset + rows.upperBound * rowBytes)
    }

    package func release(rows: Range<Int>, columns: Int) {
        let rowBytes = type.rowBytes(columns)
        shard.file.release(
            tensor.offset + rows.lowerBound * rowBytes..<tensor.offset + rows.upperBound * rowBytes)
    }
}
