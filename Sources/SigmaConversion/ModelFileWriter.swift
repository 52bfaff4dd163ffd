import Sigma

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A file that appears under its name whole or not at all: written beside it, synchronised, then renamed.
final class AtomicFile {
    let path: String
    private let temporaryPath: String
    private let descriptor: Int32
    private var isFinished = false

    /// - Parameter size: bytes that will be written; the disk must have room for them.
    /// - Throws: `SigmaError`: `.usage` if `path` is something that is not a file, `.noInput` if its folder doesn't exist,
    ///   `.inputOutput` if it can't be written or the disk has no room.
    init(path: String, size: Int) throws {
        self.path = path
        let slash = path.lastIndex(of: "/")
        let folder = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        var status = stat()
        if stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw SigmaError(.usage, "the output must be a file; this is a folder or a device", path: path)
        }
        guard stat(folder, &status) == 0 else {
            throw SigmaError(.noInput, "the output's folder: \(systemMessage(errno))", path: folder)
        }
        var space = statvfs()
        if statvfs(folder, &space) == 0 {
            let free = UInt64(space.f_bavail).multipliedReportingOverflow(by: UInt64(space.f_frsize))
            if !free.overflow, free.partialValue < UInt64(size) {
                throw SigmaError(
                    .inputOutput, "the disk has no room: expected \(size) bytes, found \(free.partialValue) free",
                    path: folder,
                    remedy: "Free some space, or write to another disk.")
            }
        }
        temporaryPath = path + ".partial-\(getpid())"
        // A leftover of a killed process with our number.
        unlink(temporaryPath)
        descriptor = open(temporaryPath, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else {
            throw SigmaError(.inputOutput, "cannot create the file: \(systemMessage(errno))", path: path)
        }
    }

    /// Removes what was written, unless `finish` was reached.
    deinit {
        if !isFinished {
            close(descriptor)
            unlink(temporaryPath)
        }
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws {
        var rest = bytes[...]
        var offset = offset
        while !rest.isEmpty {
            let slice = UnsafeRawBufferPointer(rebasing: rest)
            let written = pwrite(descriptor, slice.baseAddress, slice.count, off_t(offset))
            if written < 0, errno == EINTR { continue }
            guard written > 0 else { throw failure("cannot write") }
            rest = rest.dropFirst(written)
            offset += written
        }
    }

    /// Sets the size, brings everything to the disk and gives the file its name.
    func finish(size: Int) throws {
        guard ftruncate(descriptor, off_t(size)) == 0 else { throw failure("cannot write") }
        guard fsync(descriptor) == 0 else { throw failure("cannot write") }
        guard rename(temporaryPath, path) == 0 else { throw failure("cannot replace the file") }
        isFinished = true
        close(descriptor)
    }

    private func failure(_ what: String) -> SigmaError {
        let code = errno
        return SigmaError(
            .inputOutput, "\(what): \(systemMessage(code))", path: path,
            remedy: code == ENOSPC || code == EDQUOT ? "Free some space, or write to another disk." : nil)
    }
}

/// Writes a native model file from a plan: header, tensors, expert records, checksums.
struct ModelFileWriter {
    /// Bytes of output that are in memory at a time, or one record, whatever is more.
    static let waveBytes = 64 << 20
    /// A piece of a tensor's rows.
    static let pieceBytes = 4 << 20

    private struct Piece: Sendable {
        /// From the file's begin.
        var offset: Int
        var byteCount: Int
        /// Index among the checksums.
        var record: Int
        var output: Int
        /// Rows, or the one expert.
        var range: Range<Int>
    }

    let plan: WeightPlan
    let threads: Int
    /// Called between waves with the share that is done, 0...1.
    let progress: (Double) -> Void
    let isCancelled: () -> Bool

    /// - Parameter header: with all keys but the checksums.
    func write(_ header: GGUFWriter, to path: String, checkIntact: () throws -> Void) throws {
        var header = header
        var recordCount = 0
        var types: [UInt32] = []
        for output in plan.outputs {
            switch output.content {
            case .rows(_, let rows, let columns, let type, let isVector):
                header.addTensor(
                    output.name, dimensions: isVector ? [columns] : ModelFileFormat.dimensions(type, rows, columns),
                    type: ModelFileFormat.carrier(type))
                types.append(type.rawValue)
                recordCount += 1
            case .experts(let experts, let layout):
                header.addTensor(output.name, dimensions: [layout.stride, experts.count], type: .int8)
                types.append(GGMLType.int8.number)
                recordCount += experts.count
            }
        }
        header.set(ModelFileFormat.Key.tensorTypes, types)
        if plan.expertLayouts.contains(where: { $0 != nil }) {
            for (key, type) in [
                (ModelFileFormat.Key.gateTypes, \ExpertLayout.gateType), (ModelFileFormat.Key.upTypes, \.upType),
                (ModelFileFormat.Key.downTypes, \.downType),
            ] { header.set(key, plan.expertLayouts.map { $0?[keyPath: type].rawValue ?? 0 }) }
        }
        header.set(ModelFileFormat.Key.checksums, [UInt32](repeating: 0, count: recordCount))
        header.set(ModelFileFormat.Key.headerChecksum, UInt32(0))
        var layout = header.layout()

        let file = try AtomicFile(path: path, size: layout.fileSize)
        let checksums = try writeTensors(layout, to: file, recordCount: recordCount, checkIntact: checkIntact)
        for (i, crc) in checksums.enumerated() { layout.patch(ModelFileFormat.Key.checksums, crc, index: i) }
        let hole = layout.valueOffsets[ModelFileFormat.Key.headerChecksum]!
        let crc = layout.header.withUnsafeBytes { ModelFileFormat.headerChecksum($0, hole: hole) }
        layout.patch(ModelFileFormat.Key.headerChecksum, crc)
        try layout.header.withUnsafeBytes { try file.write($0, at: 0) }
        if isCancelled() { throw SigmaError(.interrupted, "interrupted; nothing was written") }
        try file.finish(size: layout.fileSize)
    }

