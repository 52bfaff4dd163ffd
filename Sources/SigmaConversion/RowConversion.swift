import CSigma
import Sigma

/// Rows of weights from a source to the model file's layout.
enum RowConversion {
    /// Converts rows of one matrix: float types to row-major rows, quantized ones to packed groups. The first row must begin a group.
    ///
    /// - Parameter target: room for `type.matrixBytes(rows: rows.count, columns: columns)` bytes.
    /// - Throws: `SigmaError` (`.damaged`) naming the tensor: NaN or infinity, or a weight too large for the type.
    static func convert(
        _ source: any MatrixSource, rows: Range<Int>, columns: Int, as type: WeightType,
        to target: UnsafeMutableRawPointer
    ) throws {
        let groupRows = type.groupRows
        let sourceRowBytes = source.type.rowBytes(columns)
        let rowBytes = type.rowBytes(columns)
        try withUnsafeTemporaryAllocation(byteCount: groupRows * sourceRowBytes, alignment: 64) { scratch in
            try withUnsafeTemporaryAllocation(byteCount: groupRows * rowBytes, alignment: 64) { blocks in
                try withUnsafeTemporaryAllocation(of: Float.self, capacity: columns) { values in
                    for first in stride(from: rows.lowerBound, to: rows.upperBound, by: groupRows) {
                        let group = first..<min(first + groupRows, rows.upperBound)
                        let out = target + type.matrixBytes(rows: first - rows.lowerBound, columns: columns)
                        let encoded = type.isQuantized ? blocks.baseAddress! : out
                        var from = try source.bytes(rows: group, columns: columns, scratch: scratch.baseAddress!)
                        if type != source.type || !type.isQuantized {
                            for i in 0..<group.count {
                                try encode(
                                    from + i * sourceRowBytes, row: first + i, of: source, values.baseAddress!,
                                    columns: columns, as: type, to: encoded + i * rowBytes)
                            }
                            from = UnsafeRawPointer(encoded)
                        }
                        if type.isQuantized {
                            sigma_pack_group(Int32(type.rawValue), from, Int32(group.count), columns, out)
                        }
                    }
                }
            }
        }
    }

    private static func encode(
        _ from: UnsafeRawPointer, row: Int, of source: any MatrixSource, _ values: UnsafeMutablePointer<Float>,
        columns: Int, as type: WeightType, to target: UnsafeMutableRawPointer
    ) throws {
        guard Quantizer.widen(from, source.type, count: columns, to: values) else {
            let column = (0..<columns).first { !values[$0].isFinite }!
            throw source.failure("expected finite weights, found \(values[column]) in row \(row), column \(column)")
        }
        if type == source.type {
            target.copyMemory(from: from, byteCount: type.rowBytes(columns))
        } else if !Quantizer.encode(values, count: columns, as: type, to: target) {
            throw source.failure("row \(row) has weights too large for \(type.name); choose another --type")
        }
    }
}
