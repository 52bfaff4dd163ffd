import Sigma

/// Reads an expert trace block by block, in bounded memory, and checks every byte of it.
package final class ExpertTraceReader {
    package let path: String
    package let model: ExpertTrace.Model
    private let file: SequentialReader

    /// Opens the file and reads its header.
    /// - Throws: `SigmaError`: `.noInput` where there is no such file, `.damaged` for one that is no expert trace or not of this version,
    ///   `.inputOutput` if reading fails.
    package init(path: String) throws {
        self.path = path
        file = try SequentialReader(path: path)
        model = try Self.readHeader(FileBytes(file: file))
    }

    /// - Throws: `SigmaError(.damaged)` if the trace was not made with this very model file.
    package func check(madeWith file: ModelFile) throws {
        let other = ExpertTrace.Model(file)
        guard model.checksum == other.checksum, model.choices == other.choices,
            model.expertCount == other.expertCount, model.vocabularySize == other.vocabularySize
        else {
            throw SigmaError(
                .damaged,
                "expected a trace of the model '\(other.name)' (checksum \(String(other.checksum, radix: 16))), found one of '\(model.name)' (\(String(model.checksum, radix: 16)))",
                path: path, remedy: "Use the model file that the trace was made with, or make a new trace.")
        }
    }

    /// The next block; nil at the end.
    /// - Throws: `SigmaError`: `.damaged` with the byte offset, `.inputOutput` if reading fails.
    package func next() throws -> ExpertTrace.Block? {
        let reader = FileBytes(file: file)
        let start = file.offset
        guard let first = try reader.optional(ExpertTrace.blockHeaderBytes) else { return nil }
        func word(_ index: Int) -> UInt32 { Self.integer(first, 4 * index) }
        let count = Int(word(0))
        guard (1...ExpertTrace.rowLimit).contains(count) else {
            throw reader.damaged("expected a block of 1 to \(ExpertTrace.rowLimit) tokens, found \(count)", at: start)
        }
        guard word(3) == 0 else { throw reader.damaged("expected no flags, found \(word(3))", at: start + 12) }
        let body = try reader.bytes(count * model.tokenBytes)
        let crc = first.withUnsafeBytes { CRC32C.checksum($0) }
        let expected = body.withUnsafeBytes { CRC32C.checksum($0, continuing: crc) }
        let found: UInt32 = Self.integer(try reader.bytes(4), 0)
        guard expected == found else {
            throw reader.damaged(
                "the block is damaged: expected checksum \(String(found, radix: 16)), found \(String(expected, radix: 16))",
                at: start)
        }
        var block = ExpertTrace.Block(sequence: word(1), position: word(2), tokens: [], choices: [])
        block.tokens.reserveCapacity(count)
        block.choices.reserveCapacity(count * model.choicesPerToken)
        for row in 0..<count {
            let place = row * model.tokenBytes
            let token: Int32 = Self.integer(body, place)
            guard token >= 0, Int(token) < model.vocabularySize else {
                throw reader.damaged(
                    "expected a token id below \(model.vocabularySize), found \(token)",
                    at: start + ExpertTrace.blockHeaderBytes + place)
            }
            block.tokens.append(token)
            for choice in 0..<model.choicesPerToken {
                let at = place + 4 + choice * model.indexBytes
                let expert = model.indexBytes == 1 ? Int(body[at]) : Int(Self.integer(body, at) as UInt16)
                guard expert < model.expertCount else {
                    throw reader.damaged(
                        "expected an expert below \(model.expertCount), found \(expert)",
                        at: start + ExpertTrace.blockHeaderBytes + at)
                }
                block.choices.append(Int32(expert))
            }
        }
        return block
    }

    private static func readHeader(_ reader: FileBytes) throws -> ExpertTrace.Model {
        var header = try reader.optional(ExpertTrace.fixedHeaderBytes) ?? []
        guard header.starts(with: ExpertTrace.magic) else { throw reader.damaged("this is no expert trace", at: 0) }
        func word(_ offset: Int) -> UInt32 { integer(header, offset) }
        guard word(8) == ExpertTrace.version else {
            throw reader.damaged("expected version \(ExpertTrace.version), found \(word(8))", at: 8)
        }
        func count(_ offset: Int, _ what: String, _ range: ClosedRange<Int>) throws -> Int {
            let value = Int(word(offset))
            guard range.contains(value) else {
                throw reader.damaged(
                    "expected \(range.lowerBound) to \(range.upperBound) \(what), found \(value)", at: offset)
            }
            return value
        }
        let checksum = word(16)
        let vocabularySize = try count(20, "rows of the vocabulary", 1...Int(Int32.max))
        let expertCount = try count(24, "experts", 1...ExpertTrace.expertLimit)
        let layerCount = try count(28, "layers", 1...ExpertTrace.layerLimit)
        let nameBytes = try count(32, "bytes of name", 0...ExpertTrace.nameLimit)
        let size = ExpertTrace.fixedHeaderBytes + nameBytes + 2 * layerCount + 4
        guard Int(word(12)) == size else {
            throw reader.damaged("expected a header of \(size) bytes, found \(word(12))", at: 12)
        }
        header += try reader.bytes(size - ExpertTrace.fixedHeaderBytes)
        let found = header.withUnsafeBytes {
            CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[..<(size - 4)]))
        }
        guard found == word(size - 4) else {
            throw reader.damaged(
                "the header is damaged: expected checksum \(String(word(size - 4), radix: 16)), found \(String(found, radix: 16))",
                at: size - 4)
        }
        let layers = ExpertTrace.fixedHeaderBytes + nameBytes
        let choices = try (0..<layerCount).map { layer in
            let choices = Int(integer(header, layers + 2 * layer) as UInt16)
            guard choices <= expertCount else {
                throw reader.damaged(
                    "expected at most \(expertCount) choices, found \(choices)", at: layers + 2 * layer)
            }
            return choices
        }
        return ExpertTrace.Model(
            name: String(decoding: header[ExpertTrace.fixedHeaderBytes..<layers], as: UTF8.self), checksum: checksum,
            vocabularySize: vocabularySize, expertCount: expertCount, choices: choices)
    }

    private static func integer<T: FixedWidthInteger>(_ bytes: [UInt8], _ offset: Int) -> T {
        bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
    }
}

/// Pieces of a file in order.
private struct FileBytes {
    let file: SequentialReader

    func damaged(_ message: String, at offset: Int) -> SigmaError {
        SigmaError(.damaged, message, path: file.path, offset: UInt64(offset))
    }

    /// - Throws: `SigmaError(.damaged)` if the file ends before `count` bytes.
    func bytes(_ count: Int) throws -> [UInt8] {
        guard let bytes = try optional(count) else {
            throw damaged("the file ends early: expected \(count) more bytes", at: file.offset)
        }
        return bytes
    }

    /// Nil at the end of the file.
    func optional(_ count: Int) throws -> [UInt8]? {
        let start = file.offset
        var bytes = [UInt8](repeating: 0, count: count)
        let read = try bytes.withUnsafeMutableBytes { try file.read(into: $0) }
        if read == count { return bytes }
        if read == 0 { return nil }
        throw damaged("the file ends early: expected \(count) bytes, found \(read)", at: start)
    }
}
