import SigmaBase
import SigmaGrammar

/// Answers of random tokens: any allowed token, as a model at a high temperature would take it.
struct Sampling {
    var random: SplitMix64
    let tokens: [[UInt8]?]
    private static let tokenLimit = 2_000
    /// From here on the tokens are chosen that end an answer soonest.
    private static let patience = 40

    /// A line for each answer: `name`, `text`, and how it ended: `complete`, `cut` by its limit, or `stuck`.
    mutating func run(name: String, _ compiled: CompiledConstraint, answers: Int) -> String {
        var lines = ""
        for _ in 0..<answers {
            let (text, end) = answer(compiled)
            var json = JSONWriter()
            json.object {
                $0.field("name", name)
                $0.field("end", end)
                $0.field("text", String(decoding: text, as: UTF8.self))
            }
            lines += json.text + "\n"
        }
        return lines
    }

    private mutating func answer(_ compiled: CompiledConstraint) -> (text: [UInt8], end: String) {
        var state = compiled.begin()
        for step in 0..<Self.tokenLimit {
            if state.allowsEnd && (step > Self.patience || random.next() % 4 == 0) { return (state.text, "complete") }
            let mask = state.mask()
            guard let token = pick(mask, hurry: step > Self.patience) else {
                return (state.text, state.allowsEnd ? "complete" : "stuck")
            }
            guard state.advance(tokens[token] ?? []) else { return (state.text, "stuck") }
        }
        return (state.text, "cut")
    }

    private mutating func pick(_ mask: [UInt64], hurry: Bool) -> Int? {
        var allowed: [Int] = []
        for (index, word) in mask.enumerated() {
            var word = word
            while word != 0 {
                allowed.append(index << 6 | word.trailingZeroBitCount)
                word &= word - 1
            }
        }
        if allowed.isEmpty { return nil }
        if hurry {
            let closing = allowed.filter { tokens[$0]?.count == 1 && [0x22, 0x5D, 0x7D].contains(tokens[$0]?[0]) }
            if !closing.isEmpty { return closing[Int(random.next() % UInt64(closing.count))] }
        }
        return allowed[Int(random.next() % UInt64(allowed.count))]
    }
}
