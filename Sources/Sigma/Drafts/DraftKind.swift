/// Where a guess comes from: guesses of one kind hold about as often as each other.
package enum DraftKind: Int, CaseIterable, Sendable {
    /// What followed an earlier occurrence of the text's end, by the number of tokens that match.
    case match1, match2, match3, match4, match6, match9, match17, match33
    /// The next token of the text that a request predicts.
    case prediction
    /// What the constraint forces.
    case constraint
    /// From a source of guesses that a measurement gives.
    case given

    /// What is assumed before anything is known, so low that a short guess is tried once or twice.
    var firstChance: Double {
        switch self {
        case .match1: 0.1
        case .match2: 0.2
        case .match3: 0.3
        case .match4: 0.4
        case .match6, .match9, .match17, .match33, .prediction, .given: 0.5
        case .constraint: 0.6
        }
    }

    /// - Parameter length: tokens that match, at least 1.
    package static func match(_ length: Int) -> DraftKind {
        switch length {
        case ...1: .match1
        case 2: .match2
        case 3: .match3
        case 4...5: .match4
        case 6...8: .match6
        case 9...16: .match9
        case 17...32: .match17
        default: .match33
        }
    }
}

/// Guesses for an answer's next tokens, in order.
package struct Draft: Sendable, Equatable {
    package private(set) var tokens: [Int32] = []
    /// [tokens]
    package private(set) var kinds: [DraftKind] = []

    package init() {}

    package mutating func append(_ token: Int32, _ kind: DraftKind) {
        tokens.append(token)
        kinds.append(kind)
    }

    package mutating func removeAll() {
        tokens.removeAll(keepingCapacity: true)
        kinds.removeAll(keepingCapacity: true)
    }
}
