/// A set of numbers as the language of their texts.
///
/// The set is closed over spellings without exponent: 1, 1.0 and 1.00 are in it together, so that complements are exact.
/// Exponents are allowed only where every number is.
package struct NumberLanguage: Hashable, Sendable {
    /// Texts without exponent.
    package var plain: RegexID
    package var isEverything: Bool
    /// Written without trailing zeros in the fraction: integers and listed numbers. Cuts spellings, never values.
    package var isCanonical: Bool

    package static let none = NumberLanguage(plain: RegexArena.empty, isEverything: false, isCanonical: false)

    /// All of a number's bounds.
    package struct Bounds {
        package var minimum: (value: DecimalNumber, strict: Bool)?
        package var maximum: (value: DecimalNumber, strict: Bool)?
        package init() {}
    }
}

extension RegexArena {
    private mutating func digits(min: Int32) -> RegexID {
        self.repeat(set(CodePointSet([(0x30, 0x39)])), min: min, max: Self.unbounded)
    }

    private mutating func natural() -> RegexID {
        let tail = digits(min: 0)
        return or(scalar(0x30), concat(set(CodePointSet([(0x31, 0x39)])), tail))
    }

    /// `digits[.digits]` without leading zeros.
    private mutating func magnitudeSyntax() -> RegexID {
        let whole = natural()
        let fraction = concat(scalar(0x2E), digits(min: 1))
        return concat(whole, optional(fraction))
    }

    /// Every number without exponent.
    package mutating func plainNumbers() -> RegexID {
        let magnitude = magnitudeSyntax()
        return concat(optional(scalar(0x2D)), magnitude)
    }

    package mutating func everyNumber() -> NumberLanguage {
        NumberLanguage(plain: plainNumbers(), isEverything: true, isCanonical: false)
    }

    package mutating func integers() -> NumberLanguage {
        let zeros = concat(scalar(0x2E), self.repeat(scalar(0x30), min: 1, max: Self.unbounded))
        let text = concat([optional(scalar(0x2D)), natural(), optional(zeros)])
        return NumberLanguage(plain: text, isEverything: false, isCanonical: true)
    }

    package mutating func numbers(within bounds: NumberLanguage.Bounds) -> NumberLanguage {
        // A bound for the value is a bound for the magnitude, from below or above, on one side of zero or on both.
        let syntax = magnitudeSyntax()
        var positive = [syntax]
        var negative = [syntax]
        if let (value, strict) = bounds.minimum {
            if value.isNegative {
                // value >= -5: the magnitude of a negative number is at most 5.
                negative.append(not(magnitude(MagnitudeState(atLeast: value, strict: !strict))))
            } else {
                positive.append(magnitude(MagnitudeState(atLeast: value, strict: strict)))
                negative.append(zeroOnly(unless: !value.isZero || strict))
            }
        }
        if let (value, strict) = bounds.maximum {
            if value.isNegative {
                negative.append(magnitude(MagnitudeState(atLeast: value, strict: strict)))
                positive.append(Self.empty)
            } else {
                positive.append(not(magnitude(MagnitudeState(atLeast: value, strict: !strict))))
                negative.append(value.isZero && strict ? not(zeroOnly(unless: false)) : Self.anything)
            }
        }
        let below = concat(scalar(0x2D), and(negative))
        return NumberLanguage(plain: or(and(positive), below), isEverything: false, isCanonical: false)
    }

    /// The magnitude 0 in all spellings, or nothing.
    private mutating func zeroOnly(unless nothing: Bool) -> RegexID {
        guard !nothing, let zero = DecimalNumber("0") else { return Self.empty }
        return not(magnitude(MagnitudeState(atLeast: zero, strict: true)))
    }

    package mutating func numbers(equalTo value: DecimalNumber) -> NumberLanguage {
        var bounds = NumberLanguage.Bounds()
        bounds.minimum = (value, false)
        bounds.maximum = (value, false)
        var result = numbers(within: bounds)
        result.isCanonical = true
        return result
    }

    /// Multiples of modulus / 10^scale.
    package mutating func multiples(modulus: UInt64, scale: Int) -> NumberLanguage {
        let magnitude = magnitudeSyntax()
        let multiple = self.multiple(MultipleState(modulus: modulus, scale: scale))
        return NumberLanguage(
            plain: concat(optional(scalar(0x2D)), and(magnitude, multiple)), isEverything: false, isCanonical: false)
    }

    // MARK: Set operations

    package mutating func and(_ a: NumberLanguage, _ b: NumberLanguage) -> NumberLanguage {
        if a.isEverything {
            return NumberLanguage(
                plain: b.plain, isEverything: b.isEverything, isCanonical: a.isCanonical || b.isCanonical)
        }
        if b.isEverything {
            return NumberLanguage(plain: a.plain, isEverything: false, isCanonical: a.isCanonical || b.isCanonical)
        }
        return NumberLanguage(
            plain: and(a.plain, b.plain), isEverything: false, isCanonical: a.isCanonical || b.isCanonical)
    }

    package mutating func or(_ a: NumberLanguage, _ b: NumberLanguage) -> NumberLanguage {
        if a.plain == Self.empty { return b }
        if b.plain == Self.empty { return a }
        return NumberLanguage(
            plain: or(a.plain, b.plain), isEverything: a.isEverything || b.isEverything,
            isCanonical: a.isCanonical && b.isCanonical)
    }

    package mutating func not(_ a: NumberLanguage) -> NumberLanguage {
        if a.isEverything { return .none }
        if a.plain == Self.empty { return everyNumber() }
        return NumberLanguage(plain: and(plainNumbers(), not(a.plain)), isEverything: false, isCanonical: false)
    }

    /// The texts to be written for a set.
    package mutating func spelling(of numbers: NumberLanguage) -> RegexID {
        if numbers.plain == Self.empty { return Self.empty }
        if numbers.isCanonical {
            // "0.50", "1.0" and "-0" have shorter spellings of the same value.
            let trailing = concat([Self.anything, scalar(0x2E), Self.anything, scalar(0x30)])
            return and([numbers.plain, not(trailing), not(literal("-0"))])
        }
        // With a fraction at most 15 digits: readers that make doubles of numbers keep them apart.
        let whole = concat(optional(scalar(0x2D)), natural())
        let short = self.repeat(set(CodePointSet([(0x2E, 0x2E), (0x30, 0x39)])), min: 1, max: 16)
        let plain = and(numbers.plain, or(whole, concat(optional(scalar(0x2D)), short)))
        guard numbers.isEverything else { return plain }
        let exponent = concat([
            set(CodePointSet("eE")), optional(set(CodePointSet("+-"))),
            self.repeat(set(CodePointSet([(0x30, 0x39)])), min: 1, max: 2),
        ])
        return concat(plain, optional(exponent))
    }
}
