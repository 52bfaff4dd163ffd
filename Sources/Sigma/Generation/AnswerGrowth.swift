/// Positions of keys and values that an answer of a batch has, and those that it was begun for: memory that is free may be promised already.
package struct AnswerGrowth: Sendable {
    /// Positions behind its prompt that an answer must have room for to begin beside others.
    private static let headroom = 256

    private let expected: Int
    private var held = 0

    package init(promptTokens: Int) { expected = promptTokens + Self.headroom }

    /// Positions that it will take, in whole blocks.
    package var missing: Int {
        (KVBlockLayout.count(max(expected, held)) - KVBlockLayout.count(held)) * KVBlockLayout.length
    }

    package mutating func take(_ event: AnswerEvent) {
        switch event {
        case .prefill(let done, _): held = max(held, done)
        case .token: held += 1
        case .closing(let ids, _): held += ids.count
        case .promptLogProbabilities, .finished: break
        }
    }
}
