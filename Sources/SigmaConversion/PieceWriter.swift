import CSigma
import Sigma
import SystemLibrary

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
            /// Rows of an output head, and of the planes that screen it.
            case screened(ScreenedHead, Range<Int>, mean: [Float])
            /// Numbers that are there already.
            case numbers([Float])
        }

        /// What of a piece goes elsewhere than its begin.
        struct Part: Sendable {
            var offset: Int
            var byteCount: Int
            var record: Int
        }

        /// From the file's begin.
        var offset: Int
        var byteCount: Int
        /// Index among the checksums.
        var record: Int
        var content: Content
        /// After the first `byteCount` bytes, one after the other.
        var others: [Part] = []

        var parts: [Part] { [Part(offset: offset, byteCount: byteCount, record: record)] + others }
        var totalBytes: Int { others.reduce(byteCount) { $0 + $1.byteCount } }

        /// An output head's rows and their planes as pieces.
        static func screened(
            _ head: ScreenedHead, mean: [Float], at offset: Int, record: Int, coarse: (offset: Int, record: Int),
            fine: (offset: Int, record: Int)
        ) -> [Piece] {
            let group = Int(SIGMA_GROUP)
            let columns = head.columns
            let groupBytes = ScreenPlanes.groupBytes(columns)
            let rowBytes = ScreenPlanes.rowBytes(columns)
            let step = max(1, PieceWriter.pieceBytes / head.type.matrixBytes(rows: group, columns: columns)) * group
            return stride(from: 0, to: head.rows, by: step).map { first in
                let range = first..<min(first + step, head.rows)
                return Piece(
                    offset: offset + head.type.matrixBytes(rows: first, columns: columns),
                    byteCount: head.type.matrixBytes(rows: range.count, columns: columns), record: record,
                    content: .screened(head, range, mean: mean),
                    others: [
                        Part(
                            offset: coarse.offset + first / group * groupBytes,
                            byteCount: ScreenPlanes.groups(range.count) * groupBytes, record: coarse.record),
                        Part(
                            offset: fine.offset + first * rowBytes, byteCount: range.count * rowBytes,
                            record: fine.record),
                    ])
            }
        }

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
    func write(_ pieces: [Piece], recordCount: Int, to file: AtomicFile) throws -> [UInt32] {
        let largest = ((pieces.map(\.totalBytes).max() ?? 1) + 63) & ~63
        // One for each thread, and some that wait to be written.
        let slots = max(2, min(threads + 4, Self.bufferBytes / largest))
        let buffer = try Buffer(slots: slots, slotBytes: largest)
        var checksums = [UInt32](repeating: 0, count: recordCount)
        let total = pieces.reduce(0) { $0 + $1.totalBytes }
        var written = 0
        for piece in pieces.prefix(slots) { piece.content.prefetch() }
        try OrderedPipeline.run(count: pieces.count, slots: slots, threads: threads) { index, slot in
            if index + slots < pieces.count { pieces[index + slots].content.prefetch() }
            let piece = pieces[index]
            try piece.content.fill(buffer.slot(slot, piece.totalBytes))
        } consume: { index, slot in
            if isCancelled() { throw SigmaError(.interrupted, "interrupted; nothing was written") }
            try checkIntact()
            let piece = pieces[index]
            var rest = UnsafeRawBufferPointer(buffer.slot(slot, piece.totalBytes))[...]
            for part in piece.parts {
                let bytes = UnsafeRawBufferPointer(rebasing: rest.prefix(part.byteCount))
                checksums[part.record] = CRC32C.checksum(bytes, continuing: checksums[part.record])
                try file.write(bytes, at: part.offset)
                rest = rest.dropFirst(part.byteCount)
            }
            piece.content.release()
            written += piece.totalBytes
            progress(Double(written) / Double(total))
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
        case .screened(let head, let rows, let mean): try head.write(rows, mean: mean, to: target.baseAddress!)
        case .numbers(let numbers): numbers.withUnsafeBytes { target.copyMemory(from: $0) }
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

    /// Prefetches the sources from the disk while threads compute.
    fileprivate func prefetch() { forEachSource { $0.prefetch(rows: $1, columns: $2) } }

    /// Lets go of the pages of sources that are done.
    fileprivate func release() { forEachSource { $0.release(rows: $1, columns: $2) } }

    private func forEachSource(_ body: (any MatrixSource, _ rows: Range<Int>, _ columns: Int) -> Void) {
        switch self {
        case .rows(let source, let rows, let columns, _, _): body(source, rows, columns)
        case .screened(let head, let rows, _): body(head.source, rows, head.columns)
        case .numbers: break
        case .expert(let expert, let layout):
            body(expert.gate, 0..<layout.intermediate, layout.hidden)
            body(expert.up, 0..<layout.intermediate, layout.hidden)
            body(expert.down, 0..<layout.hidden, layout.intermediate)
        }
    }
}
