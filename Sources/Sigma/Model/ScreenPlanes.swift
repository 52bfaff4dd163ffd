import CSigma

/// Low-bit planes of the output head that find the rows whose exact logits decide (`docs/model-file.md`, "Screening planes").
package struct ScreenPlanes: @unchecked Sendable {
    /// Rows of the head, and its columns.
    package let rows: Int
    package let hidden: Int
    /// [hidden]: was taken off every row.
    package let mean: FloatVector
    /// 16 rows a group; 64-byte aligned.
    package var coarse: UnsafeRawPointer
    /// Row after row; 64-byte aligned.
    package var fine: UnsafeRawPointer

    package init(rows: Int, hidden: Int, mean: FloatVector, coarse: UnsafeRawPointer, fine: UnsafeRawPointer) {
        self.rows = rows
        self.hidden = hidden
        self.mean = mean
        self.coarse = coarse
        self.fine = fine
    }

    /// Whether a head of this width can have planes: its rotation needs whole blocks.
    package static func fits(hidden: Int) -> Bool { hidden % 32 == 0 }
    package static func columns(_ hidden: Int) -> Int { sigma_screen_columns(hidden) }
    package static func groupBytes(_ hidden: Int) -> Int { sigma_screen_group_bytes(columns(hidden)) }
    package static func rowBytes(_ hidden: Int) -> Int { sigma_screen_row_bytes(columns(hidden)) }
    package static func groups(_ rows: Int) -> Int { (rows + Int(SIGMA_GROUP) - 1) / Int(SIGMA_GROUP) }

    package var columns: Int { Self.columns(hidden) }
    package var groupBytes: Int { Self.groupBytes(hidden) }
    package var rowBytes: Int { Self.rowBytes(hidden) }
    package var coarseBytes: Int { Self.groups(rows) * groupBytes }
    package var fineBytes: Int { rows * rowBytes }
    package var byteCount: Int { coarseBytes + fineBytes }

    /// The group that a row is in.
    package func group(of row: Int) -> UnsafeRawPointer { coarse + row / Int(SIGMA_GROUP) * groupBytes }
    package func fineRow(_ row: Int) -> UnsafeRawPointer { fine + row * rowBytes }
    package func numbers(_ row: Int) -> sigma_screen_numbers {
        sigma_screen_row_numbers(group(of: row), columns, Int32(row % Int(SIGMA_GROUP)))
    }
}
