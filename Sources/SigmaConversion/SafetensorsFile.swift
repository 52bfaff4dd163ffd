import Sigma

/// A safetensors file, mapped: names, types, shapes and places of its tensors, all checked against the file's size.
package final class SafetensorsFile: Sendable {
    package struct Tensor: Sendable {
        package let name: String
        package let type: String
        package let shape: [Int]
        /// From the file's begin, in bytes.
        package let offset: Int
        package let byteCount: Int
    }

    package let file: MappedFile
    /// In the header's order.
    package let tensors: [Tensor]

    /// The format's own limit.
    package static let headerLimit = 100_000_000

    /// Bytes of an element of each type that the format knows.
    private static let elementBytes: [String: Int] = [
        "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
        "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "C64": 8,
    ]

    /// - Throws: `SigmaError`: as `MappedFile`; `.damaged` with tensor, expected and found.
    package init(path: String) throws {
        file = try MappedFile(path: path)
        try StandIn.check(file, expected: "a safetensors file")
        let bytes = file.bytes
        func failure(_ message: String, item: String? = nil, at offset: Int? = nil) -> SigmaError {
            SigmaError(.damaged, message, path: path, item: item, offset: offset.map { UInt64($0) })
        }
        guard bytes.count >= 8 else { throw failure("the file ends inside the header's length", at: 0) }
        let length = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        guard length <= UInt64(Self.headerLimit) else {
            throw failure(
                "not a safetensors file: expected a header of at most \(Self.headerLimit) bytes, found \(length)", at: 0
            )
        }
        guard length <= UInt64(bytes.count - 8) else {
            throw failure("the file of \(bytes.count) bytes ends inside its header of \(length) bytes", at: 0)
        }
        let dataOffset = 8 + Int(length)
        let header: JSONValue
        do {
            header = try JSONValue.parse(UnsafeRawBufferPointer(rebasing: bytes[8..<dataOffset]), path: path)
        } catch var error as SigmaError {
            error.offset = error.offset.map { $0 + 8 }
            error.message = "the header is " + error.message
            throw error
        }
        guard let entries = header.object else {
            throw failure("expected a header that is a JSON object, found \(header.kind)", at: 8)
        }
        var tensors: [Tensor] = []
        for (name, description) in zip(entries.keys, entries.values) {
            if name == "__metadata__" {
                guard description.object != nil else {
                    throw failure("expected an object, found \(description.kind)", item: name)
                }
                continue
            }
            let tensor = try Self.tensor(
                name, description, dataOffset: dataOffset, dataSize: bytes.count - dataOffset
            ) { failure($0, item: name) }
            tensors.append(tensor)
        }
        let sorted = tensors.filter { $0.byteCount > 0 }.sorted { $0.offset < $1.offset }
        for (a, b) in zip(sorted, sorted.dropFirst()) where a.offset + a.byteCount > b.offset {
            throw failure("its data overlaps that of '\(a.name)'", item: b.name, at: b.offset)
        }
        self.tensors = tensors
        try file.checkIntact()
    }

    private static func tensor(
        _ name: String, _ description: JSONValue, dataOffset: Int, dataSize: Int, failure: (String) -> SigmaError
    ) throws -> Tensor {
        guard description.object != nil else { throw failure("expected an object, found \(description.kind)") }
        guard let type = description["dtype"]?.string else { throw failure("expected a dtype") }
        guard let size = elementBytes[type] else { throw failure("unknown dtype \(type)") }
        guard let shapeValues = description["shape"]?.array, shapeValues.count <= 8 else {
            throw failure("expected a shape of at most 8 numbers")
        }
        var shape: [Int] = []
        var byteCount = size
        for value in shapeValues {
            guard let extent = value.integer, extent >= 0 else {
                throw failure("expected a shape of numbers that are not negative, found \(value.kind)")
            }
            let product = byteCount.multipliedReportingOverflow(by: Int(extent))
            guard !product.overflow else { throw failure("its shape makes no sense") }
            byteCount = product.partialValue
            shape.append(Int(extent))
        }
        guard let offsets = description["data_offsets"]?.array, offsets.count == 2, let begin = offsets[0].integer,
            let end = offsets[1].integer, begin >= 0, begin <= end
        else { throw failure("expected data_offsets of two increasing numbers") }
        guard end <= dataSize else {
            throw failure("its data ends at byte \(end) of the data, but the file has only \(dataSize) bytes of data")
        }
        guard Int(end - begin) == byteCount else {
            throw failure("\(type) \(shape) is \(byteCount) bytes, but data_offsets say \(end - begin)")
        }
        return Tensor(name: name, type: type, shape: shape, offset: dataOffset + Int(begin), byteCount: byteCount)
    }
}
