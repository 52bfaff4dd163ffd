/// A GGUF file (version 2 or 3, little-endian), mapped: its metadata and where its tensors are.
///
/// Everything that the header claims is checked here: counts and sizes against the file's size, names, types, offsets, overlaps. No
/// allocation is larger than the part of the file that was read to justify it, plus a constant.
package final class GGUFFile: Sendable {
    package struct Tensor: Sendable {
        package let name: String
        /// Fastest varying first: a matrix [rows, columns] has `[columns, rows]`.
        package let dimensions: [Int]
        package let type: GGMLType
        /// From the file's begin, in bytes.
        package let offset: Int
        package let byteCount: Int
        /// Where the header describes it.
        package let headerOffset: Int
    }

    package struct Entry: Sendable {
        package let key: String
        package let value: GGUFValue
        /// Where the value begins in the file, after its kind.
        package let offset: Int
    }

    package let file: MappedFile
    package let version: Int
    package let alignment: Int
    /// In the file's order.
    package let entries: [Entry]
    package let tensors: [Tensor]
    /// Where the tensor data begins.
    package let dataOffset: Int
    private let entryPlaces: [ByteKey: Int]
    private let tensorPlaces: [ByteKey: Int]

    package static let magic: UInt32 = 0x4655_4747  // "GGUF", little-endian
    package static let entryLimit = 65_536
    package static let tensorLimit = 65_536
    package static let nameLimit = 1024

    package subscript(key: String) -> GGUFValue? { entryPlaces[ByteKey(text: key)].map { entries[$0].value } }
    package func entry(_ key: String) -> Entry? { entryPlaces[ByteKey(text: key)].map { entries[$0] } }
    package func tensor(_ name: String) -> Tensor? { tensorPlaces[ByteKey(text: name)].map { tensors[$0] } }
    /// The bytes of a tensor of this file.
    package func bytes(_ tensor: Tensor) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: file.bytes[tensor.offset..<tensor.offset + tensor.byteCount])
    }

    /// - Throws: `SigmaError`: as `MappedFile`; `.damaged` with key or tensor, byte offset, expected and found.
    package convenience init(path: String) throws { try self.init(file: MappedFile(path: path)) }

    package init(file: MappedFile) throws {
        self.file = file
        var reader = GGUFReader(bytes: file.bytes, path: file.path)
        let magic = try reader.integer(UInt32.self, "the magic number")
        guard magic == Self.magic else {
            try StandIn.check(file, expected: "a GGUF file")
            throw reader.failure("not a GGUF file: expected \"GGUF\", found bytes \(hex(magic))", at: 0)
        }
        let version = try reader.integer(UInt32.self, "the version")
        guard version == 2 || version == 3 else {
            let isSwapped = version.byteSwapped == 2 || version.byteSwapped == 3
            throw reader.failure(
                isSwapped ? "a big-endian GGUF file" : "expected GGUF version 3 (or 2), found \(version)", at: 4)
        }
        self.version = Int(version)
        // A tensor's description has at least 24 bytes, a key with its value 13: larger counts cannot be true.
        let tensorCount = try reader.count("tensors", limit: Self.tensorLimit, bytesEach: 24)
        let entryCount = try reader.count("keys", limit: Self.entryLimit, bytesEach: 13)

        var entries: [Entry] = []
        var entryPlaces: [ByteKey: Int] = [:]
        for _ in 0..<entryCount {
            let start = reader.position
            let entry = try reader.entry()
            guard entryPlaces.updateValue(entries.count, forKey: ByteKey(text: entry.key)) == nil else {
                throw reader.failure("the key appears twice", at: start, item: entry.key)
            }
            entries.append(entry)
        }
        self.entries = entries
        self.entryPlaces = entryPlaces

        alignment = try Self.alignment(entryPlaces[ByteKey(text: "general.alignment")].map { entries[$0] }, reader)
        var tensors: [Tensor] = []
        var tensorPlaces: [ByteKey: Int] = [:]
        for _ in 0..<tensorCount {
            let start = reader.position
            let tensor = try reader.tensor()
            guard tensorPlaces.updateValue(tensors.count, forKey: ByteKey(text: tensor.name)) == nil else {
                throw reader.failure("the tensor appears twice", at: start, item: tensor.name)
            }
            tensors.append(tensor)
        }
        let mask = alignment - 1
        // Where there are no tensors, nothing has to follow the header.
        let aligned = (reader.position + mask) & ~mask
        dataOffset = tensors.isEmpty ? min(aligned, file.bytes.count) : aligned
        self.tensors = try reader.place(tensors, dataOffset: dataOffset, alignment: alignment)
        self.tensorPlaces = tensorPlaces
        try file.checkIntact()
    }

    private static func alignment(_ entry: Entry?, _ reader: GGUFReader) throws -> Int {
        guard let entry else { return 32 }
        guard let value = entry.value.integer, (1...1 << 24).contains(value), value & (value - 1) == 0 else {
            throw reader.failure(
                "expected a power of two up to 2^24", at: entry.offset, item: entry.key)
        }
        return value
    }

    /// The integer of `kind` at `offset`; nil if it isn't one or doesn't fit.
    static func integer(_ kind: GGUFKind, _ bytes: UnsafeRawBufferPointer, _ offset: Int) -> Int? {
        func load<T: FixedWidthInteger & BitwiseCopyable>(_: T.Type) -> Int? {
            Int(exactly: T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self)))
        }
        switch kind {
        case .uint8, .bool: return load(UInt8.self)
        case .int8: return load(Int8.self)
        case .uint16: return load(UInt16.self)
        case .int16: return load(Int16.self)
        case .uint32: return load(UInt32.self)
        case .int32: return load(Int32.self)
        case .uint64: return load(UInt64.self)
        case .int64: return load(Int64.self)
        case .float32, .float64, .string, .array: return nil
        }
    }

    static func double(_ kind: GGUFKind, _ bytes: UnsafeRawBufferPointer, _ offset: Int) -> Double? {
        switch kind {
        case .float32:
            Double(
                Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))))
        case .float64:
            Double(bitPattern: UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
        default: nil
        }
    }
}

private func hex(_ value: UInt32) -> String {
    (0..<4).map { i in
        let byte = UInt8(truncatingIfNeeded: value >> (8 * UInt32(i)))
        return (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }.joined(separator: " ")
}
