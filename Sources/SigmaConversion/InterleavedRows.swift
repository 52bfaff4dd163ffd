import Sigma

/// Rows of q or k that a file has in pairs for each head (row i of the first half, row i of the second), as llama.cpp's converter orders them for
/// RoPE on neighbours; here the halves lie one after the other again.
struct InterleavedRows: MatrixSource {
    let matrix: GGUFMatrix
    let headDim: Int
    /// A bias: one row of such numbers.
    let isVector: Bool

    var type: WeightType { matrix.type }

    /// Where the file has our row.
    private func place(_ row: Int) -> Int {
        let inHead = row % headDim
        return row - inHead + 2 * (inHead % (headDim / 2)) + inHead / (headDim / 2)
    }

    func bytes(rows: Range<Int>, columns: Int, scratch: UnsafeMutableRawPointer) -> UnsafeRawPointer {
        let (items, size) = isVector ? (0..<columns, type.rowBytes(1)) : (rows, type.rowBytes(columns))
        let base = matrix.bytes(rows: 0..<1, columns: columns, scratch: scratch)
        for (index, item) in items.enumerated() {
            (scratch + index * size).copyMemory(from: base + place(item) * size, byteCount: size)
        }
        return UnsafeRawPointer(scratch)
    }

    /// The rows of all heads that some of these belong to.
    private func heads(_ rows: Range<Int>) -> Range<Int> {
        isVector ? rows : rows.lowerBound / headDim * headDim..<(rows.upperBound + headDim - 1) / headDim * headDim
    }
    func prefetch(rows: Range<Int>, columns: Int) { matrix.prefetch(rows: heads(rows), columns: columns) }
    func release(rows: Range<Int>, columns: Int) { matrix.release(rows: heads(rows), columns: columns) }
    func failure(_ message: String) -> SigmaError { matrix.failure(message) }
}
