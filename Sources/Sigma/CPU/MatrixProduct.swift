import CSigma

extension WeightMatrix {
    /// Row `row` [columns] as fp32, exactly.
    func copyRow(_ row: Int, to out: UnsafeMutablePointer<Float>, _ kernels: sigma_kernels) {
        if type.isQuantized {
            let inGroup = row % type.groupRows
            sigma_dequantize_row(Int32(type.rawValue), data(row: row - inGroup), Int32(inGroup), columns, out)
        } else {
            kernels.widen(data(row: row), Int32(type.rawValue), out, Int32(columns))
        }
    }
}

extension CPUContext {
    /// A tile of a product, on the calling member: out [rows, count] (rows `stride` apart) = W[first ..< first + count] applied to `rows`
    /// activation rows.
    ///
    /// With OpenBLAS it uses the beginning of the member's scratch.
    func multiply(
        _ matrix: WeightMatrix, _ first: Int, _ count: Int, _ input: sigma_activations, rows: Int,
        _ out: UnsafeMutablePointer<Float>, stride: Int, _ member: Int32
    ) {
        let data = matrix.data(row: first)
        let (n, k) = (Int32(count), Int32(matrix.columns))
        var input = input
        if matrix.type.isQuantized {
            kernels.matmul_packed(Int32(matrix.type.rawValue), data, n, k, &input, Int32(rows), out, stride)
        } else if usesBLAS && rows >= StepPath.blasMinimum {
            multiplyWithBLAS(matrix, data, count, input, rows: rows, out, stride: stride, member)
        } else {
            kernels.matmul_float(data, Int32(matrix.type.rawValue), n, k, &input, Int32(rows), out, stride)
        }
    }

    /// OpenBLAS on this member's tile: pieces of rows and outputs have fixed sizes, so that the number of threads changes nothing.
    private func multiplyWithBLAS(
        _ matrix: WeightMatrix, _ data: UnsafeRawPointer, _ count: Int, _ input: sigma_activations, rows: Int,
        _ out: UnsafeMutablePointer<Float>, stride: Int, _ member: Int32
    ) {
        let k = matrix.columns
        let gathered = scratch(member)
        var tile = UnsafePointer<Float>(gathered + StepPath.blasRows * k)
        if matrix.type == .f32 {
            tile = data.assumingMemoryBound(to: Float.self)
        } else {
            let widened = gathered + StepPath.blasRows * k
            kernels.widen(data, Int32(matrix.type.rawValue), widened, Int32(count * k))
        }
        var row = 0
        while row < rows {
            let piece = min(StepPath.blasRows, rows - row)
            var a = input.values! + row * input.value_stride
            var aStride = input.value_stride
            if let index = input.index {
                for i in 0..<piece {
                    (gathered + i * k).update(
                        from: input.values + Int(index[row + i]) * input.value_stride, count: k)
                }
                a = UnsafePointer(gathered)
                aStride = k
            }
            floatProduct(
                a, rows: piece, stride: aStride, tile, outputs: count, inputs: k, out + row * stride, stride: stride)
            row += piece
        }
    }
}
