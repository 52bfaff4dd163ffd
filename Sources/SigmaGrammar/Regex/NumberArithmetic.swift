/// A character of a number's text, after its sign.
enum NumberCharacter {
    case digit(UInt8)
    case point
}

/// Texts `digits[.digits]` whose value compares with a bound, as a state of the automaton that reads them.
///
/// Exact for any number of digits. The texts have no leading zeros: the number's syntax sees to that.
package struct MagnitudeState: Hashable, Sendable {
    private enum Order: Int8 {
        case less = -1
        case equal, greater
    }

    /// The bound's digits: of the integer part without leading zeros (a lone 0 stays), of the fraction without trailing ones.
    private let integer: [UInt8]
    private let fraction: [UInt8]
    /// Whether the bound itself is outside.
    private let isStrict: Bool
    private var isInFraction = false
    private var position = 0
    private var order = Order.equal

    /// Texts at least `bound`, or above it if `strict`.
    package init(atLeast bound: DecimalNumber, strict: Bool) {
        integer = bound.integerDigits
        fraction = bound.fractionDigits
        isStrict = strict
    }

    func advanced(_ character: NumberCharacter) -> MagnitudeState? {
        var next = self
        switch character {
        case .point:
            guard !isInFraction else { return nil }
            next.order = integerOrder
            next.isInFraction = true
            next.position = 0
        case .digit(let digit) where !isInFraction:
            if position < integer.count && order == .equal { next.order = Self.compare(digit, integer[position]) }
            next.position = min(position + 1, integer.count + 1)
        case .digit(let digit):
            guard order == .equal else { return self }
            if position < fraction.count {
                next.order = Self.compare(digit, fraction[position])
                next.position = next.order == .equal ? position + 1 : 0
            } else if digit > 0 {
                next.order = .greater
                next.position = 0
            }
        }
        return next
    }

    var accepts: Bool {
        var value = isInFraction ? order : integerOrder
        if value == .equal && (isInFraction ? position : 0) < fraction.count { value = .less }
        return isStrict ? value == .greater : value != .less
    }

    private var integerOrder: Order {
        position == integer.count ? order : position < integer.count ? .less : .greater
    }

    private static func compare(_ a: UInt8, _ b: UInt8) -> Order { a == b ? .equal : a < b ? .less : .greater }
}

/// Texts `digits[.digits]` whose value is a multiple of `modulus` / 10^`scale`: the remainder so far.
package struct MultipleState: Hashable, Sendable {
    private let modulus: UInt64
    private let scale: Int
    private var remainder: UInt64 = 0
    /// Digits read after the point, up to `scale`; -1 before the point.
    private var fractionPosition = -1

    /// - Precondition: 0 < `modulus` < 2^59.
    package init(modulus: UInt64, scale: Int) {
        self.modulus = modulus
        self.scale = scale
    }

    func advanced(_ character: NumberCharacter) -> MultipleState? {
        var next = self
        switch character {
        case .point:
            guard fractionPosition < 0 else { return nil }
            next.fractionPosition = 0
        case .digit(let digit):
            if fractionPosition == scale { return digit == 0 ? self : nil }
            next.remainder = (remainder * 10 + UInt64(digit)) % modulus
            if fractionPosition >= 0 { next.fractionPosition += 1 }
        }
        return next
    }

    var accepts: Bool {
        var value = remainder
        for _ in max(fractionPosition, 0)..<max(scale, max(fractionPosition, 0)) { value = value * 10 % modulus }
        return value == 0
    }
}

/// A decimal number as it is written, without rounding.
package struct DecimalNumber: Hashable, Sendable {
    package let isNegative: Bool
    /// Without leading zeros, at least one digit.
    package let integerDigits: [UInt8]
    /// Without trailing zeros.
    package let fractionDigits: [UInt8]

    /// Digits that an exponent may make of a number.
    private static let digitLimit = 2_000

    /// A JSON number's text; nil if it isn't one, or if it would be longer than 2,000 digits.
    package init?(_ text: String) {
        var bytes = Array(text.utf8)[...]
        let negative = bytes.first == UInt8(ascii: "-")
        if negative { bytes = bytes.dropFirst() }
        let mantissa = bytes.prefix { $0 != UInt8(ascii: "e") && $0 != UInt8(ascii: "E") }
        let exponentText = bytes.dropFirst(mantissa.count).dropFirst()
        var exponent = 0
        if mantissa.count < bytes.count {
            guard let value = Int(String(decoding: exponentText, as: UTF8.self)),
                value.magnitude <= UInt(Self.digitLimit)
            else { return nil }
            exponent = value
        }
        let whole = mantissa.prefix { $0 != UInt8(ascii: ".") }
        let part = mantissa.dropFirst(whole.count).dropFirst()
        guard !whole.isEmpty, whole.count + part.count <= Self.digitLimit,
            (whole + part).allSatisfy({ UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 })
        else { return nil }
        var digits = (whole + part).map { $0 - UInt8(ascii: "0") }
        var point = whole.count + exponent
        if point < 1 {
            digits = [UInt8](repeating: 0, count: 1 - point) + digits
            point = 1
        }
        if point > digits.count { digits += [UInt8](repeating: 0, count: point - digits.count) }
        var integer = Array(digits[..<point].drop { $0 == 0 })
        if integer.isEmpty { integer = [0] }
        var fraction = Array(digits[point...])
        while fraction.last == 0 { fraction.removeLast() }
        self.init(isNegative: negative, integer: integer, fraction: fraction)
    }

    private init(isNegative: Bool, integer: [UInt8], fraction: [UInt8]) {
        self.isNegative = isNegative && !(integer == [0] && fraction.isEmpty)
        integerDigits = integer
        fractionDigits = fraction
    }

    package var isZero: Bool { integerDigits == [0] && fractionDigits.isEmpty }

    /// The digits without the point, as an integer; nil if they don't fit.
    package var scaledValue: UInt64? {
        var value: UInt64 = 0
        for digit in integerDigits + fractionDigits {
            guard value < 1 << 54 else { return nil }
            value = value * 10 + UInt64(digit)
        }
        return value
    }

    package var isInteger: Bool { fractionDigits.isEmpty }
}
