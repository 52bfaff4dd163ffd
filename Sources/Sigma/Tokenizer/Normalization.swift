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

    /// Scalars below U+0300 (0xcc 0x80) never change, and combine only with later ones.
    private static var firstLeadToCompose: UInt8 { 0xcc }

    /// Marks behind each other that are put in order together: the time grows with the square of their number, and no language has more than a
    /// few (Unicode's Stream-Safe Text Format: 30).
    private static let markLimit = 1024

    /// What is not text, or younger than the normalization that vocabularies were made with, stands for itself and combines with
    /// nothing; the runs between are composed.
    private func composed(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
        guard let base = text.baseAddress else { return nil }
        let classes = ScalarClasses.shared
        var output: [UInt8] = []
        output.reserveCapacity(text.count)
        var run: [UInt8] = []
        var marks = 0
        var position = 0
        while position < text.count {
            let sequence = UTF8Sequence(base + position, before: base + text.count)
            let bytes = UnsafeBufferPointer(start: base + position, count: sequence.length)
            position += sequence.length
            if case .scalar(let value, _) = sequence, classes[value].has(.normalized) {
                run.append(contentsOf: Self.decomposedVowel(value) ?? bytes)
                marks = classes[value].isMark ? marks + 1 : 0
                if marks == Self.markLimit {
                    Self.compose(&run, into: &output)
                    marks = 0
                }
            } else {
                Self.compose(&run, into: &output)
                output.append(contentsOf: bytes)
            }
        }
        Self.compose(&run, into: &output)
        return output
    }

    /// Appends the run in NFC and empties it.
    private static func compose(_ run: inout [UInt8], into output: inout [UInt8]) {
        guard !run.isEmpty else { return }
        let text = String(decoding: run, as: UTF8.self)
        #if canImport(Darwin)
            output.append(contentsOf: text.precomposedStringWithCanonicalMapping.utf8)
        #else
            for scalar in text._nfc { output.append(contentsOf: UTF8.encode(scalar)!) }
        #endif
        run.removeAll(keepingCapacity: true)
    }

    // Three Tibetan vowels are starters that decompose into marks. The standard library orders them as starters.
    private static func decomposedVowel(_ scalar: UInt32) -> UnsafeBufferPointer<UInt8>? {
        switch scalar {
        case 0xf73: UnsafeBufferPointer(bytes: "\u{f71}\u{f72}")
        case 0xf75: UnsafeBufferPointer(bytes: "\u{f71}\u{f74}")
        case 0xf81: UnsafeBufferPointer(bytes: "\u{f71}\u{f80}")
        default: nil
        }
    }
}

extension UnsafeBufferPointer<UInt8> {
    fileprivate init(bytes text: StaticString) { self.init(start: text.utf8Start, count: text.utf8CodeUnitCount) }
}
