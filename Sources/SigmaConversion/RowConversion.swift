import CSigma
import Sigma

/// Rows of weights from a source to a file's layout.
enum RowConversion {
    /// How rows lie in the file that is written.
    enum Layout: Sendable {
        /// A native model file's: float types row-major, quantized ones packed in groups.
        case packed
        /// ggml's: row-major blocks.
        case plain

        /// Bytes of some rows of a matrix.
        func bytes(_ type: WeightType, rows: Int, columns: Int) -> Int {
            switch self {
            case .packed: type.matrixBytes(rows: rows, columns: columns)
            case .plain: rows * type.rowBytes(columns)
            }
        }
    }

    /// Converts rows of one matrix. The first row must begin a group. Blocks of the same type are copied as they are.
    ///
    /// - Parameter target: room for `layout.bytes(type, rows: rows.count, columns: columns)` bytes.
    /// - Throws: `SigmaError` (`.damaged`) naming the tensor: NaN or infinity, or a weight too large for the type.
    static func convert(
        _ source: any MatrixSource, rows: Range<Int>, columns: Int, as type: WeightType, _ layout: Layout,
        to target: UnsafeMutableRawPointer
    ) throws {
        let groupRows = max(type.groupRows, source.type.groupRows)
        let sourceRowBytes = source.type.rowBytes(columns)
        let rowBytes = type.rowBytes(columns)
        let packs = layout == .packed && type.isQuantized
        let importance = type.isQuantized && type != source.type ? source.columnImportance : nil
        precondition(importance.map { $0.count == columns } ?? true)
        try withUnsafeTemporaryAllocation(byteCount: groupRows * sourceRowBytes, alignment: 64) { scratch in
            try withUnsafeTemporaryAllocation(byteCount: packs ? groupRows * rowBytes : 1, alignment: 64) { blocks in
                try withUnsafeTemporaryAllocation(of: Float.self, capacity: groupRows * columns) { values in
                    for first in stride(from: rows.lowerBound, to: rows.upperBound, by: groupRows) {
                        let group = first..<min(first + groupRows, rows.upperBound)
                        let out = target + layout.bytes(type, rows: first - rows.lowerBound, columns: columns)
                        let encoded = packs ? blocks.baseAddress! : out
                        var from = try source.bytes(rows: group, columns: columns, scratch: scratch.baseAddress!)
                        if type == source.type, type.isQuantized {
                            try check(from, rows: group, of: source, columns: columns)
                            if !packs { out.copyMemory(from: from, byteCount: group.count * rowBytes) }
                        } else {
                            try encode(
                                from, rows: group, of: source, values.baseAddress!, columns: columns, as: type,
                                importance: importance, to: encoded)
                            from = UnsafeRawPointer(encoded)
                        }
                        if packs {
                            sigma_pack_group(Int32(type.rawValue), from, Int32(group.count), columns, out)
                        }
                    }
                }
            }
        }
    }

    private static func encode(
        _ from: UnsafeRawPointer, rows: Range<Int>, of source: any MatrixSource, _ values: UnsafeMutablePointer<Float>,
        columns: Int, as type: WeightType, importance: [Float]?, to target: UnsafeMutableRawPointer
    ) throws {
        let sourceRowBytes = source.type.rowBytes(columns)
        if source.type.isQuantized {
            precondition(type == .f32, "only widened")
            try check(from, rows: rows, of: source, columns: columns)
            Quantizer.dequantize(from, source.type, rows: rows.count, columns: columns, to: values)
            target.copyMemory(from: values, byteCount: 4 * rows.count * columns)
            return
        }
        for i in 0..<rows.count {
            let row = values + i * columns
            guard Quantizer.widen(from + i * sourceRowBytes, source.type, count: columns, to: row) else {
                let column = (0..<columns).first { !row[$0].isFinite }!
                throw source.failure(
                    "expected finite weights, found \(row[column]) in row \(rows.lowerBound + i), column \(column)")
            }
        }
        if type == source.type {
            target.copyMemory(from: from, byteCount: rows.count * sourceRowBytes)
        } else if let row = Quantizer.encode(
            values, rows: rows.count, columns: columns, as: type, importance: importance, to: target)
        {
            throw source.failure(
                "row \(rows.lowerBound + row) has weights too large for \(type.name); choose another --type")
        }
    }

    /// That the scales of quantized rows are finite: then all weights are.
    private static func check(
        _ blocks: UnsafeRawPointer, rows: Range<Int>, of source: any MatrixSource, columns: Int
    ) throws {
        let type = source.type
        let perRow = columns / type.blockLength
        if type == .mxfp4 {
            for block in 0..<rows.count * perRow {
                let exponent = blocks.load(fromByteOffset: block * type.blockBytes, as: UInt8.self)
                guard exponent <= SIGMA_MXFP4_LARGEST else {
                    throw source.failure(
                        "expected scales up to 2^\(SIGMA_MXFP4_LARGEST - 127), found 2^\(Int(exponent) - 127) in row "
                            + "\(rows.lowerBound + block / perRow), columns from \(block % perRow * type.blockLength)")
                }
            }
            return
        }
        let scaleOffsets = type.scaleOffsets
        for block in 0..<rows.count * perRow {
            for offset in scaleOffsets {
                let bits = blocks.loadUnaligned(fromByteOffset: block * type.blockBytes + offset, as: UInt16.self)
                guard UInt16(littleEndian: bits) & 0x7c00 != 0x7c00 else {
                    throw source.failure(
                        "expected finite scales, found \(FloatBits.float(f16: UInt16(littleEndian: bits))) in row "
                            + "\(rows.lowerBound + block / perRow), columns from \(block % perRow * type.blockLength)")
                }
            }
        }
    }
}

extension WeightType {
    /// Where a block of ggml's has its fp16 numbers: a block times a factor is these times the factor.
    var scaleOffsets: [Int] {
        switch self {
        case .f32, .f16, .bf16, .mxfp4: []
        case .q4_0, .q5_0, .q8_0, .iq4_nl, .iq4_xs: [0]
        case .q4_1, .q5_1, .q4_k, .q5_k: [0, 2]
        case .q2_k: [80, 82]
        case .q3_k: [108]
        case .q6_k: [208]
        }
    }
}
