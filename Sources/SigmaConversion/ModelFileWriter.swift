import Sigma

/// Writes a native model file from a plan: header, tensors, expert records, checksums.
struct ModelFileWriter {
    let plan: WeightPlan
    let pieceWriter: PieceWriter

    /// Where everything lies in the file.
    ///
    /// - Parameter header: with all keys but those that follow from the plan and the data.
    static func layout(_ header: GGUFWriter, _ plan: WeightPlan) -> GGUFWriter.Layout {
        var header = header
        addTensors(of: plan, to: &header)
        header.set(ModelFileFormat.Key.checksums, [UInt32](repeating: 0, count: recordCount(plan)))
        header.set(ModelFileFormat.Key.headerChecksum, UInt32(0))
        return header.layout()
    }

    /// - Parameter header: as in `layout`.
    func write(_ header: GGUFWriter, to path: String) throws {
        var layout = Self.layout(header, plan)
        let file = try AtomicFile(path: path, size: layout.fileSize)
        let checksums = try pieceWriter.write(
            try pieces(layout), recordCount: Self.recordCount(plan), to: file)
        for (i, crc) in checksums.enumerated() { layout.patch(ModelFileFormat.Key.checksums, crc, index: i) }
        let hole = layout.valueOffsets[ModelFileFormat.Key.headerChecksum]!
        let crc = layout.header.withUnsafeBytes { ModelFileFormat.headerChecksum($0, hole: hole) }
        layout.patch(ModelFileFormat.Key.headerChecksum, crc)
        try layout.header.withUnsafeBytes { try file.write($0, at: 0) }
        if pieceWriter.isCancelled() { throw SigmaError(.interrupted, "interrupted; nothing was written") }
        try file.finish(size: layout.fileSize)
    }

    private static func recordCount(_ plan: WeightPlan) -> Int {
        plan.outputs.reduce(0) { count, output in
            if case .experts(let experts, _) = output.content { return count + experts.count }
            return count + 1
        }
    }

    /// The tensors, and the keys that say what they hold.
    private static func addTensors(of plan: WeightPlan, to header: inout GGUFWriter) {
        var types: [UInt32] = []
        for output in plan.outputs {
            switch output.content {
            case .rows(_, let rows, let columns, let type, let isVector):
                header.addTensor(
                    output.name, dimensions: isVector ? [columns] : ModelFileFormat.dimensions(type, rows, columns),
                    type: ModelFileFormat.carrier(type))
                types.append(type.rawValue)
            case .experts(let experts, let layout):
                header.addTensor(output.name, dimensions: [layout.stride, experts.count], type: .int8)
                types.append(GGMLType.int8.number)
            case .screen(let part):
                let head = plan.screenedHead!
                let groups = ScreenPlanes.groups(head.rows)
                let dimensions =
                    switch part {
                    case .mean: [head.columns]
                    case .coarse: [ScreenPlanes.groupBytes(head.columns), groups]
                    case .fine: [ScreenPlanes.rowBytes(head.columns), head.rows]
                    }
                let type: GGMLType = part == .mean ? WeightType.f32.ggml : .int8
                header.addTensor(output.name, dimensions: dimensions, type: type)
                types.append(type.number)
            }
        }
        header.set(ModelFileFormat.Key.tensorTypes, types)
        if plan.expertLayouts.contains(where: { $0 != nil }) {
            for (key, type) in [
                (ModelFileFormat.Key.gateTypes, \ExpertLayout.gateType), (ModelFileFormat.Key.upTypes, \.upType),
                (ModelFileFormat.Key.downTypes, \.downType),
            ] { header.set(key, plan.expertLayouts.map { $0?[keyPath: type].rawValue ?? 0 }) }
        }
    }

    /// - Throws: `SigmaError` (`.damaged`) if the output head has weights that are not finite.
    private func pieces(_ layout: GGUFWriter.Layout) throws -> [PieceWriter.Piece] {
        var pieces: [PieceWriter.Piece] = []
        var record = 0
        let headName =
            plan.outputs.contains { $0.name == ModelFileFormat.head } ? ModelFileFormat.head : ModelFileFormat.embedding
        // Where the planes are written, which are made together with the head's rows: they are the last tensors.
        let last = (offsets: layout.tensorOffsets.suffix(2), record: Self.recordCount(plan) - 2)
        let mean = try plan.screenedHead?.mean() ?? []
        for (output, start) in zip(plan.outputs, layout.tensorOffsets) {
            switch output.content {
            case .screen(let part):
                if part == .mean {
                    pieces.append(
                        PieceWriter.Piece(
                            offset: start, byteCount: 4 * mean.count, record: record, content: .numbers(mean)))
                }
                record += 1
            case .rows where plan.screenedHead != nil && output.name == headName:
                pieces += PieceWriter.Piece.screened(
                    plan.screenedHead!, mean: mean, at: start, record: record,
                    coarse: (last.offsets.first!, last.record), fine: (last.offsets.last!, last.record + 1))
                record += 1
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
