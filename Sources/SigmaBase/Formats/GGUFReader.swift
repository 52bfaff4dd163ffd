/// Reads a GGUF header from the front, checking every step.
struct GGUFReader {
    let bytes: UnsafeRawBufferPointer
    let path: String
    var position = 0

    init(bytes: UnsafeRawBufferPointer, path: String) {
        self.bytes = bytes
        self.path = path
    }

    private var remaining: Int { bytes.count - position }

    func failure(_ message: String, at offset: Int? = nil, item: String? = nil) -> SigmaError {
        SigmaError(.damaged, message, path: path, item: item, offset: UInt64(offset ?? position))
    }

    mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(
        _: T.Type, _ what: String, item: String? = nil
    ) throws -> T {
        guard remaining >= MemoryLayout<T>.size else {
            throw failure("the file ends inside \(what)", item: item)
        }
        defer { position += MemoryLayout<T>.size }
        return T(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: T.self))
    }

    /// A 64-bit count of things of at least `bytesEach` bytes, which the rest of the file must be able to hold.
    mutating func count(_ things: String, limit: Int, bytesEach: Int, item: String? = nil) throws -> Int {
        let start = position
        let count = try integer(UInt64.self, "the number of \(things)", item: item)
        guard count <= UInt64(limit) else {
            throw failure("expected at most \(limit) \(things), found \(count)", at: start, item: item)
        }
        guard Int(count) <= remaining / bytesEach else {
            throw failure("\(count) \(things) do not fit into the file's \(bytes.count) bytes", at: start, item: item)
        }
        return Int(count)
    }

    /// A length-prefixed string's bytes.
    mutating func text(_ what: String, limit: Int, item: String? = nil) throws -> UnsafeRawBufferPointer {
        let start = position
        let length = try integer(UInt64.self, what, item: item)
        guard length <= UInt64(limit) else {
            throw failure("\(what) has \(length) bytes; at most \(limit) are allowed", at: start, item: item)
        }
        guard length <= UInt64(remaining) else {
            throw failure("the file ends inside \(what) of \(length) bytes", at: start, item: item)
        }
        let text = UnsafeRawBufferPointer(rebasing: bytes[position..<position + Int(length)])
        position += Int(length)
        return text
    }

    mutating func name(_ what: String) throws -> String {
        let start = position
        let bytes = try text(what, limit: GGUFFile.nameLimit)
        guard isValidUTF8(bytes) else { throw failure("\(what) is not valid UTF-8", at: start + 8) }
        let text = String(decoding: bytes, as: UTF8.self)
        guard !text.isEmpty else { throw failure("\(what) is empty", at: start) }
        return text
    }

    mutating func kind(item: String) throws -> GGUFKind {
        let start = position
        let number = try integer(UInt32.self, "a value's kind", item: item)
        guard let kind = GGUFKind(rawValue: number) else {
            throw failure("expected a value's kind from 0 to 12, found \(number)", at: start, item: item)
        }
        return kind
    }

    mutating func entry() throws -> GGUFFile.Entry {
        let key = try name("a key's name")
        let kind = try kind(item: key)
        let start = position
        return GGUFFile.Entry(key: key, value: try value(kind, key: key), offset: start)
    }

    private mutating func value(_ kind: GGUFKind, key: String) throws -> GGUFValue {
        switch kind {
        case .string:
            let text = try text("the text", limit: bytes.count, item: key)
            // Only who needs it must refuse it: a licence means nothing here.
            return isValidUTF8(text) ? .string(String(decoding: text, as: UTF8.self)) : .malformedText
        case .array:
            return try array(key: key)
        case .bool:
            let start = position
            let byte = try integer(UInt8.self, "the value", item: key)
            guard byte <= 1 else { throw failure("expected 0 or 1, found \(byte)", at: start, item: key) }
            return .bool(byte == 1)
        default:
            let size = kind.byteCount!
            guard remaining >= size else { throw failure("the file ends inside the value", item: key) }
            defer { position += size }
            if let value = GGUFFile.double(kind, bytes, position) { return .float(kind, value) }
            if let value = GGUFFile.integer(kind, bytes, position) { return .integer(kind, value) }
            return .large(UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self)))
        }
    }

    private mutating func array(key: String) throws -> GGUFValue {
        let kindStart = position
        let kind = try kind(item: key)
        guard kind != .array else { throw failure("an array of arrays", at: kindStart, item: key) }
        let count = try count("elements", limit: bytes.count, bytesEach: kind.byteCount ?? 8, item: key)
        let start = position
        guard let size = kind.byteCount else { return try strings(count, key: key) }
        position += count * size
        let slice = UnsafeRawBufferPointer(rebasing: bytes[start..<position])
        if kind == .bool, let bad = slice.firstIndex(where: { $0 > 1 }) {
            throw failure("expected 0 or 1, found \(slice[bad])", at: start + bad, item: key)
        }
        return .array(GGUFArray(kind: kind, count: count, offset: start, bytes: slice, starts: []))
    }

    /// One pass over all lengths: a vocabulary of 200,000 tokens costs a few milliseconds and 4 bytes each.
    private mutating func strings(_ count: Int, key: String) throws -> GGUFValue {
        let start = position
        var isValid = true
        var starts: [UInt32] = []
        starts.reserveCapacity(count + 1)
        for _ in 0..<count {
            guard position - start <= Int(UInt32.max) - 16 else {
                throw failure("strings of more than 4 GiB together", at: start, item: key)
            }
            starts.append(UInt32(position - start + 8))
            if !isValidUTF8(try text("a string", limit: 1 << 30, item: key)) { isValid = false }
        }
        guard position - start <= Int(UInt32.max) - 16 else {
            throw failure("strings of more than 4 GiB together", at: start, item: key)
        }
        starts.append(UInt32(position - start + 8))
        let slice = UnsafeRawBufferPointer(rebasing: bytes[start..<position])
        guard isValid else { return .malformedText }
        return .array(GGUFArray(kind: .string, count: count, offset: start, bytes: slice, starts: starts))
    }

    /// A tensor's description; its offset is still relative to the data's begin.
    mutating func tensor() throws -> GGUFFile.Tensor {
        let start = position
        let name = try name("a tensor's name")
        let dimensionCount = try integer(UInt32.self, "a tensor's number of dimensions", item: name)
        guard (1...4).contains(dimensionCount) else {
            throw failure("expected 1 to 4 dimensions, found \(dimensionCount)", at: position - 4, item: name)
        }
        var dimensions: [Int] = []
        var elements = 1
        for _ in 0..<dimensionCount {
            let size = try integer(UInt64.self, "a tensor's dimensions", item: name)
            let product = elements.multipliedReportingOverflow(by: Int(clamping: size))
            guard size > 0, size <= UInt64(Int.max), !product.overflow else {
                throw failure("a dimension of \(size) makes no sense", at: position - 8, item: name)
            }
            elements = product.partialValue
            dimensions.append(Int(size))
        }
        let number = try integer(UInt32.self, "a tensor's type", item: name)
        guard let type = GGMLType.number(number) else {
            throw failure("an unknown element type, number \(number)", at: position - 4, item: name)
        }
        guard dimensions[0] % type.blockLength == 0 else {
            throw failure(
                "rows of \(dimensions[0]) elements are no whole number of \(type.name) blocks of \(type.blockLength)",
                at: start, item: name)
        }
        let size = (elements / type.blockLength).multipliedReportingOverflow(by: type.blockBytes)
        guard !size.overflow, size.partialValue <= bytes.count else {
            throw failure("\(elements) elements of \(type.name) are more than the file holds", at: start, item: name)
        }
        let offset = try integer(UInt64.self, "a tensor's offset", item: name)
        guard offset <= UInt64(bytes.count) else {
            throw failure(
                "its data begins at byte \(offset) of the data, outside the file of \(bytes.count) bytes",
                at: position - 8, item: name)
        }
        return GGUFFile.Tensor(
            name: name, dimensions: dimensions, type: type, offset: Int(offset), byteCount: size.partialValue,
            headerOffset: start)
    }

    /// Makes the tensors' offsets absolute and checks that they are aligned, inside the file, and apart from each other.
    func place(_ tensors: [GGUFFile.Tensor], dataOffset: Int, alignment: Int) throws -> [GGUFFile.Tensor] {
        let placed = try tensors.map { tensor in
            guard tensor.offset % alignment == 0 else {
                throw failure(
                    "its data begins at byte \(tensor.offset) of the data, which is no multiple of \(alignment)",
                    at: tensor.headerOffset, item: tensor.name)
            }
            // Neither addend exceeds the file's size by more than an alignment.
            let offset = dataOffset + tensor.offset
            guard offset + tensor.byteCount <= bytes.count else {
                throw failure(
                    "its \(tensor.byteCount) bytes at byte \(offset) go beyond the file's \(bytes.count) bytes",
                    at: tensor.headerOffset, item: tensor.name)
            }
            return GGUFFile.Tensor(
                name: tensor.name, dimensions: tensor.dimensions, type: tensor.type, offset: offset,
                byteCount: tensor.byteCount, headerOffset: tensor.headerOffset)
        }
        let sorted = placed.sorted { $0.offset < $1.offset }
        for (a, b) in zip(sorted, sorted.dropFirst()) where a.offset + a.byteCount > b.offset {
            throw failure("its data overlaps that of '\(a.name)'", at: b.headerOffset, item: b.name)
        }
        return placed
    }
}
