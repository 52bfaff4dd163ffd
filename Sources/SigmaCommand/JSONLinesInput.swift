import Sigma

/// Files with a JSON text on each line.
public enum JSONLinesInput {
    /// Calls `body` with each line that is not blank.
    ///
    /// - Parameters:
    ///   - bytes: of the file.
    ///   - path: its name, for errors.
    /// - Throws: what `body` throws; a `SigmaError` then says where the line is.
    public static func forEach(of bytes: [UInt8], path: String, _ body: (ArraySlice<UInt8>) throws -> Void) throws {
        for (number, line) in zip(1..., ByteLines(bytes)) {
            guard line.contains(where: { $0 != 0x20 && $0 != 0x0D }) else { continue }
            do { try body(line) } catch var error as SigmaError {
                error.offset = UInt64(line.startIndex) + (error.offset ?? 0)
                error.item = (["line \(number)"] + [error.item].compactMap { $0 }).joined(separator: ", ")
                throw error.inFile(path)
            }
        }
    }
}
