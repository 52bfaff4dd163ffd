/// Builds the header of a GGUF v3 file: keys and tensors in the order in which they are added, each tensor's data at the next
/// multiple of the alignment.
///
/// The data itself is the caller's to write: `Layout.tensorOffsets` says where.
package struct GGUFWriter: Sendable {
    /// A finished header.
    package struct Layout: Sendable {
        /// Header with padding: `header.count` is where the data begins.
        package var header: [UInt8]
        /// Absolute, one for each tensor in the order of adding.
        package let tensorOffsets: [Int]
        /// End of the last tensor, rounded up to the alignment.
        package let fileSize: Int
        /// Where each key's value begins in the header (after its kind; for an array at the first element), for values that
        /// are known only after the data was written.
        package let valueOffsets: [String: Int]

        /// Overwrites the number that `key` was set to, or element `index` of its array.
        package mutating func patch(_ key: String, _ value: UInt32, index: Int = 0) {
            let offset = valueOffsets[key]! + 4 * index
            withUnsafeBytes(of: value.littleEndian) { header.replaceSubrange(offset..<offset + 4, with: $0) }
        }
    }

    package let alignment: Int
    private var keys: [String: Int] = [:]
    private var keyBytes: [UInt8] = []
    private var tensors: [(name: String, dimensions: [Int], type: GGMLType, byteCount: Int)] = []
    private var tensorNames: Set<String> = []

    /// Writes `general.alignment` too, after `general.architecture`.
    package init(architecture: String, alignment: Int) {
        precondition(alignment > 0 && alignment & (alignment - 1) == 0)
        self.alignment = alignment
        set("general.architecture", architecture)
        set("general.alignment", UInt32(alignment))
    }

    package mutating func set(_ key: String, _ value: UInt32) { begin(key, .uint32) { $0.append(number: value) } }
    package mutating func set(_ key: String, _ value: Int32) {
        begin(key, .int32) { $0.append(number: UInt32(bitPattern: value)) }
    }
    package mutating func set(_ key: String, _ value: UInt64) { begin(key, .uint64) { $0.append(number: value) } }
    package mutating func set(_ key: String, _ value: Float) {
        begin(key, .float32) { $0.append(number: value.bitPattern) }
    }
    package mutating func set(_ key: String, _ value: Bool) { begin(key, .bool) { $0.append(value ? 1 : 0) } }
    package mutating func set(_ key: String, _ value: String) { begin(key, .string) { $0.append(string: value.utf8) } }
    package mutating func set(_ key: String, _ values: [UInt32]) {
        array(key, .uint32, values.count) { bytes in
            for value in values { bytes.append(number: value) }
        }
    }
    package mutating func set(_ key: String, _ values: [Int32]) {
        array(key, .int32, values.count) { bytes in
            for value in values { bytes.append(number: UInt32(bitPattern: value)) }
        }
    }
    package mutating func set(_ key: String, _ values: [Float]) {
        array(key, .float32, values.count) { bytes in
            for value in values { bytes.append(number: value.bitPattern) }
        }
    }
    /// Strings as UTF-8 bytes, which must be valid.
    package mutating func set(_ key: String, strings: some Collection<[UInt8]>) {
        array(key, .string, strings.count) { bytes in
            for string in strings { bytes.append(string: string) }
        }
    }

    /// - Parameter dimensions: fastest varying first.
    package mutating func addTensor(_ name: String, dimensions: [Int], type: GGMLType) {
        precondition((1...4).contains(dimensions.count) && dimensions.allSatisfy { $0 > 0 })
        precondition(dimensions[0] % type.blockLength == 0)
        precondition(tensorNames.insert(name).inserted, "tensor added twice")
        let byteCount = dimensions.reduce(1, *) / type.blockLength * type.blockBytes
        tensors.append((name, dimensions, type, byteCount))
    }

    package func layout() -> Layout {
        var header: [UInt8] = []
        header.append(number: GGUFFile.magic)
        header.append(number: UInt32(3))
        header.append(number: UInt64(tensors.count))
        header.append(number: UInt64(keys.count))
        let keyStart = header.count
        header += keyBytes
        var offset = 0
        var offsets: [Int] = []
        for tensor in tensors {
            header.append(string: tensor.name.utf8)
            header.append(number: UInt32(tensor.dimensions.count))
            for size in tensor.dimensions { header.append(number: UInt64(size)) }
            header.append(number: tensor.type.number)
            header.append(number: UInt64(offset))
            offsets.append(offset)
            offset = roundUp(offset + tensor.byteCount)
        }
        header += [UInt8](repeating: 0, count: roundUp(header.count) - header.count)
        return Layout(
            header: header, tensorOffsets: offsets.map { header.count + $0 }, fileSize: header.count + offset,
            valueOffsets: keys.mapValues { $0 + keyStart })
    }

    private func roundUp(_ value: Int) -> Int { (value + alignment - 1) & ~(alignment - 1) }

    private mutating func begin(_ key: String, _ kind: GGUFKind, _ body: (inout [UInt8]) -> Void) {
        keyBytes.append(string: key.utf8)
        keyBytes.append(number: kind.rawValue)
        precondition(keys.updateValue(keyBytes.count, forKey: key) == nil, "key set twice")
        body(&keyBytes)
    }

    private mutating func array(_ key: String, _ kind: GGUFKind, _ count: Int, _ body: (inout [UInt8]) -> Void) {
        begin(key, .array) {
            $0.append(number: kind.rawValue)
            $0.append(number: UInt64(count))
        }
        keys[key] = keyBytes.count
        body(&keyBytes)
    }
}

extension [UInt8] {
    fileprivate mutating func append(number: some FixedWidthInteger & BitwiseCopyable) {
        Swift.withUnsafeBytes(of: number.littleEndian) { append(contentsOf: $0) }
    }
    fileprivate mutating func append(string: some Collection<UInt8>) {
        append(number: UInt64(string.count))
        append(contentsOf: string)
    }
}
