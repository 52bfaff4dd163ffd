import Sigma

/// Files that gzip has packed (RFC 1951 and 1952).
public enum Gzip {
    /// The bytes as they are, or unpacked where they begin as gzip's do.
    ///
    /// - Parameters:
    ///   - path: for errors.
    ///   - limit: of the unpacked bytes.
    /// - Throws: `SigmaError` (`.damaged`) with the byte offset.
    public static func unpackedIfPacked(_ bytes: [UInt8], path: String, limit: Int = 1 << 31) throws -> [UInt8] {
        guard bytes.starts(with: [0x1F, 0x8B]) else { return bytes }
        var unpacker = Unpacker(bytes: bytes, limit: limit)
        do {
            repeat { try unpacker.readMember() } while unpacker.position < bytes.count
        } catch let failure as Unpacker.Failure {
            throw SigmaError(
                .damaged, "not a whole gzip file: \(failure.message)", path: path, offset: UInt64(unpacker.position))
        }
        return unpacker.output
    }
}

private struct Unpacker {
    struct Failure: Error { var message: String }

    let bytes: [UInt8]
    let limit: Int
    private(set) var position = 0
    private(set) var output: [UInt8] = []
    // Bits that were taken of the bytes and not used, the lowest first.
    private var bits: UInt32 = 0
    private var bitCount = 0

    init(bytes: [UInt8], limit: Int) {
        self.bytes = bytes
        self.limit = limit
    }

    mutating func readMember() throws {
        let start = output.count
        try readHeader()
        while try !readBlock() {}
        // What is left of a byte belongs to nothing.
        (bits, bitCount) = (0, 0)
        let checksum = try read32()
        let count = try read32()
        guard count == UInt32(truncatingIfNeeded: output.count - start) else {
            throw Failure(message: "another length")
        }
        guard checksum == Self.crc(output[start...]) else { throw Failure(message: "another checksum") }
    }

    private mutating func readHeader() throws {
        guard try byte() == 0x1F, try byte() == 0x8B, try byte() == 8 else { throw Failure(message: "no header") }
        let flags = try byte()
        for _ in 0..<6 { _ = try byte() }
        if flags & 4 != 0 {
            let count = Int(try byte()) | Int(try byte()) << 8
            for _ in 0..<count { _ = try byte() }
        }
        for flag in [8, 16] as [UInt8] where flags & flag != 0 {
            while try byte() != 0 {}
        }
        if flags & 2 != 0 { for _ in 0..<2 { _ = try byte() } }
    }

    // MARK: - Blocks

    /// - Returns: whether it was the last.
    private mutating func readBlock() throws -> Bool {
        let isLast = try take(1) == 1
        switch try take(2) {
        case 0: try readStored()
        case 1: try readCoded(Self.fixedLiterals, Self.fixedDistances)
        case 2:
            let (literals, distances) = try readCodes()
            try readCoded(literals, distances)
        default: throw Failure(message: "an unknown kind of block")
        }
        return isLast
    }

    private mutating func readStored() throws {
        (bits, bitCount) = (0, 0)
        let count = Int(try byte()) | Int(try byte()) << 8
        let complement = Int(try byte()) | Int(try byte()) << 8
        guard count == ~complement & 0xFFFF else { throw Failure(message: "a block's length is damaged") }
        guard bytes.count - position >= count else { throw Failure(message: "it ends early") }
        try checkRoom(count)
        output += bytes[position..<position + count]
        position += count
    }

    private mutating func readCoded(_ literals: Code, _ distances: Code) throws {
        while true {
            let symbol = try decode(literals)
            if symbol == 256 { return }
            if symbol < 256 {
                try checkRoom(1)
                output.append(UInt8(symbol))
                continue
            }
            guard symbol < 286 else { throw Failure(message: "an unknown length") }
            let length = Self.lengths[symbol - 257].base + Int(try take(Self.lengths[symbol - 257].bits))
            let place = try decode(distances)
            guard place < 30 else { throw Failure(message: "an unknown distance") }
            let distance = Self.distances[place].base + Int(try take(Self.distances[place].bits))
            guard distance <= output.count else { throw Failure(message: "a distance before the begin") }
            try checkRoom(length)
            for _ in 0..<length { output.append(output[output.count - distance]) }
        }
    }

