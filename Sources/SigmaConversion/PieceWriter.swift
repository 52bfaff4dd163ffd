import Sigma

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Writes a file's weights piece by piece: while one is written, several threads make the next ones, and the disk reads what those that
/// follow need.
struct PieceWriter {
    /// Bytes of output that are in memory at a time, or two pieces, whatever is more.
    static let bufferBytes = 256 << 20
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
    /// Called between pieces with the share that is done, 0...1.
    let progress: (Double) -> Void
    let isCancelled: () -> Bool
    /// Fails if an input was lost while it was read; asked before a piece is written.
    let checkIntact: () throws -> Void

    /// - Returns: the records' checksums.
    func write(_ pieces: [Piece], recordCount: Int, to file: AtomicFile, fileSize: Int) throws -> [UInt32] {
        let largest = ((pieces.map(\.byteCount).max() ?? 1) + 63) & ~63
        // One for each thread, and some that wait to be written.
        let slots = max(2, min(threads + 4, Self.bufferBytes / largest))
        let buffer = try Buffer(slots: slots, slotBytes: largest)
        var checksums = [UInt32](repeating: 0, count: recordCount)
        for piece in pieces.prefix(slots) { piece.content.prefetch() }
        try OrderedPipeline.run(count: pieces.count, slots: slots, threads: threads) { index, slot in
            if index + slots < pieces.count { pieces[index + slots].content.prefetch() }
            let piece = pieces[index]
            try piece.content.fill(buffer.slot(slot, piece.byteCount))
        } consume: { index, slot in
            if isCancelled() { throw SigmaError(.interrupted, "interrupted; nothing was written") }
            try checkIntact()
            let piece = pieces[index]
            let bytes = UnsafeRawBufferPointer(buffer.slot(slot, piece.byteCount))
            checksums[piece.record] = ModelFileFormat.checksum(bytes, continuing: checksums[piece.record])
            try file.write(bytes, at: piece.offset)
            piece.content.release()
            progress(Double(piece.offset + piece.byteCount) / Double(fileSize))
        }
        return checksums
    }

    private final class Buffer: @unchecked Sendable {
        private let base: UnsafeMutableRawPointer
        private let slotBytes: Int

        /// - Throws: `SigmaError` (`.unavailable`) if memory ends.
        init(slots: Int, slotBytes: Int) throws {
            let (count, overflows) = slots.multipliedReportingOverflow(by: slotBytes)
            var memory: UnsafeMutableRawPointer?
            guard !overflows, posix_memalign(&memory, 64, count) == 0, let memory else {
                throw SigmaError(.unavailable, "no memory for \(slots) buffers of \(slotBytes) bytes")
            }
            base = memory
            self.slotBytes = slotBytes
        }
        deinit { free(base) }

        /// The first `count` bytes of a slot.
        func slot(_ index: Int, _ count: Int) -> UnsafeMutableRawBufferPointer {
            UnsafeMutableRawBufferPointer(start: base + index * slotBytes, count: count)
        }
    }
}

extension PieceWriter.Piece.Content {
    fileprivate func fill(_ target: UnsafeMutableRawBufferPointer) throws {
        switch self {
        case .rows(let source, let rows, let columns, let type, let layout):
            try RowConversion.convert(
                source, rows: rows, columns: columns, as: type, layout, to: target.baseAddress!)
        case .expert(let expert, let layout):
            let base = target.baseAddress!
            // The gaps between the matrices and at the end are zero.
            let gateEnd = layout.gateType.matrixBytes(rows: layout.intermediate, columns: layout.hidden)
            let upEnd = layout.upOffset + layout.upType.matrixBytes(rows: layout.intermediate, columns: layout.hidden)
            for gap in [gateEnd..<layout.upOffset, upEnd..<layout.downOffset, layout.usedBytes..<layout.stride] {
                (base + gap.lowerBound).initializeMemory(as: UInt8.self, repeating: 0, count: gap.count)
            }
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

    /// Has the sources brought from the disk while threads compute.
    fileprivate func prefetch() { forEachSource { $0.prefetch(rows: $1, columns: $2) } }

    /// Lets go of the pages of sources that are done.
    fileprivate func release() { forEachSource { $0.release(rows: $1, columns: $2) } }

    private func forEachSource(_ body: (any MatrixSource, _ rows: Range<Int>, _ columns: Int) -> Void) {
        switch self {
        case .rows(let source, let rows, let columns, _, _): body(source, rows, columns)
        case .expert(let expert, let layout):
            body(expert.gate, 0..<layout.intermediate, layout.hidden)
            body(expert.up, 0..<layout.intermediate, layout.hidden)
            body(expert.down, 0..<layout.hidden, layout.intermediate)
        }
    }
}
