import Sigma

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Writes a file's weights piece by piece: a wave of pieces is made in memory on several threads, then written in order.
struct PieceWriter {
    /// Bytes of output that are in memory at a time, or one piece, whatever is more.
    static let waveBytes = 64 << 20
    /// A piece of a tensor's rows.
    static let pieceBytes = 4 << 20

    struct Piece: Sendable {
        enum Content: Sendable {
            case rows(any MatrixSource, Range<Int>, columns: Int, type: WeightType, RowConversion.Layout)
            /// A whole record of a native model file.
            case expert(WeightPlan.Expert, ExpertLayout)
        }

        /// From the file's begin.
        var offset: Int
        var byteCount: Int
        /// Index among the checksums.
        var record: Int
        var content: Content

        /// Rows of one matrix as pieces, the first row at `offset`.
        static func rows(
            _ source: any MatrixSource, rows: Int, columns: Int, type: WeightType, _ layout: RowConversion.Layout,
            at offset: Int, record: Int
        ) -> [Piece] {
            let step = max(1, PieceWriter.pieceBytes / type.groupBytes(columns)) * type.groupRows
            return stride(from: 0, to: rows, by: step).map { first in
                let range = first..<min(first + step, rows)
                return Piece(
                    offset: offset + layout.bytes(type, rows: first, columns: columns),
                    byteCount: layout.bytes(type, rows: range.count, columns: columns), record: record,
                    content: .rows(source, range, columns: columns, type: type, layout))
            }
        }
    }

    let threads: Int
    /// Called between waves with the share that is done, 0...1.
    let progress: (Double) -> Void
    let isCancelled: () -> Bool
    /// Fails if an input was lost while it was read; asked before a wave is written.
    let checkIntact: () throws -> Void

    /// - Returns: the records' checksums.
    func write(_ pieces: [Piece], recordCount: Int, to file: AtomicFile, fileSize: Int) throws -> [UInt32] {
        var checksums = [UInt32](repeating: 0, count: recordCount)
        let largest = pieces.map(\.byteCount).max() ?? 0
        let total = pieces.reduce(0) { $0 + $1.byteCount }
        let buffer = try Buffer(count: max(min(Self.waveBytes, total), largest))
        var first = 0
        while first < pieces.count {
            // A wave: as many pieces as the buffer holds.
            var offsets: [Int] = []
            var size = 0
            while first + offsets.count < pieces.count,
                size + pieces[first + offsets.count].byteCount <= buffer.bytes.count
            {
                offsets.append(size)
                size += pieces[first + offsets.count - 1].byteCount
            }
            if isCancelled() { throw SigmaError(.interrupted, "interrupted; nothing was written") }
            let wave = pieces[first..<first + offsets.count]
            try Workers.forEach(wave.count, threads: threads) { [offsets] i in
                let piece = wave[wave.startIndex + i]
                try piece.content.fill(
                    UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[offsets[i]..<offsets[i] + piece.byteCount]))
            }
            try checkIntact()
            for (piece, offset) in zip(wave, offsets) {
                let bytes = UnsafeRawBufferPointer(rebasing: buffer.bytes[offset..<offset + piece.byteCount])
                checksums[piece.record] = ModelFileFormat.checksum(bytes, continuing: checksums[piece.record])
                try file.write(bytes, at: piece.offset)
            }
            for piece in wave { piece.content.release() }
            first += offsets.count
            progress(Double(wave.last!.offset + wave.last!.byteCount) / Double(fileSize))
        }
        return checksums
    }

    private final class Buffer: @unchecked Sendable {
        let bytes: UnsafeMutableRawBufferPointer
        /// - Throws: `SigmaError` (`.unavailable`) if memory ends.
        init(count: Int) throws {
            var memory: UnsafeMutableRawPointer?
            guard posix_memalign(&memory, 64, max(count, 1)) == 0, let memory else {
                throw SigmaError(.unavailable, "no memory for a buffer of \(count) bytes")
            }
            bytes = UnsafeMutableRawBufferPointer(start: memory, count: count)
        }
        deinit { free(bytes.baseAddress) }
    }
}

extension PieceWriter.Piece.Content {
    fileprivate func fill(_ target: UnsafeMutableRawBufferPointer) throws {
        switch self {
        case .rows(let source, let rows, let columns, let type, let layout):
            try RowConversion.convert(
                source, rows: rows, columns: columns, as: type, layout, to: target.baseAddress!)
        case .expert(let expert, let layout):
            // The gaps between the matrices and at the end are zero.
            target.initializeMemory(as: UInt8.self, repeating: 0)
            let base = target.baseAddress!
            try RowConversion.convert(
                expert.gate, rows: 0..<layout.intermediate, columns: layout.hidden, as: layout.gateType, .packed,
                to: base)
            try RowConversion.convert(
                expert.up, rows: 0..<layout.intermediate, columns: layout.hidden, as: layout.upType, .packed,
                to: base + layout.upOffset)
            try RowConversion.convert(
                expert.down, rows: 0..<layout.hidden, columns: layout.intermediate, as: layout.downType, .packed,
                to: base + layout.downOffset)
        }
    }

    /// Lets go of the pages of sources that are done.
    fileprivate func release() {
        switch self {
        case .rows(let source, let rows, let columns, _, _): source.release(rows: rows, columns: columns)
        case .expert(let expert, let layout):
            expert.gate.release(rows: 0..<layout.intermediate, columns: layout.hidden)
            expert.up.release(rows: 0..<layout.intermediate, columns: layout.hidden)
            expert.down.release(rows: 0..<layout.hidden, columns: layout.intermediate)
        }
    }
}
