/// A regular expression as it is written: what the parser makes, before it becomes a language.
indirect enum Pattern {
    case set(CodePointSet)
    case sequence([Pattern])
    case alternatives([Pattern])
    case `repeat`(Pattern, min: Int32, max: Int32)
    case start
    case end
    case lookahead(Pattern, isNegative: Bool)

    /// Whether it has an anchor or a lookahead anywhere.
    var hasAssertion: Bool {
        switch self {
        case .set: false
        case .start, .end, .lookahead: true
        case .sequence(let parts), .alternatives(let parts): parts.contains { $0.hasAssertion }
        case .repeat(let body, _, _): body.hasAssertion
        }
    }

    /// Whether it has a `^` that belongs to this pattern's own position.
    var hasStart: Bool {
        switch self {
        case .start: true
        case .set, .end: false
        case .sequence(let parts), .alternatives(let parts): parts.contains { $0.hasStart }
        case .repeat(let body, _, _), .lookahead(let body, _): body.hasStart
        }
    }

    /// The fewest scalars it takes.
    var shortest: Int {
        switch self {
        case .set: 1
        case .start, .end, .lookahead: 0
        case .sequence(let parts): parts.reduce(0) { min($0 + $1.shortest, 1 << 20) }
        case .alternatives(let parts): parts.map(\.shortest).min() ?? 0
        case .repeat(let body, let least, _): min(body.shortest * Int(least), 1 << 20)
        }
    }

    var takesNothing: Bool {
        switch self {
        case .set: false
        case .start, .end, .lookahead: true
        case .sequence(let parts), .alternatives(let parts): parts.allSatisfy { $0.takesNothing }
        case .repeat(let body, _, let most): most == 0 || body.takesNothing
        }
    }
}

/// Why a regular expression isn't taken.
package struct PatternError: Error, Sendable {
    package let message: String
    /// Scalars into the expression.
    package let offset: Int
}

extension RegexArena {
    /// The texts in which the expression matches somewhere: JSON Schema's `pattern`.
    package mutating func search(_ expression: String) throws(PatternError) -> RegexID {
        var parser = PatternParser(expression)
        let pattern = try parser.parse()
        let atStart = try language(pattern, before: Self.anything, atStart: true)
        let later = try language(pattern, before: Self.anything, atStart: false)
        // A match may begin anywhere; where it doesn't look back, position 0 is like any other.
        if !pattern.hasStart { return concat(Self.anything, atStart) }
        return or(atStart, concat([Self.anyScalar, Self.anything, later]))
    }

    /// The texts that the expression matches as a whole.
    package mutating func wholeMatch(_ expression: String) throws(PatternError) -> RegexID {
        var parser = PatternParser(expression)
        let pattern = try parser.parse()
        return try language(pattern, before: Self.epsilon, atStart: true)
    }

    /// The texts that `pattern` begins and `rest`, the language of all that follows to the text's end, goes on with.
    private mutating func language(
        _ pattern: Pattern, before rest: RegexID, atStart: Bool
    ) throws(PatternError) -> RegexID {
        switch pattern {
        case .set(let scalars): return concat(set(scalars), rest)
        case .start: return atStart ? rest : Self.empty
        case .end: return isNullable(rest) ? Self.epsilon : Self.empty
        case .lookahead(let body, let isNegative):
            let ahead = try language(body, before: Self.anything, atStart: atStart)
            return and(isNegative ? not(ahead) : ahead, rest)
        case .alternatives(let parts):
            var choices: [RegexID] = []
            for part in parts { choices.append(try language(part, before: rest, atStart: atStart)) }
            return or(choices)
        case .sequence(let parts):
            return try sequence(parts, before: rest, atStart: atStart)
        case .repeat(let body, let least, let most):
            if !body.hasAssertion {
                let once = try language(body, before: Self.epsilon, atStart: false)
                return concat(self.repeat(once, min: least, max: most), rest)
            }
            guard most <= 1 else {
                throw PatternError(message: "an assertion is repeated", offset: 0)
            }
            let once = try language(body, before: rest, atStart: atStart)
            return least == 0 && most == 1 ? or(rest, once) : most == 0 ? rest : once
        }
    }

    private mutating func sequence(
        _ parts: [Pattern], before rest: RegexID, atStart: Bool
    ) throws(PatternError) -> RegexID {
        var starts: [Bool] = []
        var isStart = atStart
        var isUncertain = false
        for part in parts {
            if isUncertain && part.hasStart {
                throw PatternError(message: "'^' stands behind something that may be empty", offset: 0)
            }
            starts.append(isStart)
            if part.shortest > 0 {
                isStart = false
                isUncertain = false
            } else if !part.takesNothing && isStart {
                isUncertain = true
            }
        }
        var result = rest
        for index in parts.indices.reversed() {
            result = try language(parts[index], before: result, atStart: starts[index])
        }
        return result
    }
}
