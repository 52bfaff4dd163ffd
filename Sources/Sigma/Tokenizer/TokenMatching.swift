extension SpecialTokens.Match {
    /// Gives the match the white space that the token takes, as Hugging Face's tokenizers do.
    ///
    /// - Parameter position: where the last token ended: what belongs to it is not taken again.
    /// - Returns: false if it is no match, because the token must be a word of its own.
    mutating func extend(
        _ matching: TokenizerDefinition.Matching, in text: UnsafeBufferPointer<UInt8>, after position: Int
    ) -> Bool {
        if matching.contains(.singleWord) {
            if let before = text.scalar(before: start), before.value.isWordCharacter { return false }
            if let behind = text.scalar(at: end), behind.value.isWordCharacter { return false }
        }
        if matching.contains(.stripsLeft) {
            var place = start
            while let before = text.scalar(before: place), before.value.properties.isWhitespace {
                place -= before.length
            }
            start = max(place, position)
        }
        if matching.contains(.stripsRight) {
            while let behind = text.scalar(at: end), behind.value.properties.isWhitespace { end += behind.length }
        }
        return true
    }
}

extension UnsafeBufferPointer<UInt8> {
    /// The character at a place; nil at the end and for bytes that are no UTF-8.
    fileprivate func scalar(at place: Int) -> (value: Unicode.Scalar, length: Int)? {
        guard place < count, let baseAddress else { return nil }
        let sequence = UTF8Sequence(baseAddress + place, before: baseAddress + count)
        guard case .scalar(let value, _) = sequence, let scalar = Unicode.Scalar(value) else { return nil }
        return (scalar, sequence.length)
    }

    /// The character that ends at a place.
    fileprivate func scalar(before place: Int) -> (value: Unicode.Scalar, length: Int)? {
        for length in 1...4 where length <= place {
            if self[place - length] & 0xc0 == 0x80 { continue }
            guard let scalar = scalar(at: place - length), scalar.length == length else { return nil }
            return scalar
        }
        return nil
    }
}

extension Unicode.Scalar {
    /// `\w` of regular expressions.
    fileprivate var isWordCharacter: Bool {
        if properties.isAlphabetic || properties.isJoinControl { return true }
        return switch properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber, .connectorPunctuation: true
        default: false
        }
    }
}
