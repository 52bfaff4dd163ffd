/// The kinds of values that GGUF metadata has, with the format's numbers.
package enum GGUFKind: UInt32, Sendable {
    case uint8 = 0
    case int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

    /// Bytes of a value; nil where they vary.
    package var byteCount: Int? {
        switch self {
        case .uint8, .int8, .bool: 1
        case .uint16, .int16: 2
        case .uint32, .int32, .float32: 4
        case .uint64, .int64, .float64: 8
        case .string, .array: nil
        }
    }
    package var name: String { "\(self)" }
}

/// The element types of tensors that ggml knows, so that we can say what a foreign file holds.
package struct GGMLType: Sendable, Equatable {
    package let number: UInt32
    package let name: String
    /// Elements per block, and bytes of one.
    package let blockLength: Int
    package let blockBytes: Int

    package static let f32 = GGMLType(number: 0, name: "F32", blockLength: 1, blockBytes: 4)
    package static let int8 = GGMLType(number: 24, name: "I8", blockLength: 1, blockBytes: 1)

    package static func number(_ number: UInt32) -> GGMLType? { known.first { $0.number == number } }

    private static let known: [GGMLType] = [
        f32,
        GGMLType(number: 1, name: "F16", blockLength: 1, blockBytes: 2),
        GGMLType(number: 2, name: "Q4_0", blockLength: 32, blockBytes: 18),
        GGMLType(number: 3, name: "Q4_1", blockLength: 32, blockBytes: 20),
        GGMLType(number: 6, name: "Q5_0", blockLength: 32, blockBytes: 22),
        GGMLType(number: 7, name: "Q5_1", blockLength: 32, blockBytes: 24),
        GGMLType(number: 8, name: "Q8_0", blockLength: 32, blockBytes: 34),
        GGMLType(number: 9, name: "Q8_1", blockLength: 32, blockBytes: 36),
        GGMLType(number: 10, name: "Q2_K", blockLength: 256, blockBytes: 84),
        GGMLType(number: 11, name: "Q3_K", blockLength: 256, blockBytes: 110),
        GGMLType(number: 12, name: "Q4_K", blockLength: 256, blockBytes: 144),
        GGMLType(number: 13, name: "Q5_K", blockLength: 256, blockBytes: 176),
        GGMLType(number: 14, name: "Q6_K", blockLength: 256, blockBytes: 210),
        GGMLType(number: 15, name: "Q8_K", blockLength: 256, blockBytes: 292),
        GGMLType(number: 16, name: "IQ2_XXS", blockLength: 256, blockBytes: 66),
        GGMLType(number: 17, name: "IQ2_XS", blockLength: 256, blockBytes: 74),
        GGMLType(number: 18, name: "IQ3_XXS", blockLength: 256, blockBytes: 98),
        GGMLType(number: 19, name: "IQ1_S", blockLength: 256, blockBytes: 50),
        GGMLType(number: 20, name: "IQ4_NL", blockLength: 32, blockBytes: 18),
        GGMLType(number: 21, name: "IQ3_S", blockLength: 256, blockBytes: 110),
        GGMLType(number: 22, name: "IQ2_S", blockLength: 256, blockBytes: 82),
        GGMLType(number: 23, name: "IQ4_XS", blockLength: 256, blockBytes: 136),
        int8,
        GGMLType(number: 25, name: "I16", blockLength: 1, blockBytes: 2),
        GGMLType(number: 26, name: "I32", blockLength: 1, blockBytes: 4),
        GGMLType(number: 27, name: "I64", blockLength: 1, blockBytes: 8),
        GGMLType(number: 28, name: "F64", blockLength: 1, blockBytes: 8),
        GGMLType(number: 29, name: "IQ1_M", blockLength: 256, blockBytes: 56),
        GGMLType(number: 30, name: "BF16", blockLength: 1, blockBytes: 2),
        GGMLType(number: 34, name: "TQ1_0", blockLength: 256, blockBytes: 54),
        GGMLType(number: 35, name: "TQ2_0", blockLength: 256, blockBytes: 66),
        GGMLType(number: 39, name: "MXFP4", blockLength: 32, blockBytes: 17),
    ]
}

/// A list in a GGUF file's metadata: a view of the mapped bytes.
package struct GGUFArray: @unchecked Sendable {
    package let kind: GGUFKind
    package let count: Int
    /// Offset of the first element in the file, and the elements' bytes.
    package let offset: Int
    package let bytes: UnsafeRawBufferPointer
    /// For strings: where each one's bytes begin, after its length, counted from `bytes`; `count + 1` entries, the last as if there
    /// were one string more.
    let starts: [UInt32]

    /// The UTF-8 bytes (checked) of string `i`. The array must be one of strings.
    package func utf8(_ i: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[Int(starts[i])..<Int(starts[i + 1]) - 8])
    }
    package func string(_ i: Int) -> String { String(decoding: utf8(i), as: UTF8.self) }

    /// Element `i` of integers or booleans; nil for other kinds and values above `Int.max`.
    package func integer(_ i: Int) -> Int? { GGUFFile.integer(kind, bytes, i * (kind.byteCount ?? 0)) }
    package func double(_ i: Int) -> Double? { GGUFFile.double(kind, bytes, i * (kind.byteCount ?? 0)) }

    /// All elements, if they are integers that fit.
    package var integers: [Int]? {
        guard kind != .string, kind != .float32, kind != .float64, kind != .bool else { return nil }
        var result: [Int] = []
        result.reserveCapacity(count)
        for i in 0..<count {
            guard let value = integer(i) else { return nil }
            result.append(value)
        }
        return result
    }
}

/// One value of a GGUF file's metadata.
package enum GGUFValue: Sendable {
    case integer(GGUFKind, Int)
    /// A 64-bit value above `Int.max`.
    case large(UInt64)
    case float(GGUFKind, Double)
    case bool(Bool)
    case string(String)
    case array(GGUFArray)
    /// A string, or an array of strings, that is not valid UTF-8.
    case malformedText

    package var integer: Int? {
        if case .integer(_, let value) = self { return value }
        return nil
    }
    package var double: Double? {
        if case .float(_, let value) = self { return value }
        return nil
    }
    package var bool: Bool? {
        if case .bool(let value) = self { return value }
        return nil
    }
    package var string: String? {
        if case .string(let value) = self { return value }
        return nil
    }
    package var array: GGUFArray? {
        if case .array(let value) = self { return value }
        return nil
    }
    /// For messages.
    package var description: String {
        if case .malformedText = self { return kindName }
        return "a value of kind \(kindName)"
    }
    /// For messages: "uint32", "array of string".
    package var kindName: String {
        switch self {
        case .integer(let kind, _), .float(let kind, _): kind.name
        case .large: "uint64"
        case .bool: "bool"
        case .string: "string"
        case .array(let array): "array of \(array.kind.name)"
        case .malformedText: "text that is not valid UTF-8"
        }
    }
}
