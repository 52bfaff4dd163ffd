// The standard library's normalization is not public yet: Apple's system interface hides it, and there Foundation costs nothing.
#if canImport(Darwin)
    import Foundation
#else
    @_spi(_Unicode) import Swift
#endif

extension TokenizerDefinition.Normalizer {
    /// The normalized bytes; nil if they are `text` itself. Bytes that are not UTF-8 stay as they are.
    func normalize(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
        switch self {
        case .none: nil
        case .nfc: text.contains { $0 >= Self.firstLeadToCompose } ? composed(text) : nil
        }
    }

    /// Scalars below U+0300 never change and never combine with each other; U+0300 is 0xcc 0x80.
    private static var firstLeadToCompose: UInt8 { 0xcc }

    private func composed(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
        guard let base = text.baseAddress else { return nil }
        var output: [UInt8] = []
        output.reserveCapacity(text.count)
        var position = 0
        var validStart = 0
        func appendValid() {
            let valid = UnsafeBufferPointer(rebasing: text[validStart..<position])
            Self.appendComposed(String(decoding: valid, as: UTF8.self), to: &output)
        }
        while position < text.count {
            switch UTF8Sequence(base + position, before: base + text.count) {
            case .scalar(_, let length): position += length
            case .invalid(let length), .incomplete(let length):
                appendValid()
                output.append(contentsOf: UnsafeBufferPointer(rebasing: text[position..<position + length]))
                position += length
                validStart = position
            }
        }
        appendValid()
        return output
    }

    private static func appendComposed(_ text: String, to output: inout [UInt8]) {
        #if canImport(Darwin)
            output.append(contentsOf: text.precomposedStringWithCanonicalMapping.utf8)
        #else
            for scalar in text._nfc { output.append(contentsOf: UTF8.encode(scalar)!) }
        #endif
    }
}