    private func pieces(_ layout: GGUFWriter.Layout) -> [Piece] {
        var pieces: [Piece] = []
        var record = 0
        for (i, output) in plan.outputs.enumerated() {
            let start = layout.tensorOffsets[i]
            switch output.content {
            case .rows(_, let rows, let columns, let type, _):
                let step = max(1, Self.pieceBytes / type.groupBytes(columns)) * type.groupRows
                for first in stride(from: 0, to: rows, by: step) {
                    let range = first..<min(first + step, rows)
                    pieces.append(
                        Piece(
                            offset: start + type.matrixBytes(rows: first, columns: columns),
                            byteCount: type.matrixBytes(rows: range.count, columns: columns), record: record, output: i,
                            range: range))
                }
                record += 1
            case .experts(let experts, let layout):
                for expert in 0..<experts.count {
                    pieces.append(
                        Piece(
                            offset: start + expert * layout.stride, byteCount: layout.stride, record: record, output: i,
                            range: expert..<expert + 1))
                    record += 1
                }
            }
        }
        return pieces
    }

    /// - Returns: the records' checksums.
    private func writeTensors(
        _ layout: GGUFWriter.Layout, to file: AtomicFile, recordCount: Int, checkIntact: () throws -> Void
    ) throws -> [UInt32] {
        let pieces = pieces(layout)
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
            try Workers.forEach(wave.count, threads: threads) { [plan, offsets] i in
                let piece = wave[wave.startIndex + i]
                try Self.fill(
                    UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[offsets[i]..<offsets[i] + piece.byteCount]),
                    plan.outputs[piece.output].content, piece.range)
            }
            try checkIntact()
            for (piece, offset) in zip(wave, offsets) {
                let bytes = UnsafeRawBufferPointer(rebasing: buffer.bytes[offset..<offset + piece.byteCount])
                checksums[piece.record] = ModelFileFormat.checksum(bytes, continuing: checksums[piece.record])
                try file.write(bytes, at: piece.offset)
            }
            release(wave)
            first += offsets.count
            progress(Double(wave.last!.offset + wave.last!.byteCount) / Double(layout.fileSize))
        }
        return checksums
    }

    private static func fill(
        _ target: UnsafeMutableRawBufferPointer, _ content: WeightPlan.Content, _ range: Range<Int>
    ) throws {
        switch content {
        case .rows(let source, _, let columns, let type, _):
            try RowConversion.convert(source, rows: range, columns: columns, as: type, to: target.baseAddress!)
        case .experts(let experts, let layout):
            // The gaps between the matrices and at the end are zero.
            target.initializeMemory(as: UInt8.self, repeating: 0)
            let expert = experts[range.lowerBound]
            let base = target.baseAddress!
            try RowConversion.convert(
                expert.gate, rows: 0..<layout.intermediate, columns: layout.hidden, as: layout.gateType, to: base)
            try RowConversion.convert(
                expert.up, rows: 0..<layout.intermediate, columns: layout.hidden, as: layout.upType,
                to: base + layout.upOffset)
            try RowConversion.convert(
                expert.down, rows: 0..<layout.hidden, columns: layout.intermediate, as: layout.downType,
                to: base + layout.downOffset)
        }
    }

    /// Lets go of the pages of sources that are done.
    private func release(_ wave: ArraySlice<Piece>) {
        for piece in wave {
            switch plan.outputs[piece.output].content {
            case .rows(let source, _, let columns, _, _): source.release(rows: piece.range, columns: columns)
            case .experts(let experts, let layout):
                let expert = experts[piece.range.lowerBound]
                expert.gate.release(rows: 0..<layout.intermediate, columns: layout.hidden)
                expert.up.release(rows: 0..<layout.intermediate, columns: layout.hidden)
                expert.down.release(rows: 0..<layout.hidden, columns: layout.intermediate)
            }
        }
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
