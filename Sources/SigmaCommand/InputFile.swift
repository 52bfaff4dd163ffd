import Sigma
import SystemLibrary

/// Reading what users give to commands: a file, a pipe (`<(...)`), or standard input as `-`.
public enum InputFile {
    /// The most bytes that are read of an input.
    public struct Limit {
        var bytes: () throws -> Int
        var reason: String

        /// - Parameters:
        ///   - reason: where the limit comes from, for the error: "the context of 8192 tokens has room for".
        ///   - bytes: asked for once an input has more than a mebibyte: it may take a moment to find out.
        public init(_ reason: String, bytes: @escaping () throws -> Int) {
            self.bytes = bytes
            self.reason = reason
        }

        /// What one array of bytes may have.
        public static var any: Limit { Limit("this command reads") { Int(Int32.max) } }
        static let free = 1 << 20
    }

    /// All bytes.
    ///
    /// - Parameter limit: more bytes are refused, before they are read.
    /// - Throws: `SigmaError`: `.noInput` where there is no such file or it may not be read, `.damaged` for a folder or a file beyond the
    ///   limit, `.inputOutput` if reading fails; what the limit throws.
    public static func bytes(of path: String, limit: Limit = .any) throws -> [UInt8] {
        var bytes: [UInt8] = []
        var most: Int?
        try forEachPiece(of: path) { piece in
            let count = bytes.count + piece.count
            if count > Limit.free {
                let found = try most ?? max(Limit.free, limit.bytes())
                most = found
                guard count <= found else {
                    throw SigmaError(
                        .damaged, "expected at most the \(found) bytes that \(limit.reason), found more",
                        path: name(of: path))
                }
            }
            bytes.append(contentsOf: piece)
        }
        return bytes
    }

    /// Calls `body` with the bytes, some after the others: a file of any size in little memory.
    ///
    /// - Throws: `SigmaError`: as `bytes(of:limit:)`, without a limit; `CancellationError` if the user asks to stop while nothing comes; what
    ///   `body` throws.
    public static func forEachPiece(of path: String, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        let file =
            try path == "-"
            ? SequentialReader(descriptor: 0, name: name(of: path)) : SequentialReader(path: path)
        file.isCancelled = { Interrupt.isRequested }
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 16)
        defer { piece.deallocate() }
        while true {
            let count = try file.read(into: piece)
            if count == 0 { return }
            try body(UnsafeRawBufferPointer(rebasing: piece[..<count]))
        }
    }

    /// Bytes of a regular file; nil for pipes and standard input, which don't say.
    /// - Throws: `SigmaError(.noInput)` where there is no such file.
    public static func size(of path: String) throws -> Int? {
        var status = stat()
        guard path != "-" else { return nil }
        guard stat(path, &status) == 0 else {
            throw SigmaError(.noInput, "cannot open the file: \(systemMessage(errno))", path: path)
        }
        return status.st_mode & S_IFMT == S_IFREG ? Int(status.st_size) : nil
    }

    /// As errors name it.
    public static func name(of path: String) -> String { path == "-" ? "standard input" : path }

    /// The text of a file.
    ///
    /// - Throws: as `bytes(of:limit:)`; `SigmaError` (`.damaged`) with the byte offset where it is not UTF-8.
    public static func text(of path: String, limit: Limit = .any) throws -> String {
        let bytes = try bytes(of: path, limit: limit)
        if let offset = firstInvalidByte(of: bytes) {
            throw SigmaError(
                .damaged, "expected UTF-8 text, found the byte 0x\(String(bytes[offset], radix: 16))",
                path: name(of: path), offset: UInt64(offset))
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Where `bytes` stops being UTF-8; nil if it all is.
    static func firstInvalidByte(of bytes: [UInt8]) -> Int? {
        if bytes.withUnsafeBytes(isValidUTF8) { return nil }
        var parser = Unicode.UTF8.ForwardParser()
        var input = bytes.makeIterator()
        var offset = 0
        while true {
            switch parser.parseScalar(from: &input) {
            case .valid(let encoded): offset += encoded.count
            case .error: return offset
            case .emptyInput: return nil
            }
        }
    }
}
