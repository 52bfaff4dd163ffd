import CSigma
import Sigma

/// Whether a native model file gets planes that screen its output head.
package enum HeadScreening: String, Sendable, CaseIterable {
    /// Where they pay: from `leastHeadBytes` on.
    case auto
    case on, off

    /// A smaller head stays in the processor's caches, or is read in less time than screening's steps take.
    package static let leastHeadBytes = 32 << 20

    /// - Throws: `SigmaError(.usage)` if planes are asked for that a head of this width cannot have.
    func adds(headBytes: Int, hidden: Int) throws -> Bool {
        switch self {
        case .off: return false
        case .auto: return ScreenPlanes.fits(hidden: hidden) && headBytes >= Self.leastHeadBytes
        case .on:
            guard ScreenPlanes.fits(hidden: hidden) else {
                throw SigmaError(
                    .usage,
                    "an output head of \(hidden) columns cannot be screened: expected a multiple of 32",
                    remedy: "Leave --head-screen at auto.")
            }
            return true
        }
    }
}

/// An output head whose planes are made while it is converted.
struct ScreenedHead: Sendable {
    let source: any MatrixSource
    let rows: Int
    let columns: Int
    /// Of the head as it is written.
    let type: WeightType

    /// Groups whose rows are averaged, evenly spread over the head.
    private static let sampledGroups = 512

    /// The mean of the head's rows [columns], of a sample: any vector will do, and a near one leaves least to the planes.
    ///
    /// - Throws: `SigmaError` (`.damaged`) naming the tensor: NaN or infinity.
    func mean() throws -> [Float] {
        let groupRows = Int(SIGMA_GROUP)
        let groups = ScreenPlanes.groups(rows)
        let step = max(1, groups / Self.sampledGroups)
        var sums = [Double](repeating: 0, count: columns)
        var count = 0
        try withUnsafeTemporaryAllocation(
            byteCount: source.type.matrixBytes(rows: groupRows, columns: columns), alignment: 64
        ) { packed in
            try withUnsafeTemporaryAllocation(of: Float.self, capacity: columns) { values in
                for group in stride(from: 0, to: groups, by: step) {
                    let range = group * groupRows..<min((group + 1) * groupRows, rows)
                    try RowConversion.convert(
                        source, rows: range, columns: columns, as: source.type, .packed, to: packed.baseAddress!)
                    for index in 0..<range.count {
                        Self.read(packed.baseAddress!, index, source.type, values)
                        for column in 0..<columns { sums[column] += Double(values[column]) }
                    }
                    count += range.count
                }
            }
        }
        return sums.map { Float($0 / Double(count)) }
    }

    /// Rows of the head as they are written, and of both planes, one after the other.
    ///
    /// - Parameter range: whole groups, but for the head's last.
    func write(
        _ range: Range<Int>, mean: [Float], to target: UnsafeMutableRawPointer
    ) throws {
        try RowConversion.convert(source, rows: range, columns: columns, as: type, .packed, to: target)
        let coarse = target + type.matrixBytes(rows: range.count, columns: columns)
        let fine = coarse + ScreenPlanes.groups(range.count) * ScreenPlanes.groupBytes(columns)
        let groupRows = Int(SIGMA_GROUP)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: groupRows * columns) { values in
            for first in stride(from: 0, to: range.count, by: groupRows) {
                let count = min(groupRows, range.count - first)
                for index in 0..<count {
                    let row = UnsafeMutableBufferPointer(rebasing: values[index * columns..<(index + 1) * columns])
                    Self.read(target, first + index, type, row)
                    for column in 0..<columns { row[column] -= mean[column] }
                }
                sigma_screen_encode(
                    values.baseAddress!, Int32(count), Int32(columns),
                    coarse + first / groupRows * ScreenPlanes.groupBytes(columns),
                    fine + first * ScreenPlanes.rowBytes(columns))
            }
        }
    }

    /// Row `index` of a matrix in a model file's layout.
    private static func read(
        _ matrix: UnsafeRawPointer, _ index: Int, _ type: WeightType, _ row: UnsafeMutableBufferPointer<Float>
    ) {
        let place = matrix + index / type.groupRows * type.groupBytes(row.count)
        if type.isQuantized {
            sigma_dequantize_row(
                Int32(type.rawValue), place, Int32(index % type.groupRows), row.count, row.baseAddress!)
        } else {
            _ = Quantizer.widen(place, type, count: row.count, to: row.baseAddress!)
        }
    }
}
