import Sigma

/// Writes a native model file from a plan: header, tensors, expert records, checksums.
struct ModelFileWriter {
    let plan: WeightPlan
    let pieceWriter: PieceWriter

    /// - Parameter header: with all keys but those that follow from the plan and the data.
    func write(_ header: GGUFWriter, to path: String) throws {
        var header = header
        let recordCount = addTensors(to: &header)
        header.set(ModelFileFormat.Key.checksums, [UInt32](repeating: 0, count: recordCount))
        header.set(ModelFileFormat.Key.headerChecksum, UInt32(0))
        var layout = header.layout()

        let file = try AtomicFile(path: path, size: layout.fileSize)
        let checksums = try pieceWriter.write(
            pieces(layout), recordCount: recordCount, to: file, fileSize: layout.fileSize)
        for (i, crc) in checksums.enumerated() { layout.patch(ModelFileFormat.Key.checksums, crc, index: i) }
        let hole = layout.valueOffsets[ModelFileFormat.Key.headerChecksum]!
        let crc = layout.header.withUnsafeBytes { ModelFileFormat.headerChecksum($0, hole: hole) }
        layout.patch(ModelFileFormat.Key.headerChecksum, crc)
        try layout.header.withUnsafeBytes { try file.write($0, at: 0) }
        if pieceWriter.isCancelled() { throw SigmaError(.interrupted, "interrupted; nothing was written") }
        try file.finish(size: layout.fileSize)
    }

    /// The tensors, and the keys that say what they hold.
    ///
    /// - Returns: the number of records.
    private func addTensors(to header: inout GGUFWriter) -> Int {
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
        return recordCount
    }

    private func pieces(_ layout: GGUFWriter.Layout) -> [PieceWriter.Piece] {
        var pieces: [PieceWriter.Piece] = []
        var record = 0
        for (output, start) in zip(plan.outputs, layout.tensorOffsets) {
            switch output.content {
            case .rows(let source, let rows, let columns, let type, _):
                pieces += PieceWriter.Piece.rows(
                    source, rows: rows, columns: columns, type: type, .packed, at: start, record: record)
                record += 1
            case .experts(let experts, let layout):
                for (i, expert) in experts.enumerated() {
                    pieces.append(
                        PieceWriter.Piece(
                            offset: start + i * layout.stride, byteCount: layout.stride, record: record,
                            content: .expert(expert, layout)))
                    record += 1
                }
            }
        }
        return pieces
    }
}
