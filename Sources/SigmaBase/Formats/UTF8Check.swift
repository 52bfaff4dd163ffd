/// True if `bytes` is well-formed UTF-8 (no overlong forms, no surrogates, nothing above U+10FFFF). Eight ASCII bytes a step.
package func isValidUTF8(_ bytes: UnsafeRawBufferPointer) -> Bool {
    let count = bytes.count
    var i = 0
    while i < count {
        if count - i >= 8, bytes.loadUnaligned(fromByteOffset: i, as: UInt64.self) & 0x8080_8080_8080_8080 == 0 {
            i += 8
            continue
        }
        let lead = bytes[i]
        if lead < 0x80 {
            i += 1
            continue
        }
        // The second byte's range is what excludes overlong forms, surrogates and too large values.
        let length: Int
        let second: ClosedRange<UInt8>
        switch lead {
        case 0xc2...0xdf: (length, second) = (2, 0x80...0xbf)
        case 0xe0: (length, second) = (3, 0xa0...0xbf)
        case 0xed: (length, second) = (3, 0x80...0x9f)
        case 0xe1...0xef: (length, second) = (3, 0x80...0xbf)
        case 0xf0: (length, second) = (4, 0x90...0xbf)
        case 0xf1...0xf3: (length, second) = (4, 0x80...0xbf)
        case 0xf4: (length, second) = (4, 0x80...0x8f)
        default: return false
        }
        guard count - i >= length, second.contains(bytes[i + 1]) else { return false }
        for k in 2..<max(length, 2) where bytes[i + k] & 0xc0 != 0x80 { return false }
        i += length
    }
    return true
}
