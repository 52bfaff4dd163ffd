import Sigma
import SigmaRequests

/// Events as the engine sends them for one answer, with random contents.
struct RandomEvents {
    var random: SplitMix64
    var logProbabilityCount: Int?

    private static let texts = [
        "", "", "a", " b", "é", "🙂", "\n", "\"", "\\", "<think>", "\u{0}", "\u{2028}", "e\u{301}",
    ]

    init(seed: UInt64, logProbabilityCount: Int?) {
        random = SplitMix64(state: seed)
        self.logProbabilityCount = logProbabilityCount
    }

    private mutating func id() -> Int32 { Int32.random(in: 0..<Int32(Vocabulary.count), using: &random) }

    private mutating func logProbability() -> Double {
        switch Int.random(in: 0..<10, using: &random) {
        case 0: 0
        case 1: -.infinity
        case 2: -1e-9
        default: -20 * random.nextUnit()
        }
    }

    private mutating func top() -> [TokenLogProbability] {
        var ids: Set<Int32> = []
        while ids.count < logProbabilityCount ?? 0 { ids.insert(id()) }
        return ids.sorted().map { TokenLogProbability(id: $0, logProbability: logProbability()) }
    }

    private mutating func token(_ phase: AnswerToken.Phase) -> AnswerToken {
        var token = AnswerToken(id: id(), phase: phase, text: Self.texts.randomElement(using: &random)!)
        if logProbabilityCount != nil {
            token.logProbability = logProbability()
            token.top = top()
        }
        return token
    }

    /// - Parameter prompt: what is scored before the answer; nil: nothing.
    mutating func events(scoring prompt: [Int32]? = nil, thinks: Bool) -> [AnswerEvent] {
        var events = [AnswerEvent.prefill(done: 0, total: 3), .prefill(done: 3, total: 3)]
        if let prompt {
            events.append(
                .promptLogProbabilities(
                    prompt.indices.map { index in
                        PromptPosition(
                            next: index + 1 < prompt.count
                                ? TokenLogProbability(id: prompt[index + 1], logProbability: logProbability()) : nil,
                            top: top())
                    }))
        }
        var statistics = Statistics.ended(
            [.stop, .length, .context, .interrupted].randomElement(using: &random)!,
            prompt: Int.random(in: 1...99, using: &random), reused: Int.random(in: 0...1, using: &random))
        if thinks {
            statistics.thinkingTokens = Int.random(in: 0...5, using: &random)
            for _ in 0..<statistics.thinkingTokens { events.append(.token(token(.thinking))) }
            if Bool.random(using: &random) { events.append(.closing(ids: [1, 2], text: "Enough.")) }
        }
        statistics.answerTokens = Int.random(in: 0...8, using: &random)
        for _ in 0..<statistics.answerTokens { events.append(.token(token(.answer))) }
        var remainder: AnswerToken?
        if Bool.random(using: &random) {
            remainder = AnswerToken(
                id: -1, phase: statistics.answerTokens > 0 || !thinks ? .answer : .thinking, text: "rest")
        }
        if statistics.reason == .stop, Bool.random(using: &random) { statistics.stopToken = token(.answer) }
        events.append(.finished(statistics, remainder: remainder))
        return events
    }

    /// Several choices' events in one order that keeps each choice's own.
    mutating func mixed(_ choices: [[AnswerEvent]]) -> [(choice: Int, event: AnswerEvent)] {
        var rest = choices.map { $0[...] }
        var order: [(Int, AnswerEvent)] = []
        while let choice = rest.indices.filter({ !rest[$0].isEmpty }).randomElement(using: &random) {
            order.append((choice, rest[choice].removeFirst()))
        }
        return order
    }
}
