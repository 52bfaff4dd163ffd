/// GPT-2's printable alphabet for bytes, the writing of byte-level vocabularies in text files: 188 bytes are the Latin-1 character
/// of the same number, the other 68 (controls, space, 0x7f to 0xa0, 0xad) are U+0100 to U+0143 in order.
package enum ByteAlphabet {
    /// The scalar of each byte, at most U+0143.
    package static let scalars: [UInt16] = {
        var next: UInt16 = 0x100
        return (0..<256).map { byte in
            if isPrintable(UInt8(byte)) { return UInt16(byte) }
            defer { next += 1 }
            return next
        }
    }()

    /// The byte of each scalar below U+0144; -1 where there is none.
    private static let bytes: [Int16] = {
        var table = [Int16](repeating: -1, count: 0x144)
        for (byte, scalar) in scalars.enumerated() { table[Int(scalar)] = Int16(byte) }
        return table
    }()

    private static func isPrintable(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x21...0x7e, 0xa1...0xac, 0xae...0xff: true
        default: false
        }
    }

    /// Appends the bytes that a text in the alphabet (UTF-8) stands for.
    ///
    /// - Returns: false, with nothing appended, if any part of the text is outside the alphabet.
    package static func appendBytes(of text: UnsafeBufferPointer<UInt8>, to output: inout [UInt8]) -> Bool {
        let start = output.count
        var position = 0
        while position < text.count {
            let lead = text[position]
            var scalar = Int(lead)
            position += 1
            // The whole alphabet is in one and two bytes of UTF-8.
            if lead >= 0x80 {
                guard (0xc2...0xc5).contains(lead), position < text.count, text[position] & 0xc0 == 0x80 else {
                    output.removeSubrange(start...)
                    return false
                }
                scalar = Int(lead & 0x1f) << 6 | Int(text[position] & 0x3f)
                position += 1
            }
            guard scalar < bytes.count, bytes[scalar] >= 0 else {
                output.removeSubrange(start...)
                return false
            }
            output.append(UInt8(bytes[scalar]))
        }
        return true
    }

    /// The bytes that a text in the alphabet stands for; nil if any part of it is outside the alphabet.
    package static func bytes(of text: String) -> [UInt8]? {
        var text = text
        var output: [UInt8] = []
        return text.withUTF8 { appendBytes(of: $0, to: &output) } ? output : nil
    }

    /// `bytes` written in the alphabet.
    package static func text(of bytes: some Sequence<UInt8>) -> String {
        var text = ""
        for byte in bytes { text.unicodeScalars.append(Unicode.Scalar(scalars[Int(byte)])!) }
        return text
    }
}
