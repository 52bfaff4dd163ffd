/// Guesses from what an answer has before it: its prompt, itself, and a text that the request predicts.
package struct DraftLookup: Sendable {
    /// Tokens that are looked through: the newest so many, or half of them after the oldest were dropped.
    package static let tokenLimit = 1 << 16
    /// The answer may begin with so many tokens that the prediction does not have.
    private static let beginning = 4
    /// Between the prediction and the prompt: no token.
    private static let separator: Int32 = -1

    private let tokenLimit: Int
    private var automaton = SuffixAutomaton()
    private let prediction: [Int32]
    /// Of the prediction, the tokens that the answer has repeated from its begin; nil: it has gone elsewhere.
    private var repeated: Int?
    private var answerTokens = 0

    package init(prediction: [Int32] = [], tokenLimit: Int = Self.tokenLimit) {
        self.tokenLimit = tokenLimit
        self.prediction = prediction
        repeated = prediction.isEmpty ? nil : 0
        for token in prediction.suffix(tokenLimit / 2) { automaton.append(token) }
        if !prediction.isEmpty { automaton.append(Self.separator) }
    }

    package var byteCount: Int { automaton.byteCount }

    /// - Parameter isAnswer: whether the token is the answer's, and not the prompt's or of the thinking.
    package mutating func append(_ token: Int32, isAnswer: Bool) {
        if automaton.text.count >= tokenLimit { dropOldest() }
        automaton.append(token)
        guard isAnswer, let place = repeated else { return }
        answerTokens += 1
        if place < prediction.count, prediction[place] == token {
            repeated = place + 1
        } else if place > 0 || answerTokens >= Self.beginning {
            repeated = nil
        }
    }

    private mutating func dropOldest() {
        let newest = automaton.text.suffix(tokenLimit / 2)
        automaton = SuffixAutomaton()
        for token in newest { automaton.append(token) }
    }

    /// The next tokens as they followed before; where the text's end is reached, it goes on as the guesses began.
    package func guess(_ limit: Int, into draft: inout Draft) {
        draft.removeAll()
        guard let match = automaton.match else { return }
        let text = automaton.text
        for index in 0..<limit {
            let place = match.next + index
            let token = place < text.count ? text[place] : draft.tokens[place - text.count]
            guard token != Self.separator else { return }
            draft.append(token, .match(match.length + index))
        }
    }

    /// The prediction's next tokens, while the answer follows it.
    package func predict(_ limit: Int, into draft: inout Draft) {
        draft.removeAll()
        guard let repeated else { return }
        for token in prediction[repeated...].prefix(limit) { draft.append(token, .prediction) }
    }
}
