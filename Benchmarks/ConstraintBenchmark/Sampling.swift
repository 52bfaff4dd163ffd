import SigmaBase
import SigmaGrammar

/// Answers of random tokens: any allowed token, as a model at a high temperature would take it.
struct Sampling {
    var random: SplitMix64
    let tokens: [[UInt8]?]
    /// The tokens `"`, `]` and `}`.
    private let closers: [Int]

    private static let tokenLimit = 600
    /// From here on the tokens are chosen that end an answer soonest.
    private static let patience = 40

    init(random: SplitMix64, tokens: [[UInt8]?]) {
        self.random = random
        self.tokens = tokens
        closers = tokens.indices.filter { tokens[$0] == [0x22] || tokens[$0] == [0x5D] || tokens[$0] == [0x7D] }
    }

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
        if hurry {
            let closing = closers.filter { mask[$0 >> 6] >> UInt64($0 & 63) & 1 == 1 }
            if !closing.isEmpty { return closing[Int(random.next() % UInt64(closing.count))] }
        }
        let count = mask.reduce(0) { $0 + $1.nonzeroBitCount }
        guard count > 0 else { return nil }
        var left = Int(random.next() % UInt64(count))
        for (index, word) in mask.enumerated() {
            if left >= word.nonzeroBitCount {
                left -= word.nonzeroBitCount
                continue
            }
            var word = word
            for _ in 0..<left { word &= word - 1 }
            return index << 6 | word.trailingZeroBitCount
        }
        return nil
    }
}
