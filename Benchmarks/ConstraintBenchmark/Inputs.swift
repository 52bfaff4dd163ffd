import SigmaBase
import SystemLibrary

/// Cuts a text into the longest tokens from the left.
struct TokenCutter {
    private var ids: [[UInt8]: Int] = [:]
    private var longest = 1

    init(tokens: [[UInt8]?]) {
        for (id, bytes) in tokens.enumerated() {
            guard let bytes, !bytes.isEmpty else { continue }
            ids[bytes] = id
            longest = max(longest, bytes.count)
        }
    }

    func cut(_ text: [UInt8]) -> [Int] {
        var result: [Int] = []
        var position = 0
        while position < text.count {
            var length = min(longest, text.count - position)
            while length > 1 && ids[Array(text[position..<position + length])] == nil { length -= 1 }
            guard let id = ids[Array(text[position..<position + length])] else { return result }
            result.append(id)
            position += length
        }
        return result
    }
}

/// A tiktoken file: a token's bytes in base64 and its number, a line each.
func readTokens(file path: String) throws -> [[UInt8]?] {
    var result: [[UInt8]?] = []
    for line in try lines(file: path) {
        let parts = line.split(separator: " ")
        guard parts.count == 2, let id = Int(parts[1]) else { continue }
        while result.count <= id { result.append(nil) }
        result[id] = base64(Array(parts[0].utf8))
    }
    return result
}

private func base64(_ text: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    var buffer: UInt32 = 0
    var bits = 0
    for character in text {
        let value: UInt32
        switch character {
        case 0x41...0x5A: value = UInt32(character) - 0x41
        case 0x61...0x7A: value = UInt32(character) - 0x61 + 26
        case 0x30...0x39: value = UInt32(character) - 0x30 + 52
        case UInt8(ascii: "+"): value = 62
        case UInt8(ascii: "/"): value = 63
        default: continue
        }
        buffer = buffer << 6 | value
        bits += 6
        if bits >= 8 {
            bits -= 8
            bytes.append(UInt8(truncatingIfNeeded: buffer >> UInt32(bits)))
        }
    }
    return bytes
}

func lines(file path: String) throws -> [String] {
    let file = try MappedFile(path: path)
    return file.bytes.split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
}

func write(_ text: String, to path: String) throws {
    guard let file = fopen(path, "w") else { throw SigmaError(.damaged, "cannot write", path: path) }
    fputs(text, file)
    fclose(file)
}

/// A value as JSON text, numbers as they were written.
func jsonText(_ value: JSONValue) -> String {
    switch value {
    case .null: return "null"
    case .bool(let value): return value ? "true" : "false"
    case .integer(let value): return "\(value)"
    case .number(let value): return "\(value)"
    case .decimal(let text): return text
    case .string(let text):
        var result = ""
        JSONWriter.escape(text, into: &result)
        return result
    case .array(let list): return "[" + list.map { jsonText($0) }.joined(separator: ",") + "]"
    case .object(let object):
        let members = zip(object.keys, object.values).map { jsonText(.string($0)) + ":" + jsonText($1) }
        return "{" + members.joined(separator: ",") + "}"
    }
}