    private mutating func readCodes() throws -> (literals: Code, distances: Code) {
        let literalCount = Int(try take(5)) + 257
        let distanceCount = Int(try take(5)) + 1
        let count = Int(try take(4)) + 4
        var lengths = [Int](repeating: 0, count: 19)
        for index in Self.codeOrder.prefix(count) { lengths[index] = Int(try take(3)) }
        let code = try Code(lengths)
        var all: [Int] = []
        while all.count < literalCount + distanceCount {
            switch try decode(code) {
            case let length where length < 16: all.append(length)
            case 16:
                guard let last = all.last else { throw Failure(message: "a length that repeats nothing") }
                all += Array(repeating: last, count: 3 + Int(try take(2)))
            case 17: all += Array(repeating: 0, count: 3 + Int(try take(3)))
            default: all += Array(repeating: 0, count: 11 + Int(try take(7)))
            }
        }
        guard all.count == literalCount + distanceCount else { throw Failure(message: "too many lengths") }
        return (try Code(Array(all[..<literalCount])), try Code(Array(all[literalCount...])))
    }

    private func checkRoom(_ count: Int) throws {
        guard limit - output.count >= count else { throw Failure(message: "it unpacks to more than \(limit) bytes") }
    }

    // MARK: - Bits

    private mutating func byte() throws -> UInt8 {
        guard position < bytes.count else { throw Failure(message: "it ends early") }
        position += 1
        return bytes[position - 1]
    }

    private mutating func read32() throws -> UInt32 {
        var value: UInt32 = 0
        for shift in [0, 8, 16, 24] as [UInt32] { value |= UInt32(try byte()) << shift }
        return value
    }

    private mutating func take(_ count: Int) throws -> UInt32 {
        while bitCount < count {
            bits |= UInt32(try byte()) << UInt32(bitCount)
            bitCount += 8
        }
        defer {
            bits >>= UInt32(count)
            bitCount -= count
        }
        return bits & ((1 << UInt32(count)) - 1)
    }

    // MARK: - Codes

    /// A canonical Huffman code: how many words have each length, and the symbols in the order of their words.
    private struct Code {
        private(set) var counts = [Int](repeating: 0, count: 16)
        private(set) var symbols: [Int]

        init(_ lengths: [Int]) throws {
            for length in lengths { counts[length] += 1 }
            counts[0] = 0
            var left = 1
            for count in counts[1...] {
                left = left * 2 - count
                guard left >= 0 else { throw Failure(message: "a code with too many words") }
            }
            var places = [Int](repeating: 0, count: 17)
            for length in 1...15 { places[length + 1] = places[length] + counts[length] }
            symbols = Array(repeating: 0, count: places[16])
            for (symbol, length) in lengths.enumerated() where length > 0 {
                symbols[places[length]] = symbol
                places[length] += 1
            }
        }
    }

    private mutating func decode(_ code: Code) throws -> Int {
        var (word, first, index) = (0, 0, 0)
        for length in 1...15 {
            word |= Int(try take(1))
            let count = code.counts[length]
            if word - count < first { return code.symbols[index + word - first] }
            index += count
            first = (first + count) << 1
            word <<= 1
        }
        throw Failure(message: "an unknown word of a code")
    }

    private static let codeOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]

    private static let lengths: [(base: Int, bits: Int)] = {
        let bases = [
            3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
            227,
        ]
        return bases.enumerated().map { place, base in (base, place < 8 ? 0 : place / 4 - 1) } + [(258, 0)]
    }()

    private static let distances: [(base: Int, bits: Int)] = (0..<30).map { (place: Int) -> (base: Int, bits: Int) in
        guard place >= 2 else { return (place + 1, 0) }
        let bits = place / 2 - 1
        let base = (2 + place % 2) << bits
        return (base + 1, bits)
    }

    private static let fixedLiterals = try! Code(
        Array(repeating: 8, count: 144) + Array(repeating: 9, count: 112) + Array(repeating: 7, count: 24)
            + Array(repeating: 8, count: 8))
    private static let fixedDistances = try! Code(Array(repeating: 5, count: 30))

    // MARK: - The checksum

    private static let crcTable: [UInt32] = (0..<256).map { (index: UInt32) -> UInt32 in
        var value = index
        for _ in 0..<8 { value = value & 1 == 0 ? value >> 1 : (value >> 1) ^ 0xEDB8_8320 }
        return value
    }

    private static func crc(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        var value = UInt32.max
        for byte in bytes {
            let index = Int(UInt8(truncatingIfNeeded: value) ^ byte)
            value = crcTable[index] ^ (value >> 8)
        }
        return ~value
    }
}
